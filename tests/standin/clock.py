"""The time of the stand-in: the real one, or one that only moves when told to."""

import asyncio
import time


class Clock:
    """Seconds since 1970. Quota windows, tips and `Retry-After` all go by it.

    A simulated clock lets a test live through fifteen hours of rate windows in seconds: give the
    crawler `clock.sleep` in place of `asyncio.sleep`, or advance it over HTTP.
    """

    def __init__(self, start: float | None = None) -> None:
        self._simulated = start

    @property
    def simulated(self) -> bool:
        return self._simulated is not None

    def now(self) -> float:
        return time.time() if self._simulated is None else self._simulated

    def advance(self, seconds: float) -> float:
        """Moves a simulated clock on; the new time.

        Raises:
            ValueError: it is the real clock, or would go back.
        """
        if self._simulated is None or not seconds >= 0:
            raise ValueError("only a simulated clock can be advanced, and only forwards")
        self._simulated += seconds
        return self._simulated

    async def sleep(self, seconds: float) -> None:
        """Sleeps by this clock; simulated time passes at once."""
        if self._simulated is None:
            await asyncio.sleep(seconds)
            return
        self.advance(max(seconds, 0.0))
        await asyncio.sleep(0)
