"""Signals for the autoscaler, compared on a fleet that is only computed: an hour in a second.

Each replica takes an image at a time, `SERVICE_SECONDS` each; waits are those of M/D/1 and of the
backlog. As our server, a replica refuses what would wait for longer than 75 % of the deadline.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.prove.hpa import Autoscaler, ours

SERVICE_SECONDS, PATIENCE_SECONDS, OBJECTIVE_SECONDS = 0.025, 0.75, 0.1
WINDOW, SYNC, START = 60, 15, 45  # seconds: of the rules, of the autoscaler, until a pod is ready
CONNECTION_AGE = 20  # seconds
LEAST, MOST, DEMAND = 2, 50, 0.65
CONSTANT = [320.0] * 3600
TURNS = [
    *[160.0] * 600,
    *[480.0] * 600,  # a step
    *[160.0] * 600,  # a fall
    *(160.0 + 0.8 * second for second in range(600)),  # a ramp
    *[320.0] * 300,
    *[1000.0] * 60,  # a burst
    *[320.0] * 840,
]


LOADS = {"constant": CONSTANT, "turns": TURNS}


class Second(NamedTuple):
    """What a replica did in a second, in images: those answered, those refused, and their waits."""

    served: float
    refused: float
    waited: float


class Replica:
    """One image at a time.

    Args:
        ready: the second from which it takes work.
    """

    def __init__(self, ready: float) -> None:
        self.ready = ready
        self.waited = 0.0
        """In all, in seconds."""
        self._backlog = 0.0
        self._past: deque[Second] = deque(maxlen=WINDOW)

    def share(self, now: float) -> float:
        """How much of a replica's fair part it gets: clients find new ones by and by."""
        return min(1.0, max(0.0, (now - self.ready + 1) / CONNECTION_AGE))

    def work(self, rate: float) -> Second:
        """Another second, in which so many images come."""
        most = 1 / SERVICE_SECONDS
        served = min(most, self._backlog + rate)
        refused = max(0.0, self._backlog + rate - served - PATIENCE_SECONDS * most)
        left = self._backlog + rate - served - refused
        busy = min(served / most, 0.98)
        waits = SERVICE_SECONDS * busy / (2 * (1 - busy)) + (self._backlog + left) / 2 / most
        self._backlog = left
        self.waited += served * waits
        self._past.append(Second(served, refused, served * waits))
        return self._past[-1]

    @property
    def rates(self) -> Second:
        """Of the window, each second's; as for Prometheus, one that is new did nothing before."""
        return Second(*(sum(figures) / WINDOW for figures in zip(*self._past, strict=True)))


def served(of: Replica) -> float:
    """The share of a second in which it was busy."""
    return of.rates.served * SERVICE_SECONDS


def asked(of: Replica) -> float:
    """The same, had nothing been refused."""
    return (of.rates.served + of.rates.refused) * SERVICE_SECONDS


def wait(of: Replica) -> float:
    """The mean; one that was refused has waited for a second."""
    rates = of.rates
    images = rates.served + rates.refused
    return (rates.waited + rates.refused) / images if images else 0.0


def bounded(of: Replica) -> float:
    """As the autoscaler sees it."""
    return min(wait(of), 3 * OBJECTIVE_SECONDS)


SIGNALS: dict[str, dict[str, tuple[int, Callable[[Replica], float]]]] = {
    "ours": {"demand": (650, asked), "wait": (100, bounded)},
    "ours, unbounded": {"demand": (650, served), "wait": (100, wait)},
    "busy only": {"demand": (650, served)},
    "wait only": {"wait": (100, wait)},
    # By Little's law: the seconds that were waited in a second are how many wait at a time.
    "queue depth": {"depth": (1000, lambda of: of.rates.waited)},
    "Triton's": {"avg_time_queue_us": (50_000, lambda of: 1e6 * wait(of))},
    # The counter itself, with no rate: it only rises.
    "TorchServe's": {"ts_queue_latency_microseconds": (7_000_000, lambda of: 1e6 * of.waited)},
}
"""Of each kind its metrics: the target in thousandths, and what a replica says."""


def simulate(signal: str, rates: Sequence[float]) -> dict[str, float]:
    """What comes of a load of so many images in each second."""
    metrics = SIGNALS[signal]
    spec: dict[str, Any] = ours()["spec"] | {"minReplicas": LEAST, "maxReplicas": MOST}
    spec["metrics"] = [_metric(name, target) for name, (target, _) in metrics.items()]
    autoscaler = Autoscaler(spec)
    fleet, turns, last = [Replica(-CONNECTION_AGE) for _ in range(_ideal(rates[0]))], 0, 0
    used = wanted = late = refused = 0.0
    for now, rate in enumerate(rates):
        share = sum(replica.share(now) for replica in fleet)
        for replica in fleet:
            if part := rate * replica.share(now) / share:
                second = replica.work(part)
                late += part * (second.waited > OBJECTIVE_SECONDS * second.served)
                refused += second.refused
        if now % SYNC == 0 and now >= WINDOW:
            change = _synced(autoscaler, now, fleet, metrics) - len(fleet)
            fleet = fleet[: len(fleet) + change] + [Replica(now + START) for _ in range(change)]
            turns += change * last < 0
            last = change or last
        if autoscaler.wishes and autoscaler.wishes[-1][1] >= len(fleet):  # not merely held
            used, wanted = used + len(fleet), wanted + _ideal(rate)
    return {
        "direction_changes": turns,
        "replica_hours_over_ideal": round(used / wanted - 1, 3) if wanted else 0.0,
        "late_share": round(late / sum(rates), 4),
        "refused_share": round(refused / sum(rates), 4),
    }


def _synced(
    autoscaler: Autoscaler,
    now: float,
    fleet: Sequence[Replica],
    metrics: Mapping[str, tuple[int, Callable[[Replica], float]]],
) -> int:
    pods = {str(n): "ready" if each.ready <= now else "running" for n, each in enumerate(fleet)}
    there = {str(n): each for n, each in enumerate(fleet) if each.ready <= now}
    values = {
        name: {pod: round(1000 * tell(of)) for pod, of in there.items()}
        for name, (_, tell) in metrics.items()
    }
    return autoscaler.sync(now, len(fleet), pods, values)


def _metric(name: str, target: int) -> dict[str, Any]:
    asked = {"type": "AverageValue", "averageValue": f"{target}m"}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": asked}}


def compared() -> dict[str, dict[str, float]]:
    """Every signal on every load."""
    return {
        f"{signal}, {load}, simulated": simulate(signal, rates)
        for signal in SIGNALS
        for load, rates in LOADS.items()
    }


def _ideal(rate: float) -> int:
    return max(LEAST, -int(-rate * SERVICE_SECONDS // DEMAND))
