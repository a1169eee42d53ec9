"""When calls are due, drawn before the first is sent.

A load that waits for answers slows down with the server and so never shows what it does to those
who do not wait ("coordinated omission"). Here the times are fixed beforehand: a random process of
rate one, or evenly spaced ticks, stretched so that it has the wanted rate at every moment.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from typing import NamedTuple

MAX_CALLS = 5_000_000


class Segment(NamedTuple):
    """A stretch of time in which the rate, in calls a second, goes evenly from one to another."""

    seconds: float
    from_rate: float
    to_rate: float

    @property
    def calls(self) -> float:
        """How many are expected in it."""
        return self.seconds * (self.from_rate + self.to_rate) / 2

    def when(self, calls: float) -> float:
        """Seconds into the segment by which so many calls are expected."""
        growth = (self.to_rate - self.from_rate) / self.seconds
        rate_then = math.sqrt(max(0.0, self.from_rate**2 + 2 * growth * calls))
        return min(self.seconds, 2 * calls / (self.from_rate + rate_then)) if calls else 0.0


Draw = Callable[[Sequence[Segment]], list[float]]


def poisson(segments: Sequence[Segment], rng: random.Random) -> list[float]:
    """Seconds at which independent callers call: in any stretch a Poisson number of them."""
    return _stretched((rng.expovariate(1) for _ in repeat(None)), segments)


def constant(segments: Sequence[Segment]) -> list[float]:
    """Seconds of evenly spaced calls, the first at once.

    >>> constant([Segment(1, 4, 4), Segment(1, 1, 1)])
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return _stretched(chain([0.0], repeat(1.0)), segments)


def steps(rates: Iterable[float], seconds: float) -> list[Segment]:
    """Each rate for so many seconds."""
    return [Segment(seconds, rate, rate) for rate in rates]


def ramp(rates: Iterable[float], seconds: float) -> list[Segment]:
    """Evenly from each rate to the next in so many seconds."""
    return [Segment(seconds, one, other) for one, other in pairwise(rates)]


def recorded(lines: Iterable[str], draw: Draw) -> list[float]:
    """The times of a recorded load.

    Args:
        lines: CSV with or without a header. One column: the second of each call, in any order, from
            any epoch. Two: a second, ascending, and the rate from then on, of which `draw` makes
            times; the last rate holds as long as the one before.
        draw: `constant`, or `poisson` with its random numbers.

    Raises:
        ValueError: it is none of these.
    """
    rows = list(_numbers(lines))
    columns = {len(row) for row in rows}
    if columns == {1}:
        start = min(rows)[0]
        return sorted(at - start for (at,) in rows)
    lengths = [later[0] - earlier[0] for earlier, later in pairwise(rows)]
    if columns != {2} or any(length <= 0 for length in lengths):
        raise ValueError("a trace is lines of a second, or of a second, ascending, and a rate")
    seconds = [*lengths, lengths[-1] if lengths else 1.0]
    return draw([Segment(s, rate, rate) for s, (_, rate) in zip(seconds, rows, strict=True)])


def _numbers(lines: Iterable[str]) -> Iterator[list[float]]:
    for number, line in enumerate(lines, start=1):
        try:
            values = [float(cell) for cell in line.split(",")]
        except ValueError:
            if number == 1 or not line.strip():
                continue  # a header, or nothing
            raise ValueError(f"line {number} of the trace is not numbers: {line}") from None
        if not all(map(math.isfinite, values)):
            raise ValueError(f"line {number} of the trace is not finite: {line}")
        yield values


def _stretched(gaps: Iterator[float], segments: Iterable[Segment]) -> list[float]:
    """When a process of rate one with these gaps happens, once it runs at the segments' rates."""
    segments = list(segments)
    if not all(0 <= r < math.inf for s in segments for r in (s.from_rate, s.to_rate)):
        raise ValueError("a rate is a number of at least 0")
    if not 0 < sum(segment.calls for segment in segments) <= MAX_CALLS:
        raise ValueError(f"a load is more than 0 and at most {MAX_CALLS:,} calls")
    times: list[float] = []
    due, start = next(gaps), 0.0
    for segment in segments:
        while due < segment.calls:
            times.append(start + segment.when(due))
            due += next(gaps)
        due -= segment.calls
        start += segment.seconds
    return times
