"""That every metric which dashboards, rules and autoscalers name is there."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from services.shared.access import Access
from services.shared.queue import BUCKETS_SECONDS, OBJECTIVE_SECONDS
from tests.k8s import queries
from tests.k8s.conftest import Program
from tests.k8s.promtool import rule_file
from tests.k8s.rendered import K8S, named, rendered
from tests.shared.authority import Authority

RECORDED = {
    rule["record"] for group in rule_file()["groups"] for rule in group["rules"] if "record" in rule
}
ADAPTER = yaml.safe_load((K8S / "components/prometheus-adapter/values.yaml").read_text())
TARGET_DEMAND = 0.65


@pytest.fixture(scope="module")
def told(
    programs: dict[str, Program], crawled: None, tmp_path_factory: pytest.TempPathFactory
) -> set[str]:
    """The names of all series that our services have, and those that come once sources say."""
    pages = "\n".join(program.page() for program in programs.values())
    pages += under_tls(tmp_path_factory.mktemp("tls"))
    names = set(re.findall(r"^([a-z_]+)(?:\{| )", pages, re.MULTILINE))
    return names | set(re.findall(r"^# TYPE ([a-z_]+) gauge", pages, re.MULTILINE))


def under_tls(folder: Path) -> str:
    """What a server tells beside, when it has a certificate."""
    registry = CollectorRegistry()
    chain, key = Authority(folder).issue()
    Access(chain, key).credentials(registry)
    return generate_latest(registry).decode()


def test_every_metric_of_ours_that_is_named_exists(told: set[str]) -> None:
    known = told | RECORDED | set(queries.FOREIGN)
    for where, expression in queries.every():
        assert queries.metrics(expression) <= known, where


def test_every_foreign_metric_that_is_allowed_is_used() -> None:
    used = set().union(*(queries.metrics(expression) for _, expression in queries.every()))
    assert set(queries.FOREIGN) <= used


def test_every_recorded_series_is_used() -> None:
    used = set().union(*(queries.metrics(expression) for _, expression in queries.every()))
    assert used >= RECORDED


def test_what_the_autoscaler_asks_for_the_adapter_serves_from_our_rules() -> None:
    hpa = named(rendered("cpu-scaled"), "HorizontalPodAutoscaler", "emojinet-inference")["spec"]
    asked = {metric["pods"]["metric"]["name"] for metric in hpa["metrics"]}
    (rule,) = ADAPTER["rules"]["custom"]
    (series,) = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    found = {name for name in RECORDED if re.fullmatch(series, name)}
    renamed = {re.sub(rule["name"]["matches"], r"\1", name) for name in found}
    assert rule["name"]["as"] == "$1"
    assert renamed == asked
    assert rule["metricsQuery"].startswith("max by (<<.GroupBy>>)")


def test_targets_are_the_objective_and_the_demand_of_the_design() -> None:
    hpa = named(rendered("cpu-scaled"), "HorizontalPodAutoscaler", "emojinet-inference")["spec"]
    targets = {
        metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"]
        for metric in hpa["metrics"]
    }
    assert targets == {
        "emojinet_queue_wait": f"{OBJECTIVE_SECONDS * 1000:.0f}m",
        "emojinet_demand": f"{TARGET_DEMAND * 1000:.0f}m",
    }
    assert OBJECTIVE_SECONDS in BUCKETS_SECONDS
    edges = {le for _, e in queries.every() for le in re.findall(r'le="([^"]+)"', e)}
    bounds = {of for _, e in queries.of_rules() for of in re.findall(r"clamp_max.* \* ([\d.]+)", e)}
    assert edges == bounds == {str(OBJECTIVE_SECONDS)}


def test_one_decoder_of_a_server_is_the_slow_lane_as_the_rule_says(
    programs: dict[str, Program],
) -> None:
    page = programs["inference"].page()
    slots = re.findall(r'^emojinet_slots\{stage="decode"\} (\S+)', page, re.MULTILINE)
    crawler = programs["crawler"].page()
    assert slots == re.findall(r'^emojinet_slots\{stage="decode"\} (\S+)', crawler, re.MULTILINE)
    from services.shared.cores import cores

    assert float(slots[0]) == cores() + 1


def test_series_that_have_no_labels_of_a_pod_are_none_of_ours() -> None:
    # PodMonitor gives namespace and pod; the rules live by them.
    for where, expression in queries.of_rules():
        if where.startswith("pod:") and not queries.metrics(expression) <= RECORDED:
            assert "(namespace, pod)" in expression, where
