"""The signal that the fleet is scaled on, by promtool: the recording rules of DESIGN section 7."""

import json
from pathlib import Path

import pytest

from tests.k8s.promtool import Expected, Pod, check, counter, gauge, named, rule_file, run

pytestmark = pytest.mark.system
WAIT, DEMAND = "pod:emojinet_queue_wait:seconds", "pod:emojinet_demand:ratio"
A = {"namespace": "emojinet", "pod": "emojinet-inference-a"}


def expect(folder: Path, pod: Pod, *, wait: float, demand: float, at: str = "3m") -> None:
    labels = {"namespace": "emojinet", "pod": pod.name}
    expected = {WAIT: [(labels, wait)], DEMAND: [(labels, demand)]}
    check(folder, pod.series(), expected, at)


def test_promtool_finds_no_fault_with_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps(rule_file()))
    run(tmp_path, "check", "rules", "--lint-fatal", "rules.yml")


def test_an_idle_pod_has_a_signal_of_zero_and_not_of_no_number(tmp_path: Path) -> None:
    expect(tmp_path, Pod(), wait=0, demand=0)


def test_one_request_shows_how_long_it_waited(tmp_path: Path) -> None:
    series = Pod().series()
    for metric, labels, value in (
        ("emojinet_queue_wait_seconds_sum", {"stage": "decode", "outcome": "served"}, 0.01),
        ("emojinet_queue_wait_seconds_sum", {"stage": "device", "outcome": "served"}, 0.02),
        ("emojinet_queue_wait_seconds_count", {"stage": "decode", "outcome": "served"}, 1),
        ("emojinet_queue_wait_seconds_count", {"stage": "device", "outcome": "served"}, 1),
    ):
        name = named(metric, **A, **labels, priority="interactive")
        assert name in series
        series[name] = f"0x30 {value}x20"
    check(tmp_path, series, {WAIT: [(A, 0.03)]})
    check(tmp_path, series, {WAIT: [(A, 0)]}, at="2m")


def test_normal_running_is_governed_by_demand(tmp_path: Path) -> None:
    pod = Pod(served=30, waited={"device": 0.3}, busy={"device": 0.6, "decode": 0.2})
    expect(tmp_path, pod, wait=0.01, demand=0.6)


def test_a_restarted_process_counts_from_zero_again_and_nothing_jumps(tmp_path: Path) -> None:
    pod = Pod(served=30, waited={"device": 0.3}, busy={"device": 0.6})
    series = pod.series()
    for name, values in series.items():
        if values.startswith("0+"):  # a counter, which begins anew after 150 s
            step = values[2:].partition("x")[0]
            series[name] = f"0+{step}x29 0+{step}x20"
    # The increase between the last scrape and the restart is lost: a twelfth.
    expected: Expected = {
        WAIT: [(A, 0.01)],
        f"{DEMAND} > bool 0.5": [(A, 1)],
        f"{DEMAND} <= 0.6": [(A, 0.55)],
    }
    check(tmp_path, series, expected)


def test_a_pod_that_starts_has_no_signal_before_it_is_ready(tmp_path: Path) -> None:
    ready = Pod(served=30, busy={"device": 0.6}).series()
    new = Pod(name="emojinet-inference-b", served=30, busy={"device": 0.6}, after=30)  # 150 s
    page = {named("process_cpu_seconds_total", namespace="emojinet", pod=new.name): counter(1)}
    b = {**A, "pod": new.name}
    check(tmp_path, ready | page | new.series(), {f"{DEMAND} * 0": [(A, 0)]}, at="2m25s")
    check(tmp_path, ready | page | new.series(), {f"{DEMAND} * 0": [(A, 0), (b, 0)]}, at="2m40s")


def test_a_pod_that_is_gone_has_no_signal_from_then_on(tmp_path: Path) -> None:
    series = Pod(served=30, busy={"device": 0.6}).series()
    for name, values in series.items():
        series[name] = f"{values.rpartition('x')[0]}x30 stale"
    check(tmp_path, series, {DEMAND: [(A, 0.6)]}, at="2m30s")
    check(tmp_path, series, {DEMAND: [], WAIT: []}, at="2m40s")


def test_a_pod_without_series_has_no_signal_and_takes_none_from_the_others(tmp_path: Path) -> None:
    series = Pod(served=30, busy={"device": 0.6}).series()
    series[named("up", namespace="emojinet", pod="emojinet-inference-b")] = gauge(0)
    check(tmp_path, series, {DEMAND: [(A, 0.6)], WAIT: [(A, 0)]})


def test_large_photographs_overload_the_decoders_while_the_device_idles(tmp_path: Path) -> None:
    # At 6.7 ms of a core for each, two decoders do 298 a second, before a GPU that could do 1,000;
    # 60 more are asked for, a fifth. Were the slow lane capacity, demand would be a third less.
    pod = Pod(
        served=298,
        waited={"decode": 298 * 0.4, "device": 298 * 0.001},
        refused=60,
        busy={"decode": 2.0, "device": 0.9},
        capacity=1000.0,
        first=0.008,
        decoders=2,
    )
    expect(tmp_path, pod, wait=round((298 * 0.401 + 60) / 358, 3), demand=round(358 / 298, 3))


