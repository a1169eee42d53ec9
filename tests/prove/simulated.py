"""Signals for the autoscaler, compared on a fleet that is only computed: an hour in a second.

Each replica takes an image at a time, `SERVICE_SECONDS` each; waits are those of M/D/1 and of the
backlog. As our server, a replica refuses what would wait for longer than 75 % of the deadline.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.prove.hpa import Autoscaler, ours

SERVICE_SECONDS, PATIENCE_SECONDS, OBJECTIVE_SECONDS = 0.025, 0.75, 0.1
WINDOW, SYNC, START = 60, 15, 45  # seconds: of the rules, of the autoscaler, until a pod is ready
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


class Second(NamedTuple):
    """What one replica did in a second, on average, and how many images still wait."""

    served: float
    refused: float
    waited: float
    backlog: float


SIGNALS: dict[str, dict[str, tuple[int, Callable[[Sequence[Second]], float]]]] = {
    "ours": {
        "demand": (650, lambda past: mean(s.served for s in past) * SERVICE_SECONDS),
        "wait": (100, lambda past: wait(past)),
    },
    "wait only": {"wait": (100, lambda past: wait(past))},
    # By Little's law: the seconds that were waited in a second are how many wait at a time.
    "queue depth": {"depth": (1000, lambda past: mean(s.waited for s in past))},
    "Triton's": {"avg_time_queue_us": (50_000, lambda past: 1e6 * wait(past))},
}
"""Of each kind its metrics: the target in thousandths, and what a replica of that past says."""


def wait(past: Sequence[Second]) -> float:
    """As the rules have it: one that was refused has waited for a second."""
    images = sum(s.served + s.refused for s in past)
    return sum(s.waited + s.refused for s in past) / images if images else 0.0


def simulate(signal: str, rates: Sequence[float]) -> dict[str, float]:
    """What comes of a load of so many images in each second."""
    metrics = SIGNALS[signal]
    spec: dict[str, Any] = ours()["spec"] | {"minReplicas": LEAST, "maxReplicas": MOST}
    spec["metrics"] = [_metric(name, target) for name, (target, _) in metrics.items()]
    autoscaler = Autoscaler(spec)
    ready, backlog, turns, last = [0.0] * _ideal(rates[0]), 0.0, 0, 0
    past: deque[Second] = deque(maxlen=WINDOW)
    used = ideal = late = refused = 0.0
    for now, rate in enumerate(rates):
        there = sum(at <= now for at in ready)
        second = _second(rate / there, backlog / there)
        backlog = second.backlog * there
        past.append(second)
        if now % SYNC == 0 and now >= WINDOW:
            pods = {str(n): "ready" if at <= now else "running" for n, at in enumerate(ready)}
            served = {
                name: {pod: round(1000 * tell(past)) for pod in pods if pods[pod] == "ready"}
                for name, (_, tell) in metrics.items()
            }
            change = autoscaler.sync(now, len(ready), pods, served) - len(ready)
            ready = ready[: len(ready) + change] + [now + START] * change
            turns += change * last < 0
            last = change or last
        if autoscaler._wishes and autoscaler._wishes[-1][1] >= len(ready):  # not merely held
            used, ideal = used + len(ready), ideal + _ideal(rate)
        late += rate * (second.waited > OBJECTIVE_SECONDS * max(second.served, 1e-9))
        refused += second.refused * there
    return {
        "direction_changes": turns,
        "replica_hours_over_ideal": round(used / ideal - 1, 3) if ideal else 0.0,
        "late_share": round(late / sum(rates), 4),
        "refused_share": round(refused / sum(rates), 4),
    }


def _second(rate: float, backlog: float) -> Second:
    """Of one replica that is asked so much, with so many waiting already."""
    most = 1 / SERVICE_SECONDS
    served = min(most, backlog + rate)
    refused = max(0.0, backlog + rate - served - PATIENCE_SECONDS * most)
    left = backlog + rate - served - refused
    busy = min(served / most, 0.98)
    waits = SERVICE_SECONDS * busy / (2 * (1 - busy)) + (backlog + left) / 2 / most
    return Second(served, refused, served * waits, left)


def _metric(name: str, target: int) -> dict[str, Any]:
    asked = {"type": "AverageValue", "averageValue": f"{target}m"}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": asked}}


def _ideal(rate: float) -> int:
    return max(LEAST, -int(-rate * SERVICE_SECONDS // DEMAND))


def main() -> None:
    """Every signal on every load."""
    table, found = Table("signal", "load", title="an hour, at most 50 replicas"), {}
    for signal in SIGNALS:
        for load, rates in {"constant": CONSTANT, "turns": TURNS}.items():
            figures = found[f"{signal}, {load}"] = simulate(signal, rates)
            if not table.row_count:
                for name in figures:
                    table.add_column(name)
            table.add_row(signal, load, *map(str, figures.values()))
    Console().print(table)
    print("RESULT", json.dumps({"alternatives": found}))


if __name__ == "__main__":
    main()
