"""How often a server may be asked, learned from what its answers announce.

Servers keep one of two kinds of books. With a reset (`RateLimit-Reset` and its kin) they tell how
much is left until when: the least that any answer left, minus what is under way, may still be
asked. Without one (Instagram) they count the calls of the last hour: then we keep the same book.
A call arrives some time between being sent and being answered, so ours holds it from the one until
an hour after the other. That is why we are never refused, and it costs only what calls last.
"""

import asyncio
import json
import math
import re
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple

WINDOW_SECONDS = 3600.0  # of limits that come without a reset
SLOTS = 512  # in which a window's calls are remembered: costs 0.2 % of the quota
DRIFT = 1.001  # between clocks, in an hour
ROUNDING_SECONDS = 1.0  # of resets, which are told in whole seconds
DEFAULT_SECONDS = 60.0  # how long to wait when told to wait, but not how long
MAX_SECONDS, MAX_RESET_SECONDS = 3600.0, 86400.0  # whatever a server says
SILENT_CALLS = 3  # so many without an answer, and the server is left alone for a while
EPOCH, EPOCH_MS = 10**9, 10**12  # resets from here on are dates

_INTEGER = re.compile(r"\s*(\d{1,15})\b")
_PARAMETER = re.compile(r"\b(limit|remaining|reset|[qrtw])\s*=\s*(\d{1,15})\b")
_MEANINGS = {"limit": "q", "remaining": "r", "reset": "t"}


