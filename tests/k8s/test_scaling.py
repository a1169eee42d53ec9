"""The proofs on a fleet: what their figures mean, and a short run of each."""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.k8s.promtool import rule_file
from tests.prove import rollout, scaling
from tests.prove.observed import hurried
from tests.prove.scaling_figures import (
    Run,
    Sync,
    direction_changes,
    figures,
    new_replica_share,
    replica_hours_over_ideal,
    settle_periods,
    waits,
)
from tests.prove.stretches import CONSTANT, EACH, STEP, STRETCHES, Stretch, ideal, rates, when

CALM = (Stretch(CONSTANT, 300, 3.0, 3.0),)
UP = (Stretch("low", 60, 2.0, 2.0), Stretch(STEP, 300, 6.0, 6.0))


def a_run(
    load: Sequence[Stretch],
    sizes: Sequence[int],
    *,
    held: Sequence[bool] = (),
    ready: Sequence[int] = (),
    waited: float = 0.0,
    until: float = 0.0,
) -> Run:
    """A fleet of these sizes, a sync each; images waited so long until that second, then not."""
    seconds = sum(stretch.seconds for stretch in load)
    syncs = [
        Sync(15.0 * n, size, (ready or sizes)[n], bool(held) and held[n], {})
        for n, size in enumerate(sizes)
    ]
    scrapes = [5.0 * n for n in range(seconds // 5 + 1)]
    left = [(at, at * 10) for at in scrapes]
    wait = [(at, min(at, until) * 10 * waited) for at in scrapes]
    none = [(at, 0.0) for at in scrapes]
    past = {"left": {"a": left}, "waited": {"a": wait}, "shed": {"a": none}, "calls": {"a": left}}
    report = {"refused": 0, "failed": 0, "unsent": 0, "offered": 10 * seconds}
    return Run("ours", 1, load, syncs, {}, past, report)


def test_replicas_above_the_load_are_counted_unless_they_are_only_held() -> None:
    assert replica_hours_over_ideal(a_run(CALM, [3] * 20)) == 0
    assert replica_hours_over_ideal(a_run(CALM, [6] * 20)) == 1
    half = [False] * 10 + [True] * 10
    assert replica_hours_over_ideal(a_run(CALM, [3] * 10 + [6] * 10, held=half)) == 0


def test_a_turn_at_constant_load_is_counted_and_growth_is_not() -> None:
    assert direction_changes(a_run(CALM, [3, 4, 4, 5, *[5] * 16])) == 0
    assert direction_changes(a_run(CALM, [3, 4, 3, 3, 4, *[4] * 15])) == 2
    assert direction_changes(a_run(UP, [2] * 24)) is None


def test_settling_counts_from_when_enough_replicas_are_ready() -> None:
    grown = [2] * 5 + [6] * 19
    ready = [2] * 9 + [6] * 15  # at 135 s
    soon = a_run(UP, grown, ready=ready, waited=0.5, until=160)
    assert settle_periods(soon) == 2  # from 165 s on nobody waits
    assert settle_periods(a_run(UP, grown, ready=ready, waited=0.5, until=360)) is None
    assert settle_periods(a_run(UP, grown, ready=ready)) == 0
    assert settle_periods(a_run(UP, [2] * 24)) is None


def test_a_refused_call_has_waited_a_second() -> None:
    run = a_run(CALM, [3] * 20)
    run.past["shed"]["a"] = [(at, at * 10) for at, _ in run.past["left"]["a"]]
    assert all(wait == 0.5 for _, wait in waits(run))


def test_a_new_replica_is_held_against_its_fair_part() -> None:
    run = a_run(CALM, [3] * 20)
    run.past["calls"] = {
        "old": [(at, 30 * at) for at in range(0, 301, 5)],
        "new": [(at, 10 * max(0, at - 100)) for at in range(0, 301, 5)],
    }
    run.ready["new"] = 100.0
    assert new_replica_share(run) == pytest.approx(0.5)  # 10 of 40 a second, of which half is fair
    assert new_replica_share(a_run(CALM, [3] * 20)) is None


@given(st.floats(0, 2000))
def test_the_ideal_serves_the_load_at_its_target(rate: float) -> None:
    assert rate <= EACH * ideal(rate) * (1 + 1e-9)
    assert ideal(rate) == 2 or EACH * (ideal(rate) - 1) <= rate


def test_a_load_goes_from_stretch_to_stretch() -> None:
    found = rates(STRETCHES)
    assert len(found) == sum(stretch.seconds for stretch in STRETCHES)
    step = when(STRETCHES, STEP)
    assert step is not None
    assert found[int(step[0])] == pytest.approx(3 * found[int(step[0]) - 1])
    assert all(b >= a for a, b in pairwise(rates([Stretch("ramp", 60, 1, 2)])))


def test_the_window_and_the_interval_of_the_signal_are_divided() -> None:
    (group,) = hurried(rule_file(), 8)["groups"]
    assert group["interval"] == "625ms"
    windows = {w for rule in group["rules"] for w in re.findall(r"\[(.+?)\]", rule["expr"])}
    assert windows == {"7500ms"}


@pytest.mark.system
@pytest.mark.alone
def test_the_fleet_grows_with_a_step_and_no_call_fails(tiny: Path, tmp_path: Path) -> None:
    load = (Stretch("low", 90, 1.9, 1.9), Stretch(STEP, 360, 5.7, 5.7))
    own = asyncio.run(scaling.own_seconds(tmp_path, tiny))
    run = asyncio.run(scaling.run("ours", load, 10, tmp_path / "run", tiny, own))
    assert figures(run)["failed_calls"] == 0, run.report["why"]
    assert max(sync.ready for sync in run.syncs) >= 6, run.syncs


@pytest.mark.system
@pytest.mark.alone
def test_the_fleet_is_restarted_under_load_and_no_call_fails(tiny: Path, tmp_path: Path) -> None:
    found = asyncio.run(rollout.prove(1, tmp_path, tiny))
    assert (found["restarts"], found["failed_calls"]) == (1, 0), found