def test_what_is_refused_counts_as_a_second_of_wait(tmp_path: Path) -> None:
    pod = Pod(served=50, waited={"device": 25.0}, refused=20, busy={"device": 1.0})
    expect(tmp_path, pod, wait=round((25 + 20) / 70, 3), demand=1.4)


def test_demand_counts_what_is_refused_as_if_it_were_served(tmp_path: Path) -> None:
    # Three times what one replica can do, of which it serves one third.
    pod = Pod(served=50, waited={"device": 35.0}, refused=100, busy={"device": 1.0})
    expect(tmp_path, pod, wait=0.9, demand=3.0)


def test_the_autoscaler_sees_no_wait_beyond_three_times_the_objective(tmp_path: Path) -> None:
    pod = Pod(served=50, waited={"device": 35.0}, refused=100, busy={"device": 1.0})
    check(tmp_path, pod.series(), {"pod:emojinet_queue_wait:bounded": [(A, 0.3)]})
    calm = Pod(served=30, waited={"device": 6.0}, busy={"device": 0.6})
    check(tmp_path, calm.series(), {"pod:emojinet_queue_wait:bounded": [(A, 0.2)]})


def test_a_pod_that_refuses_everything_has_waited_a_second(tmp_path: Path) -> None:
    expect(tmp_path, Pod(refused=20), wait=1.0, demand=0)


def test_deadlines_that_an_idle_server_would_miss_do_not_scale_the_fleet(tmp_path: Path) -> None:
    expect(tmp_path, Pod(served=10, hopeless=500, busy={"device": 0.2}), wait=0, demand=0.2)


def test_pictures_that_cannot_be_decoded_count_once_like_others(tmp_path: Path) -> None:
    pod = Pod(served=10, undecodable=10, waited={"decode": 2.0}, busy={"device": 0.2})
    expect(tmp_path, pod, wait=0.1, demand=0.2)


def test_bulk_work_alone_never_scales_the_fleet(tmp_path: Path) -> None:
    pod = Pod(served=50, waited={"device": 500.0}, busy={"device": 1.0}, refused=9, priority="bulk")
    expect(tmp_path, pod, wait=0, demand=0)


def test_bulk_work_beside_interactive_changes_nothing(tmp_path: Path) -> None:
    series = Pod(served=10, waited={"device": 0.1}, busy={"device": 0.2, "decode": 0.1}).series()
    bulk = Pod(served=40, waited={"device": 99.0}, busy={"device": 0.8, "decode": 1.9}, refused=9)
    bulk.priority = "bulk"
    of_bulk = {name: v for name, v in bulk.series().items() if 'priority="bulk"' in name}
    check(tmp_path, series | of_bulk, {WAIT: [(A, 0.01)], DEMAND: [(A, 0.2)]})


def test_a_device_that_batches_is_judged_by_what_it_could_do(tmp_path: Path) -> None:
    # s(1) = 8 ms, s(8) = 15 ms: 533 a second. One by one, 100 a second keep it busy for 0.8.
    pod = Pod(served=100, busy={"device": 0.8}, capacity=533.3, first=0.008)
    expect(tmp_path, pod, wait=0, demand=0.188)


def test_a_device_slower_than_when_it_was_calibrated_shows_how_full_it_is(tmp_path: Path) -> None:
    # 12 ms each when idle; beside busy decoders 18: 100 a second take 1.8 of 2 slots.
    pod = Pod(served=100, busy={"device": 1.8}, capacity=166.7, first=0.012)
    expect(tmp_path, pod, wait=0, demand=0.9)


def test_without_service_times_images_are_counted_all_the_same(tmp_path: Path) -> None:
    series = Pod(served=30, busy={"device": 0.6}).series()
    there = {name: v for name, v in series.items() if "service_time" not in name}
    check(tmp_path, there, {DEMAND: [(A, 0.6)]})


def test_a_crawler_that_decodes_has_no_signal(tmp_path: Path) -> None:
    pod = Pod(name="emojinet-crawler-a", served=40, busy={"decode": 2.0}, refused=3)
    decoding = {name: v for name, v in pod.series().items() if 'stage="decode"' in name}
    check(tmp_path, decoding, {WAIT: [], DEMAND: [], "pod:emojinet_shed:rate": []})


def test_many_pods_have_a_signal_each(tmp_path: Path) -> None:
    pods = [
        Pod(name=f"emojinet-inference-{n:02}", served=n, busy={"device": n / 50}) for n in range(50)
    ]
    series = {name: values for pod in pods for name, values in pod.series().items()}
    expected: Expected = {
        DEMAND: [({**A, "pod": pod.name}, round(pod.served / 50, 3)) for pod in pods],
        f"sum({DEMAND})": [({}, round(sum(range(50)) / 50, 3))],
        f"count({WAIT} == 0)": [({}, 50)],
    }
    check(tmp_path, series, expected)