class Clock:
    """The time; tests have their own."""

    def now(self) -> float:
        """Seconds since 1970, which may jump."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Quota:
    """The limit of one API key, or of one host.

    `async with quota:` waits for a turn; `observe`, within it, learns from the answer. Until the
    first answer there is one call at a time, since nobody knows yet how many are allowed.

    Args:
        clock: what it waits by.
        state: of the quota that it continues.
    """

    pace_seconds = 0.0
    """The least time from call to call."""

    def __init__(self, *, clock: Clock | None = None, state: str = "") -> None:
        self._clock = clock or Clock()
        self._line, self._changed = asyncio.Lock(), asyncio.Event()
        self._turns: dict[object, float] = {}  # tasks that await an answer, and since when
        self._answered, self._silent, self._refusals = False, 0, 0
        self._blocked = -math.inf  # no call before
        self._limit: int | None = None
        # The book with a reset: what is left, until some time between these two.
        self._left: int | None = None
        self._reset = (-math.inf, -math.inf)  # the first is infinite where the second is a guess
        self._longest = 0.0  # a reset was never further away
        # The book without: (end of the slot in which calls were answered, how many).
        self._log: deque[tuple[float, int]] = deque()
        if state:
            self._restore(state)

    async def __aenter__(self) -> None:
        async with self._line:  # first come, first served
            while (wait := self._wait(self._clock.monotonic())) > 0:
                await self._pause(wait)
            now = self._clock.monotonic()
            self._turns[asyncio.current_task()] = now
            if self.pace_seconds:
                self._blocked = now + self.pace_seconds

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._turns.pop(asyncio.current_task(), None) is not None:
            # No answer: the server may have counted the call, or may be gone.
            now = self._clock.monotonic()
            self._count(now)
            self._silent += kind is not asyncio.CancelledError
            if self._silent >= SILENT_CALLS:
                self._block(now, min(DEFAULT_SECONDS, 2.0 ** (self._silent - SILENT_CALLS)))
            self._changed.set()

    def delay(self) -> float:
        """Seconds until the next turn, as far as known: answers under way may tell otherwise."""
        wait = self._wait(self._clock.monotonic())
        return wait if wait < math.inf else 0.0

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Learns from an answer, as soon as its headers are there."""
        now = self._clock.monotonic()
        sent = self._turns.pop(asyncio.current_task(), now)
        self._answered, self._silent = True, 0
        said = announced(headers, self._clock.now())
        self._limit = said.limit or self._limit
        if said.left is None or (said.reset is None and not self._limit):
            self._count(now)
        elif said.reset is not None:
            self._enter_left(said.left, sent + said.reset, now + said.reset)
        else:
            self._enter_call(said.left, sent, now)
        if status in (429, 503):
            self._refuse(status, said, now)
        else:
            self._refusals = 0
        self._changed.set()

    @property
    def left(self) -> int | None:
        """Calls that its server still allows now; None where that was never said."""
        if self._left is not None or self._limit is None:
            return self._left
        now = self._clock.monotonic()
        held = sum(count for end, count in self._log if end + _HOLD_SECONDS > now)
        return max(0, self._limit - held)

    def state(self) -> str:
        """What a later process has to know, in at most a few kilobytes."""
        to_wall = self._clock.now() - self._clock.monotonic()
        now = self._clock.monotonic()
        self._prune(now)
        told: dict[str, Any] = {"limit": self._limit, "left": self._left, "longest": self._longest}
        told["blocked"] = round(max(self._blocked, now) + to_wall, 1)
        told["reset"] = round(max(self._reset[1], now) + to_wall, 1)
        told["log"] = [(round(end + to_wall, 1), count) for end, count in self._log]
        if self._turns and self._limit is not None and self._left is None:
            told["log"].append((round(now + to_wall, 1), len(self._turns)))
        return json.dumps(told, separators=(",", ":"))

    def _restore(self, state: str) -> None:
        """Times are trusted no further than a wrong clock could mislead: at worst it all waits."""
        now, wall = self._clock.monotonic(), self._clock.now()
        try:
            told = json.loads(state)
            longest = min(float(told["longest"]), MAX_RESET_SECONDS)
            log = [(now + min(end - wall, 0.0), int(count)) for end, count in told["log"]]
            blocked = now + min(told["blocked"] - wall, MAX_SECONDS)
            reset = now + min(told["reset"] - wall, longest + ROUNDING_SECONDS)
            limit = max(0, int(told["limit"] or 0)) or None
            left = None if told["left"] is None else int(told["left"])
        except (ValueError, KeyError, TypeError, OverflowError):
            return  # what cannot be read is learned anew
        self._limit, self._left, self._longest = limit, left, longest
        self._log, self._blocked, self._reset = deque(log), blocked, (-math.inf, reset)

    def _wait(self, now: float) -> float:
        """Infinite where the next turn depends on an answer that is under way."""
        wait = self._blocked - now
        if self._left is not None:
            wait = max(wait, self._wait_for_reset(now))
        elif self._limit is not None:
            wait = max(wait, self._wait_for_log(now, self._limit))
        if self._turns and not self._answered:
            return math.inf
        return max(0.0, wait)

    def _wait_for_reset(self, now: float) -> float:
        if now >= self._reset[1]:
            # A new window, or one that slides and has room for one call: the next answer will tell.
            self._answered, self._left = False, self._limit or 1
            self._reset = (-math.inf, now + self._longest + ROUNDING_SECONDS)
        left = self._left or 0
        return 0.0 if left > len(self._turns) else self._reset[1] - now

    def _wait_for_log(self, now: float, limit: int) -> float:
        held = [(end, count) for end, count in self._log if end + _HOLD_SECONDS > now]
        excess = len(self._turns) + sum(count for _, count in held) - limit
        if excess < 0:
            return 0.0
        for end, count in held:
            excess -= count
            if excess < 0:
                return end + _HOLD_SECONDS - now
        return math.inf

    async def _pause(self, seconds: float) -> None:
        """Waits so long, or until an answer has changed something."""
        self._changed.clear()
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
        if seconds < math.inf:
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _enter_left(self, left: int, earliest: float, latest: float) -> None:
        self._longest = max(self._longest, latest - self._clock.monotonic())
        earliest, latest = earliest - 2 * ROUNDING_SECONDS, latest + ROUNDING_SECONDS
        if self._left is None or self._reset[0] == -math.inf or earliest > self._reset[1]:
            self._left, self._reset = left, (earliest, latest)  # the first, or a later window
        elif latest >= self._reset[0]:  # the same; answers of earlier ones say nothing any more
            self._left = min(self._left, left)
            self._reset = (max(self._reset[0], earliest), min(self._reset[1], latest))

    def _enter_call(self, left: int, sent: float, now: float) -> None:
        self._count(now)
        if self._left is not None:
            self._left = min(self._left, left)
            return
        # Calls that the server has counted and we have not: of others, or of a process killed.
        known = len(self._turns) + sum(c for end, c in self._log if end + _HOLD_SECONDS > sent)
        if (others := (self._limit or 0) - left - known) > 0:
            self._count(now, others)

    def _count(self, now: float, calls: int = 1) -> None:
        if self._left is not None:
            self._left = max(0, self._left - calls)
        elif self._limit is not None:
            end = (now // _SLOT_SECONDS + 1) * _SLOT_SECONDS
            if self._log and self._log[-1][0] >= end:
                end, before = self._log.pop()
                calls += before
            self._log.append((end, calls))
            self._prune(now)

    def _prune(self, now: float) -> None:
        # An answer that is under way may still tell of calls that were held when it was sent.
        oldest = min(self._turns.values(), default=now)
        while self._log and self._log[0][0] + _HOLD_SECONDS <= oldest:
            self._log.popleft()

    def _refuse(self, status: int, said: "Announced", now: float) -> None:
        if said.retry is not None:
            self._block(now, max(1.0, said.retry))
        elif status == 429:
            # Ever longer: what it says, if anything, may be wrong, and refused calls may count.
            self._refusals += 1
            reset = said.reset + ROUNDING_SECONDS if said.reset is not None else DEFAULT_SECONDS
            self._block(now, reset * 2 ** min(self._refusals - 1, 6))

    def _block(self, now: float, seconds: float) -> None:
        self._blocked = max(self._blocked, now + min(seconds, MAX_SECONDS))


_SLOT_SECONDS = WINDOW_SECONDS / SLOTS
_HOLD_SECONDS = WINDOW_SECONDS * DRIFT


class Announced(NamedTuple):
    """What an answer's headers say of limits; None where they do not, or nothing sensible."""

    limit: int | None
    left: int | None
    reset: float | None
    """Seconds from when it was said."""
    retry: float | None
    """Seconds to wait."""


def announced(headers: Mapping[str, str], now: float) -> Announced:
    """Reads `RateLimit`, `RateLimit-*`, `X-RateLimit-*` and `Retry-After` in all their forms.

    >>> announced({"X-Ratelimit-Limit": "5000", "X-Ratelimit-Remaining": "4999"}, now=0.0)
    Announced(limit=5000, left=4999, reset=None, retry=None)
    >>> announced({"RateLimit": '"default";r=50;t=30', "Retry-After": "-1"}, now=0.0)
    Announced(limit=None, left=50, reset=30.0, retry=None)
    """
    found = {
        low.removeprefix("x-"): value
        for name, value in headers.items()
        if "rate" in (low := name.lower()) or low in ("retry-after", "date")
    }
    if not found or found.keys() == {"date"}:
        return Announced(None, None, None, None)
    sent = _date(found.get("date", "")) or now
    forms: dict[str, int] = {}
    for name in ("ratelimit", "ratelimit-policy"):
        for key, value in _PARAMETER.findall(found.get(name, "").lower()):
            forms.setdefault(_MEANINGS.get(key, key), int(value))
    limit = _integer(found.get("ratelimit-limit", "")) or forms.get("q") or None
    left = _integer(found.get("ratelimit-remaining", ""))
    reset = _reset(found.get("ratelimit-reset", ""), sent)
    retry = _retry(found.get("retry-after", ""), sent)
    left = forms.get("r") if left is None else left
    reset = forms.get("t") if reset is None else reset
    capped = None if reset is None else float(min(max(reset, 0.0), MAX_RESET_SECONDS))
    return Announced(limit, left, capped, retry)


def _integer(text: str) -> int | None:
    found = _INTEGER.match(text)
    return int(found[1]) if found else None


def _reset(text: str, sent: float) -> float | None:
    """Seconds, a date in seconds or milliseconds since 1970, or one that people can read."""
    try:
        moment = datetime.fromisoformat(text.strip()) if not text.strip().isdecimal() else None
    except ValueError:
        moment = None
    if moment:
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - sent
    number = _integer(text)
    if number is None or number < EPOCH:
        return number
    return (number / 1000 if number >= EPOCH_MS else number) - sent


def _retry(text: str, sent: float) -> float | None:
    if text.strip().isdecimal():
        return min(float(text), MAX_SECONDS)
    moment = _date(text)
    return moment - sent if moment and moment > sent else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
