"""Every expression that we ship: in dashboards, rules, and what autoscalers ask."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.k8s.promtool import rule_file
from tests.k8s.rendered import K8S

DASHBOARDS = sorted((K8S / "components/monitoring/dashboards").glob("*.json"))
# Metrics of others, and who has them.
FOREIGN = {
    "ALERTS": "Prometheus",
    "kube_horizontalpodautoscaler_spec_max_replicas": "kube-state-metrics",
    "kube_horizontalpodautoscaler_spec_min_replicas": "kube-state-metrics",
    "kube_horizontalpodautoscaler_status_condition": "kube-state-metrics",
    "kube_horizontalpodautoscaler_status_current_replicas": "kube-state-metrics",
    "kube_horizontalpodautoscaler_status_desired_replicas": "kube-state-metrics",
    "kube_pod_status_ready": "kube-state-metrics",
    "process_cpu_seconds_total": "every program with a Prometheus client",
    "process_open_fds": "every program with a Prometheus client",
    "process_resident_memory_bytes": "every program with a Prometheus client",
}
TO_COME = {"emojinet_service_time_seconds"}  # of ours, being added to the servers
METRIC = re.compile(
    r"(?<![a-z0-9_:\"=~$])((?:(?:pod|namespace):)?(?:emojinet|kube|process)_[a-z0-9_:]+|ALERTS)"
)


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def of_dashboards() -> Iterator[tuple[str, str]]:
    """What is asked, and the name of the panel that asks."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
                assert found, variable["definition"]
                yield f"{path.stem}: ${variable['name']}", found[1]


def of_rules() -> Iterator[tuple[str, str]]:
    for group in rule_file()["groups"]:
        for rule in group["rules"]:
            yield rule.get("record") or rule["alert"], rule["expr"]


def of_keda() -> Iterator[tuple[str, str]]:
    scaled = yaml.safe_load((K8S / "components/keda/scaledobject.yaml").read_text())
    for trigger in scaled["spec"]["triggers"]:
        yield trigger["name"], trigger["metadata"]["query"]


def every() -> list[tuple[str, str]]:
    return [*of_dashboards(), *of_rules(), *of_keda()]


def metrics(expression: str) -> set[str]:
    """The names of the metrics that an expression looks at.

    >>> sorted(metrics('rate(emojinet_a_total{pod=~"emojinet-.+"}[1m]) / pod:emojinet_b:ratio'))
    ['emojinet_a_total', 'pod:emojinet_b:ratio']
    """
    return set(METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))
