"""What a run of `prove-scaling` shows: how soon, how steady, how many, and whose calls failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from tests.prove.observed import Series
from tests.prove.simulated import OBJECTIVE_SECONDS, SYNC
from tests.prove.stretches import CONSTANT, STEP, Stretch, ideal, rates, when

NEW_SECONDS = 60.0  # so long is a replica called new
STAYS = 4  # periods for which the wait has to be below the objective to be back
INTERACTIVE = 'priority="interactive"'
WAIT = "emojinet_queue_wait_seconds"
QUERIES = {
    "calls": 'sum by (pod) (emojinet_requests_total{method="Suggest"})',
    "waited": f'sum by (pod) ({WAIT}_sum{{outcome!="shed",{INTERACTIVE}}})',
    "shed": f'sum by (pod) ({WAIT}_count{{outcome="shed",{INTERACTIVE}}})',
    "left": f'sum by (pod) ({WAIT}_count{{stage="device",outcome!="shed",{INTERACTIVE}}})',
}
"""Counters, of which a run keeps each pod's values at each scrape."""


class Sync(NamedTuple):
    """What the autoscaler saw and did. `at` in seconds of control, values the means over pods."""

    at: float
    replicas: int
    """After it."""
    ready: int
    held: bool
    """There are more than it asks for, until down-stabilisation is over."""
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One signal under the whole load; all times in seconds of control after its start."""

    signal: str
    factor: float
    stretches: Sequence[Stretch]
    syncs: list[Sync]
    ready: dict[str, float]
    """When each pod became ready; those that were there before are not in it."""
    past: dict[str, Series]
    """Of `QUERIES`."""
    report: dict[str, Any]
    """What `emojinet load` said."""

    @property
    def seconds(self) -> int:
        """In which calls were due."""
        return sum(stretch.seconds for stretch in self.stretches)


def figures(run: Run) -> dict[str, Any]:
    """Those that the proof is about."""
    report = run.report
    refused = report["refused"] / report["offered"]
    return {
        "settle_periods": settle_periods(run),
        "direction_changes_at_constant_load": direction_changes(run),
        "replica_hours_over_ideal": replica_hours_over_ideal(run),
        "failed_calls": report["failed"] + report["unsent"],
        "refused_share": round(refused, 4),
        "late_share": late_share(run),
        "new_replica_share": new_replica_share(run),
        "calls": report["offered"],
    }


def settle_periods(run: Run) -> float | None:
    """After the step: from when enough replicas are ready until nobody waits for too long."""
    if not (step := when(run.stretches, STEP)):
        return None
    start, end = step
    needed = ideal(rates(run.stretches)[int(start)])
    enough = next((s.at for s in run.syncs if s.at >= start and s.ready >= needed), None)
    if enough is None:
        return None
    later = [(at, wait) for at, wait in waits(run) if enough <= at < end]
    for n, (at, _) in enumerate(later):
        if all(wait <= OBJECTIVE_SECONDS for _, wait in later[n : n + STAYS]):
            return round((at - enough) / SYNC, 1)
    return None


def direction_changes(run: Run) -> int | None:
    """How often it turned from growing to shrinking or back while the load stayed as it was."""
    if not (constant := when(run.stretches, CONSTANT)):
        return None
    start, end = constant
    sizes = [sync.replicas for sync in run.syncs if start <= sync.at < end]
    steps = [b - a for a, b in pairwise(sizes) if a != b]
    return sum(a * b < 0 for a, b in pairwise(steps))


def replica_hours_over_ideal(run: Run) -> float:
    """The share by which replicas were more than the load needs at every instant, if not held."""
    wanted, used, ideally = rates(run.stretches), 0.0, 0.0
    for sync, following in pairwise(run.syncs):
        if not sync.held:
            used += sync.replicas * (following.at - sync.at)
            ideally += sum(map(ideal, wanted[int(sync.at) : int(following.at)]))
    return round(used / ideally - 1, 3) if ideally else 0.0


def late_share(run: Run) -> float:
    """The share of periods in which the mean wait was over the objective."""
    found = [wait > OBJECTIVE_SECONDS for _, wait in waits(run)]
    return round(sum(found) / len(found), 4) if found else 0.0


def waits(run: Run) -> list[tuple[float, float]]:
    """For each of the autoscaler's periods the mean wait in it; a refusal waited a second."""
    sums = {what: [0.0] * (run.seconds // SYNC + 1) for what in ("waited", "shed", "left")}
    for what, bins in sums.items():
        for at, _, more in increases(run.past[what]):
            if 0 <= at < run.seconds:
                bins[int(at // SYNC)] += more
    return [
        (n * SYNC, (waited + shed) / (left + shed))
        for n, (waited, shed, left) in enumerate(zip(*sums.values(), strict=True))
        if left + shed
    ]


def new_replica_share(run: Run) -> float | None:
    """Of the calls that are a new replica's fair part, how many it got."""
    got = fair = 0.0
    by_time: dict[float, list[tuple[str, float]]] = {}
    for at, pod, more in increases(run.past["calls"]):
        by_time.setdefault(at, []).append((pod, more))
    for at, parts in by_time.items():
        there = [(pod, more) for pod, more in parts if run.ready.get(pod, 0.0) <= at]
        new = [more for pod, more in there if at - run.ready.get(pod, -NEW_SECONDS) < NEW_SECONDS]
        if new:
            got += sum(new)
            fair += sum(more for _, more in there) * len(new) / len(there)
    return round(got / fair, 3) if fair else None


def increases(series: Series) -> list[tuple[float, str, float]]:
    """At each scrape, of which pod, and by how much it rose until the next."""
    return sorted(
        (at, pod, max(0.0, after - before))
        for pod, values in series.items()
        for (at, before), (_, after) in pairwise(values)
    )
