"""That our HorizontalPodAutoscaler decides as the real controller did, sync by sync."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.prove.hpa import Autoscaler, ours
from tests.prove.simulated import CONSTANT, TURNS, simulate

TRACES = Path(__file__).parent / "hpa-traces"
SCENARIOS = sorted(path.stem for path in TRACES.glob("*.json"))
TARGETS = {"emojinet_demand": 650, "emojinet_queue_wait": 100}
VALUES = st.integers(0, 5000)
SYNCS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40)


def pods(count: int, state: str = "ready") -> dict[str, str]:
    return {f"pod-{n}": state for n in range(count)}


def serve(count: int, *values: int) -> dict[str, dict[str, int]]:
    """Each of our metrics at this value in so many pods."""
    return {
        name: dict.fromkeys(pods(count), value) for name, value in zip(TARGETS, values, strict=True)
    }


def spec(**behavior: Any) -> dict[str, Any]:
    """Ours, from 1 to 50 replicas, that at once does as it likes."""
    free = {"stabilizationWindowSeconds": 0}
    rules = {side: free | behavior.get(side, {}) for side in ("scaleUp", "scaleDown")}
    return ours()["spec"] | {"minReplicas": 1, "maxReplicas": 50, "behavior": rules}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_decides_as_the_controller_did(scenario: str) -> None:
    of = json.loads((TRACES / f"{scenario}.json").read_text())
    flags = of["controller"]
    window = flags["horizontal_pod_autoscaler_downscale_stabilization"].partition("s")[0]
    tolerance = flags["horizontal_pod_autoscaler_tolerance"]
    autoscaler = Autoscaler(of["hpa_spec"], tolerance, float(window))
    replicas = of["initial_replicas"]
    for line in (TRACES / f"{scenario}.syncs.jsonl").read_text().splitlines():
        sync = json.loads(line)
        decided = autoscaler.sync(sync["t"], replicas, sync["pods"], sync["served"])
        replicas = sync["outcome"]["deployment_replicas"]
        assert decided == replicas, f"{scenario} at {sync['t']} s"


@given(SYNCS)
def test_stays_within_its_bounds(syncs: list[tuple[int, int]]) -> None:
    autoscaler, replicas = Autoscaler(ours()["spec"]), 2
    for n, values in enumerate(syncs):
        before = replicas
        replicas = autoscaler.sync(15.0 * n, before, pods(before), serve(before, *values))
        assert 2 <= replicas <= min(10, max(before + 4, 2 * before))


@given(SYNCS)
def test_never_shrinks_within_its_window(syncs: list[tuple[int, int]]) -> None:
    autoscaler, replicas, sizes = Autoscaler(ours()["spec"]), 5, [5]
    for n, values in enumerate(syncs[:20]):  # within 300 s
        replicas = autoscaler.sync(15.0 * n, replicas, pods(replicas), serve(replicas, *values))
        sizes.append(replicas)
    assert sizes == sorted(sizes)


@given(st.integers(1, 50), VALUES)
def test_a_lost_metric_never_shrinks_the_fleet(replicas: int, demand: int) -> None:
    served = serve(replicas, demand, 0) | {"emojinet_queue_wait": None}
    assert Autoscaler(spec()).sync(0, replicas, pods(replicas), served) >= replicas


@given(st.integers(1, 50), st.integers(0, 50), VALUES)
def test_pending_pods_never_make_it_ask_for_more(ready: int, pending: int, demand: int) -> None:
    replicas = min(50, ready + pending)
    booting = {f"new-{n}": "pending" for n in range(pending)}
    served = serve(ready, demand, 0)
    all_there = Autoscaler(spec()).sync(0, replicas, pods(ready), served)
    assert Autoscaler(spec()).sync(0, replicas, pods(ready) | booting, served) <= max(
        replicas, all_there
    )


def test_pods_on_their_way_out_do_not_count() -> None:
    leaving = {"old-1": "deleting", "old-2": "failed"}
    served = serve(4, 650, 0)
    served["emojinet_demand"] |= dict.fromkeys(leaving, 5000)
    assert Autoscaler(spec()).sync(0, 4, pods(4) | leaving, served) == 4


def test_just_on_target_missing_pods_change_nothing() -> None:
    served = serve(3, 650, 0) | {"emojinet_queue_wait": dict.fromkeys(pods(3), 100)}
    assert Autoscaler(spec()).sync(0, 4, pods(4), served) == 4


def test_a_mean_is_of_whole_thousandths() -> None:
    served = {"emojinet_demand": {"pod-0": 715, "pod-1": 715, "pod-2": 716}}
    served["emojinet_queue_wait"] = dict.fromkeys(pods(3), 0)
    assert Autoscaler(spec()).sync(0, 3, pods(3), served) == 3  # 1.1 times the target: tolerated


def test_a_tolerance_of_its_own_for_each_direction() -> None:
    tolerant = spec(scaleUp={"tolerance": "500m"}, scaleDown={"tolerance": "0"})
    assert Autoscaler(tolerant).sync(0, 10, pods(10), serve(10, 975, 0)) == 10
    assert Autoscaler(tolerant).sync(0, 10, pods(10), serve(10, 980, 0)) == 16
    assert Autoscaler(tolerant).sync(0, 10, pods(10), serve(10, 580, 0)) == 9


def test_what_is_outside_of_its_bounds_comes_back_at_once_and_none_stays_none() -> None:
    assert Autoscaler(ours()["spec"]).sync(0, 14, {}, {}) == 10
    assert Autoscaler(ours()["spec"]).sync(0, 1, {}, {}) == 2
    assert Autoscaler(ours()["spec"]).sync(0, 0, {}, {}) == 0


def test_without_behavior_a_sync_may_double_and_falls_are_held_for_the_window() -> None:
    plain = {key: value for key, value in spec().items() if key != "behavior"}
    autoscaler = Autoscaler(plain, window=30)
    assert autoscaler.sync(0, 3, pods(3), serve(3, 5000, 0)) == 6
    assert autoscaler.sync(5, 6, pods(6), serve(6, 5000, 0)) == 12
    assert autoscaler.sync(10, 12, pods(12), serve(12, 65, 0)) == 24
    assert autoscaler.sync(36, 24, pods(24), serve(24, 65, 0)) == 3


def test_our_signal_is_steady_where_wait_alone_swings() -> None:
    alone = simulate("wait only", CONSTANT)
    calm, turning = simulate("ours", CONSTANT), simulate("ours", TURNS)
    assert calm["direction_changes"] == 0 < 10 < alone["direction_changes"]
    assert calm["replica_hours_over_ideal"] <= 0.15 < alone["replica_hours_over_ideal"]
    assert turning["late_share"] < simulate("wait only", TURNS)["late_share"]


def test_to_bound_the_wait_and_count_the_refused_saves_replicas_and_costs_nobody() -> None:
    ours, before = simulate("ours", TURNS), simulate("ours, unbounded", TURNS)
    assert ours["replica_hours_over_ideal"] <= 0.15 < before["replica_hours_over_ideal"]
    assert ours["late_share"] <= before["late_share"] + 0.001
    assert ours["refused_share"] <= before["refused_share"] + 0.001
