"""Keeps a client from asking a server that refuses most of what it is asked.

Adaptive throttling, as in Google's book on site reliability (chapter "Handling Overload"): a client
compares what it has asked with what was accepted, and refuses the excess by itself, at random. A
refusal costs the server half a millisecond; one that never leaves the client costs it nothing.
The server's push-back says how long that may go on: once it has passed without another refusal,
everything is sent again.
"""

import math
import random
import time
from collections.abc import Callable

from services.shared.errors import EmojinetError, Overloaded

MEMORY_SECONDS = 2.0  # past calls count for less and less
EXCESS = 1.5  # so many times what is accepted is sent all the same: how else would one know
SPARED = 10.0  # so few calls do no harm
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 1.0  # of one push-back


class Throttle:
    """What one client has asked of a server lately; threads may share it."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._draw = clock, draw
        self._asked = self._accepted = self._at = 0.0
        self._until = -math.inf

    def refusal(self) -> Overloaded | None:
        """None if the next call may be sent; it counts as asked either way."""
        now = self._clock()
        self._age(now)
        excess = self._asked - EXCESS * self._accepted - SPARED
        share = max(0.0, excess / (self._asked + 1)) if now < self._until else 0.0
        self._asked += 1
        if self._draw() >= share:
            return None
        return Overloaded(
            f"Not sent: the server refuses most calls now, and so {share:.0%} are refused here. "
            "Try again later.",
            retry_seconds=self._until - now,
            waitMilliseconds="0",
        )

    def observe(self, failure: EmojinetError | None) -> None:
        """Learns what became of a call that was sent."""
        if isinstance(failure, Overloaded):
            pause = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, failure.retry_seconds or 0.0))
            self._until = self._clock() + pause
        else:
            self._accepted += 1

    def _age(self, now: float) -> None:
        keep = math.exp((self._at - now) / MEMORY_SECONDS)
        self._asked, self._accepted, self._at = self._asked * keep, self._accepted * keep, now
