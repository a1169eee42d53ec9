"""Which alerts fire when, by promtool; docs/operations.md says what to do about each."""

from pathlib import Path

import pytest

from tests.k8s.promtool import Pod, check_alerts, named

pytestmark = pytest.mark.system
HPA = {"namespace": "emojinet", "horizontalpodautoscaler": "emojinet-inference"}
INFERENCE = {"namespace": "emojinet", "pod": "emojinet-inference-a"}
CRAWLER = {"namespace": "emojinet", "pod": "emojinet-crawler-a"}
TRAINER = {"namespace": "emojinet", "pod": "emojinet-trainer-a"}
GOOD = Pod(served=30, waited={"device": 0.3}, busy={"device": 0.6})


def always(value: float) -> str:
    return f"{value}+0x1000"


def growing(step: float) -> str:
    return f"0+{step}x1000"


def load(pod: Pod, scale: float = 6.0) -> dict[str, str]:
    """A pod's series for hours, one sample in 30 s."""
    pod.minutes = 200
    found = {}
    for name, values in pod.series().items():
        start, _, rest = values.partition("+")
        step = float(rest.partition("x")[0])
        found[name] = f"{start}+{step * scale}x1000"
    return found


def condition(status: str, hpa: str = HPA["horizontalpodautoscaler"]) -> dict[str, str]:
    """What kube-state-metrics tells of an HPA that gets its metrics, or does not."""
    labels = {**HPA, "horizontalpodautoscaler": hpa, "condition": "ScalingActive"}
    name = "kube_horizontalpodautoscaler_status_condition"
    return {
        named(name, **labels, status=each): always(1 if each == status else 0)
        for each in ("true", "false", "unknown")
    }


def replicas(desired: int, most: int = 10) -> dict[str, str]:
    return {
        named("kube_horizontalpodautoscaler_status_desired_replicas", **HPA): always(desired),
        named("kube_horizontalpodautoscaler_spec_max_replicas", **HPA): always(most),
    }


def ready(value: int, pod: str = INFERENCE["pod"]) -> dict[str, str]:
    labels = {"namespace": "emojinet", "pod": pod, "condition": "true"}
    return {named("kube_pod_status_ready", **labels): always(value)}


def crawl(*, running: int, paused: int, posts: float, images: float) -> dict[str, str]:
    return {
        named("emojinet_crawls", **CRAWLER, state="running"): always(running),
        named("emojinet_crawls", **CRAWLER, state="paused"): always(paused),
        named("emojinet_posts_total", **CRAWLER, source="bluesky", outcome="kept"): growing(posts),
        named("emojinet_images_total", **CRAWLER, outcome="stored"): growing(images),
    }


def training(*, running: int, seconds: float, failed: str = "0+0x1000") -> dict[str, str]:
    spent = named("emojinet_train_seconds_total", **TRAINER, activity="compute")
    return {
        named("emojinet_runs", **TRAINER, state="running"): always(running),
        named("emojinet_runs", **TRAINER, state="paused"): always(0),
        named("emojinet_runs", **TRAINER, state="failed"): failed,
        named("emojinet_train_loss", **TRAINER): always(2.5),
        spent: growing(seconds),
    }


def healthy() -> dict[str, str]:
    return {
        **load(GOOD),
        **condition("true"),
        **replicas(3),
        **ready(1),
        **crawl(running=1, paused=0, posts=10, images=5),
        **training(running=1, seconds=25),
    }


def test_where_all_is_well_only_the_watchdog_fires(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy(), [], "2h")


def test_an_idle_fleet_raises_no_alert(tmp_path: Path) -> None:
    idle = load(Pod()) | condition("true") | replicas(1) | ready(1)
    idle |= crawl(running=0, paused=0, posts=0, images=0) | training(running=0, seconds=0)
    check_alerts(tmp_path, idle, [], "2h")


def test_a_fifth_of_images_late_burns_the_allowance_fast(tmp_path: Path) -> None:
    late = Pod(served=30, waited={"device": 4.0}, late=6, busy={"device": 0.9})
    fires = ["EmojinetObjectiveBurnsFast", "EmojinetObjectiveBurnsSlowly"]
    check_alerts(tmp_path, healthy() | load(late), fires, "2h")


def test_a_tenth_of_images_late_burns_it_slowly(tmp_path: Path) -> None:
    late = Pod(served=30, waited={"device": 2.0}, late=3, busy={"device": 0.8})
    check_alerts(tmp_path, healthy() | load(late), ["EmojinetObjectiveBurnsSlowly"], "7h")


def test_refusals_are_told_and_burn_the_allowance_too(tmp_path: Path) -> None:
    full = Pod(served=50, waited={"device": 2.5}, refused=20, busy={"device": 1.0})
    fires = ["EmojinetRefuses", "EmojinetObjectiveBurnsFast", "EmojinetObjectiveBurnsSlowly"]
    check_alerts(tmp_path, healthy() | load(full), fires, "2h")


def test_deadlines_that_nobody_could_keep_alert_nobody(tmp_path: Path) -> None:
    hopeless = Pod(served=30, hopeless=20, busy={"device": 0.6})
    check_alerts(tmp_path, healthy() | load(hopeless), [], "2h")


