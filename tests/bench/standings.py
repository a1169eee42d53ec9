"""What was measured of each contender, round by round, and the figures that follow from it.

A ratio is the median of the ratios of each round, so that drift of the machine hits both sides.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clients.report import Kind
from tests.bench.callers import Load, response

PHASES = ("decode_wait", "decode", "queue_wait", "compute", "total")
CALM_SECONDS = 0.1  # once an overload has ended, an answer that takes longer is not yet normal


class Closed(NamedTuple):
    """A closed loop."""

    rate: float
    latencies: list[float]
    server_ms: float
    """CPU of the server's own processes for an answer."""
    tool_ms: float
    """CPU of the load itself for a call."""
    memory_mb: float
    phases_ms: dict[str, float]
    """Means, as our server tells them; of others none."""


class Opened(NamedTuple):
    """An open loop, with a calm time behind it."""

    offered: float
    """Calls a second."""
    goodput: float
    """Answers a second within their deadline and before the load had ended."""
    latencies: list[float]
    refusals: list[float]
    wasted_share: float
    """Of device time: on what nobody got. NaN where it is not known. An image that was alone counts
    as on one core, and took less: of a load below capacity some of it is that."""
    recovery_seconds: float
    """From the end of the load to the last call that was not answered quickly."""


@dataclass(slots=True)
class Standing:
    """One contender in all rounds."""

    closed: dict[int, list[Closed]] = field(default_factory=lambda: defaultdict(list))
    """By calls in flight."""
    large: list[Closed] = field(default_factory=list)
    opened: dict[str, list[Opened]] = field(default_factory=lambda: defaultdict(list))
    """By what was offered: `2x`, or `same` for the rate that all get."""

    def capacities(self) -> list[float]:
        """The best closed loop of each round."""
        rounds = zip(*self.closed.values(), strict=True)
        return [max(one.rate for one in each) for each in rounds]

    def latencies(self, in_flight: int) -> list[float]:
        """Of all rounds."""
        return sorted(s for one in self.closed[in_flight] for s in one.latencies)


def ratio(
    ours: Sequence[float], others: Iterable[Sequence[float]]
) -> tuple[float, tuple[float, float]]:
    """The median of ours over the best of the others, round by round; the least and the most.

    >>> ratio([10.0, 20.0, 30.0], [[5.0, 5.0, 5.0], [1.0, 10.0, 1.0]])
    (2.0, (2.0, 6.0))
    """
    each = [own / max(rest) for own, *rest in zip(ours, *others, strict=True)]
    return statistics.median(each), (min(each), max(each))


def share_ms(ascending: Sequence[float], share: float) -> float:
    """The latency, in milliseconds, that this share did not exceed."""
    if not ascending:
        return float("nan")
    return 1000 * ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def closed(load: Load, memory_mb: float, *, ours: bool) -> Closed:
    """What a closed loop says."""
    report = load.report
    if load.answered == 0:
        return Closed(0.0, [], float("nan"), float("nan"), memory_mb, {})
    phases: dict[str, float] = {}
    if ours:
        timings = [response(content).timing for _, content in load.good]
        for phase in PHASES:
            seconds = [getattr(timing, phase).ToNanoseconds() / 1e9 for timing in timings]
            phases[phase] = 1000 * statistics.mean(seconds)
    return Closed(
        load.rate,
        report.latencies(Kind.GOOD),
        1000 * load.server_seconds / load.answered,
        1000 * report.cpu_seconds / len(report.outcomes),
        memory_mb,
        phases,
    )


def opened(load: Load, offered: float, device_seconds: float) -> Opened:
    """What an open loop says.

    Args:
        device_seconds: how long the device was busy during it; 0 if nobody says.
    """
    outcomes = load.report.outcomes
    within = [outcome for outcome in outcomes if outcome.at <= load.seconds]
    late = [
        outcome.at - load.seconds
        for outcome in outcomes
        if outcome.at > load.seconds
        and (outcome.kind is not Kind.GOOD or outcome.latency > CALM_SECONDS)
    ]
    wasted = float("nan")
    if device_seconds:
        timings = (response(content).timing for _, content in load.good)
        used = sum(t.compute.ToNanoseconds() / 1e9 / t.batch_size for t in timings)
        wasted = 1 - used / device_seconds
    return Opened(
        offered,
        load.rate,
        sorted(o.latency for o in within if o.kind is Kind.GOOD),
        sorted(o.latency for o in within if o.kind is Kind.REFUSED),
        wasted,
        max(late, default=0.0),
    )
