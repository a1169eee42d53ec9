"""The HorizontalPodAutoscaler's algorithm (autoscaling/v2), for metrics of type Pods.

Written from its documentation, and held sync by sync to recordings of the real controller
(tests/k8s/test_hpa.py): https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/

    autoscaler = Autoscaler(ours()["spec"])
    replicas = autoscaler.sync(time.monotonic(), replicas, pods, {"emojinet_demand": {"a": 800}})
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

OURS = Path(__file__).parents[2] / "k8s/components/prometheus-adapter/hpa.yaml"
IGNORED = ("deleting", "failed", "pending")
UP: dict[str, Any] = {
    "stabilizationWindowSeconds": 0,
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
DOWN: dict[str, Any] = {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


def ours() -> dict[str, Any]:
    """The one that we ship."""
    found: dict[str, Any] = yaml.safe_load(OURS.read_text())
    return found


class NoMetric(Exception):
    """It cannot be told how many replicas a metric asks for."""


class Event(NamedTuple):
    """So many replicas were asked for, added or deleted."""

    at: float
    replicas: int


class Autoscaler:
    """Decides how many replicas there should be, and remembers what it has decided.

    Args:
        spec: of the HorizontalPodAutoscaler.
        tolerance: the controller's, where the spec has none.
        window: seconds for which it waits to scale down, where the spec does not say.
    """

    def __init__(self, spec: dict[str, Any], tolerance: float = 0.1, window: float = 300) -> None:
        behavior = spec.get("behavior") or {}
        self._up = UP | behavior.get("scaleUp", {})
        self._down = DOWN | {"stabilizationWindowSeconds": window} | behavior.get("scaleDown", {})
        self._behaves = bool(behavior)
        self._least, self._most = spec.get("minReplicas", 1), spec["maxReplicas"]
        self._targets = {
            metric["pods"]["metric"]["name"]: round(
                1000 * quantity(metric["pods"]["target"]["averageValue"])
            )
            for metric in spec["metrics"]
        }
        self._within = (
            1.0 - quantity(self._down.get("tolerance", tolerance)),
            1.0 + quantity(self._up.get("tolerance", tolerance)),
        )
        self._asked: list[Event] = []
        self._added: list[Event] = []
        self._deleted: list[Event] = []

    def sync(
        self,
        at: float,
        replicas: int,
        pods: Mapping[str, str],
        served: Mapping[str, Mapping[str, int] | None],
    ) -> int:
        """How many replicas there should be.

        Args:
            at: seconds, from any epoch.
            replicas: how many there should be until now.
            pods: the state of each: ready, running, pending, deleting or failed.
            served: of each metric the pods' values, in thousandths; none where there is no metric.
        """
        self._asked = self._asked or [Event(at, replicas)]
        if replicas == 0:
            return 0  # switched off
        wanted = min(max(replicas, self._least), self._most)
        if wanted == replicas:
            try:
                wanted = self._limited(at, replicas, self._wanted(replicas, pods, served))
            except NoMetric:
                return replicas
        if wanted > replicas:
            _remember(self._added, Event(at, wanted - replicas), self._up)
        elif wanted < replicas:
            _remember(self._deleted, Event(at, replicas - wanted), self._down)
        return wanted

    def _wanted(
        self,
        replicas: int,
        pods: Mapping[str, str],
        served: Mapping[str, Mapping[str, int] | None],
    ) -> int:
        """The largest proposal; where one is missing, none that would scale down."""
        proposals = []
        for name, target in self._targets.items():
            try:
                proposals.append(self._proposal(target, replicas, pods, served.get(name) or {}))
            except NoMetric:
                continue
        missing = len(proposals) < len(self._targets)
        if not proposals or (missing and max(proposals) < replicas):
            raise NoMetric
        return max(proposals)

    def _proposal(
        self, target: int, replicas: int, pods: Mapping[str, str], served: Mapping[str, int]
    ) -> int:
        values = {n: value for n, value in served.items() if pods.get(n) not in IGNORED}
        if not pods or not values:
            raise NoMetric
        ratio = _mean(values) / target
        counted = sum(state not in IGNORED for state in pods.values())
        missing = [n for n, state in pods.items() if state not in IGNORED and n not in values]
        pending = [n for n, state in pods.items() if state == "pending" and ratio > 1]
        if missing or pending:
            if ratio != 1:
                values |= dict.fromkeys(missing, target if ratio < 1 else 0)
            values |= dict.fromkeys(pending, 0)
            first, ratio, counted = ratio, _mean(values) / target, len(values)
            if first < 1 < ratio or ratio < 1 < first:
                return replicas
        if self._within[0] <= ratio <= self._within[1]:
            return replicas
        wanted = math.ceil(ratio * counted)
        turns = (missing or pending) and (wanted > replicas if ratio < 1 else wanted < replicas)
        return replicas if turns else wanted

    def _limited(self, at: float, replicas: int, wanted: int) -> int:
        """What is wanted, once it has lasted, and as fast as the policies allow."""
        low, high = (
            [wanted, *(e.replicas for e in self._asked if e.at > at - window)]
            for window in (rules["stabilizationWindowSeconds"] for rules in (self._up, self._down))
        )
        self._asked.append(Event(at, wanted))
        lasting = min(max(replicas, min(low)), max(high))
        if not self._behaves:  # older than behavior: only what a sync may add is limited
            lasting = min(wanted if wanted > replicas else max(high), max(2 * replicas, 4))
        elif lasting > replicas:
            lasting = min(lasting, max(replicas, self._limit(at, replicas, self._up, 1)))
        elif lasting < replicas:
            lasting = max(lasting, min(replicas, self._limit(at, replicas, self._down, -1)))
        return min(max(lasting, self._least), self._most)

    def _limit(self, at: float, replicas: int, rules: dict[str, Any], sign: int) -> int:
        """As far as the policies allow, up or down."""
        select = rules.get("selectPolicy", "Max")
        if select == "Disabled":
            return replicas
        limits = []
        for policy in rules["policies"]:
            began = at - policy["periodSeconds"]
            added, deleted = (
                sum(event.replicas for event in events if event.at > began)
                for events in (self._added, self._deleted)
            )
            start = replicas - added + deleted
            if policy["type"] == "Pods":
                limits.append(start + sign * policy["value"])
            else:
                share = start * (1 + sign * policy["value"] / 100)
                limits.append(math.ceil(share) if sign > 0 else int(share))
        return max(limits) if (select == "Max") == (sign > 0) else min(limits)


def quantity(text: str | float) -> float:
    """A number as Kubernetes writes it.

    >>> quantity("650m"), quantity("2")
    (0.65, 2.0)
    """
    text = str(text)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _mean(values: Mapping[str, int]) -> int:
    return sum(values.values()) // len(values)


def _remember(events: list[Event], event: Event, rules: dict[str, Any]) -> None:
    """In place of the last that no policy of its direction looks at any more, as the controller."""
    longest = max(policy["periodSeconds"] for policy in rules["policies"])
    old = [n for n, earlier in enumerate(events) if earlier.at < event.at - longest]
    if old:
        events[old[-1]] = event
    else:
        events.append(event)