def test_a_fleet_that_can_grow_no_more_is_told(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy() | replicas(10), ["EmojinetFleetAtMaximum"], "20m")
    check_alerts(tmp_path, healthy() | replicas(10), [], "9m")


@pytest.mark.parametrize("hpa", ["emojinet-inference", "keda-hpa-emojinet-inference"])
def test_without_adapter_or_metric_the_autoscaler_is_blind_and_told(
    tmp_path: Path, hpa: str
) -> None:
    series = healthy() | condition("false", hpa)
    check_alerts(tmp_path, series, ["EmojinetAutoscalerBlind"], "10m")


def test_a_fleet_that_is_switched_off_is_not_blind(tmp_path: Path) -> None:
    hpa = "keda-hpa-emojinet-inference"
    name = "kube_horizontalpodautoscaler_status_current_replicas"
    off = {named(name, **{**HPA, "horizontalpodautoscaler": hpa}): always(0)}
    check_alerts(tmp_path, condition("false", hpa) | off, [], "10m")


def test_the_autoscaler_of_somebody_else_is_none_of_ours(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy() | condition("false", "their-inference"), [], "10m")


def test_a_ready_pod_without_a_signal_is_told(tmp_path: Path) -> None:
    unscraped = ready(1, "emojinet-inference-b")
    check_alerts(tmp_path, healthy() | unscraped, ["EmojinetSignalAbsent"], "10m")


def test_rules_or_metrics_that_are_absent_altogether_are_told(tmp_path: Path) -> None:
    series = {name: values for name, values in healthy().items() if "capacity" not in name}
    check_alerts(tmp_path, series, ["EmojinetSignalAbsent"], "10m")


def test_a_pod_that_never_gets_ready_is_told_and_has_no_part_in_the_signal(tmp_path: Path) -> None:
    series = healthy() | ready(0, "emojinet-inference-b")
    check_alerts(tmp_path, series, ["EmojinetPodNotReady"], "20m")
    check_alerts(tmp_path, series, [], "5m")


def test_the_pod_of_a_job_that_is_done_need_not_be_ready(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy() | ready(0, "emojinet-train-1-x7k2p"), [], "20m")


def test_work_that_nobody_takes_up_is_told(tmp_path: Path) -> None:
    stuck = {named("emojinet_queue_oldest_wait_seconds", **INFERENCE, stage="device"): always(45)}
    check_alerts(tmp_path, healthy() | stuck, ["EmojinetStuck"], "10m")


def test_replicas_that_serve_different_models_are_told(tmp_path: Path) -> None:
    served = {
        named("emojinet_model_info", namespace="emojinet", pod=pod, name="n", version=v): always(1)
        for pod, v in (("emojinet-inference-a", "1"), ("emojinet-inference-b", "2"))
    }
    check_alerts(tmp_path, healthy() | served, ["EmojinetModelsDiffer"], "20m")


@pytest.mark.parametrize(("days", "fires"), [(30, False), (8, False), (6, True), (-1, True)])
def test_a_certificate_that_ends_soon_or_has_ended_is_told(
    tmp_path: Path, days: float, fires: bool
) -> None:
    name = "emojinet_tls_certificate_expiry_timestamp_seconds"
    shown = {named(name, **CRAWLER): always(days * 86_400)}
    told = ["EmojinetCertificateExpires"] if fires else []
    check_alerts(tmp_path, healthy() | shown, told, "2h")


@pytest.mark.parametrize(
    ("running", "paused", "posts", "images", "fires"),
    [
        (1, 0, 0, 0, True),  # hangs
        (0, 1, 0, 0, True),  # waits for a person: an expired token
        (1, 0, 0, 5, False),  # all posts are read, their pictures are still being fetched
        (1, 0, 5, 0, False),  # ranks: it fetches nothing
        (0, 0, 0, 0, False),
    ],
)
def test_a_crawl_that_does_not_get_on_is_told(
    tmp_path: Path, running: int, paused: int, posts: float, images: float, fires: bool
) -> None:
    series = healthy() | crawl(running=running, paused=paused, posts=posts, images=images)
    check_alerts(tmp_path, series, ["EmojinetCrawlerStalled"] if fires else [], "1h")


def test_a_run_that_does_not_get_on_is_told(tmp_path: Path) -> None:
    series = healthy() | training(running=1, seconds=0)
    check_alerts(tmp_path, series, ["EmojinetTrainingStalled"], "2h")


def test_a_run_that_fails_is_told_and_those_from_long_ago_are_not(tmp_path: Path) -> None:
    failed = healthy() | training(running=0, seconds=0, failed="3x100 4x900")
    check_alerts(tmp_path, failed, ["EmojinetTrainingFailed"], "55m")
    check_alerts(tmp_path, failed, [], "45m")
    check_alerts(tmp_path, failed, [], "100m")


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    loss = {named("emojinet_train_loss", **TRAINER): "NaN+0x1000"}
    check_alerts(tmp_path, healthy() | loss, ["EmojinetTrainingFailed"], "10m")
