"""The HorizontalPodAutoscaler's algorithm (autoscaling/v2), for metrics of type Pods.

Written from its documentation (kubernetes.io/docs/concepts/workloads/autoscaling), and held sync by
sync to recordings of the real controller in tests/k8s/hpa-traces.

    replicas = Autoscaler(ours()["spec"]).sync(15.0, 1, {"a": "ready"}, {"demand": {"a": 800}})
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OURS = Path(__file__).parents[2] / "k8s/components/prometheus-adapter/hpa.yaml"
OUT = ("pending", "deleting", "failed")  # states of pods whose values are not looked at
DOUBLE = {"type": "Percent", "value": 100, "periodSeconds": 15}
UP = {"stabilizationWindowSeconds": 0, "policies": [DOUBLE | {"type": "Pods", "value": 4}, DOUBLE]}
DOWN = {"policies": [DOUBLE]}
Served = Mapping[str, Mapping[str, int] | None]
"""Of each metric the pods' values in thousandths; None where there is no such metric."""


def ours() -> dict[str, Any]:
    """The one that we ship."""
    found: dict[str, Any] = yaml.safe_load(OURS.read_text())
    return found


class Autoscaler:
    """Decides how many replicas there should be, and remembers what it has decided.

    Args:
        spec: of the HorizontalPodAutoscaler.
        tolerance: the controller's, where the spec has none.
        window: seconds for which it waits to scale down, where the spec does not say.
    """

    def __init__(self, spec: dict[str, Any], tolerance: float = 0.1, window: float = 300) -> None:
        behavior = self._behavior = spec.get("behavior") or {}
        self._up = UP | behavior.get("scaleUp", {})
        self._down = DOWN | {"stabilizationWindowSeconds": window} | behavior.get("scaleDown", {})
        self._least, self._most = spec.get("minReplicas", 1), spec["maxReplicas"]
        self._targets = {
            pods["metric"]["name"]: round(1000 * quantity(pods["target"]["averageValue"]))
            for pods in (metric["pods"] for metric in spec["metrics"])
        }
        self._low = 1.0 - quantity(self._down.get("tolerance", tolerance))
        self._high = 1.0 + quantity(self._up.get("tolerance", tolerance))
        self.wishes: list[tuple[float, int]] = []  # when, and how many replicas
        self._changes: list[tuple[float, int]] = []  # when, and by how many

    def sync(self, at: float, replicas: int, pods: Mapping[str, str], served: Served) -> int:
        """How many replicas there should be at this second, if until now there should be so many.

        Each pod is ready, running, pending, deleting or failed.
        """
        self.wishes = self.wishes or [(at, replicas)]
        if replicas == 0:
            return 0  # switched off
        decided = min(max(replicas, self._least), self._most)
        if decided == replicas:
            wished = self._wished(replicas, pods, served)
            decided = replicas if wished is None else self._settled(at, replicas, wished)
        if decided != replicas:
            self._remember(at, decided - replicas)
        return decided

    def _wished(self, replicas: int, pods: Mapping[str, str], served: Served) -> int | None:
        """The largest proposal; with a metric missing, none that would scale down."""
        proposals = [
            self._proposal(target, replicas, pods, served.get(name) or {})
            for name, target in self._targets.items()
        ]
        known = [proposal for proposal in proposals if proposal is not None]
        blind = not known or (len(known) < len(proposals) and max(known) < replicas)
        return None if blind else max(known)

    def _proposal(
        self, target: int, replicas: int, pods: Mapping[str, str], served: Mapping[str, int]
    ) -> int | None:
        """Replicas in proportion to the mean: who says nothing never moves it any further."""
        values = {name: value for name, value in served.items() if pods.get(name) not in OUT}
        if not pods or not values:
            return None
        ratio = first = _mean(values) / target
        counted = [name for name, state in pods.items() if state not in OUT]
        silent = [name for name in counted if name not in values]
        pending = [name for name, state in pods.items() if state == "pending" and first > 1]
        if silent or pending:
            if first != 1:
                values |= dict.fromkeys(silent, target if first < 1 else 0)
            values |= dict.fromkeys(pending, 0)
            ratio, counted = _mean(values) / target, list(values)
        if self._low <= ratio <= self._high or first < 1 < ratio or ratio < 1 < first:
            return replicas
        proposal = math.ceil(ratio * len(counted))
        if silent or pending:
            return min(proposal, replicas) if ratio < 1 else max(proposal, replicas)
        return proposal

    def _settled(self, at: float, replicas: int, wished: int) -> int:
        """What has been wished for long enough, as fast as the policies allow."""
        lowest, highest = (
            [wished, *(wish for then, wish in self.wishes if then > at - window)]
            for window in (side["stabilizationWindowSeconds"] for side in (self._up, self._down))
        )
        self.wishes.append((at, wished))
        settled = min(max(replicas, min(lowest)), max(highest))
        if not self._behavior:  # as before there was one: a sync doubles at most
            settled = min(max(highest), max(2 * replicas, 4))
        elif settled > replicas:
            settled = min(settled, max(replicas, self._limit(at, replicas, self._up, 1)))
        elif settled < replicas:
            settled = max(settled, min(replicas, self._limit(at, replicas, self._down, -1)))
        return min(max(settled, self._least), self._most)

    def _limit(self, at: float, replicas: int, side: dict[str, Any], sign: int) -> int:
        """How far its policies let it go up or down, from where their periods began."""
        if side.get("selectPolicy") == "Disabled":
            return replicas
        limits = []
        for kind, value, period in map(_policy, side["policies"]):
            began = replicas - sum(n for then, n in self._changes if then > at - period)
            share = began * (1 + sign * value / 100)
            whole = math.ceil(share) if sign > 0 else int(share)
            limits.append(began + sign * value if kind == "Pods" else whole)
        return max(limits) if (side.get("selectPolicy") == "Min") == (sign < 0) else min(limits)

    def _remember(self, at: float, change: int) -> None:
        """As the controller: in place of one too old for any policy of its own direction."""
        side = self._up if change > 0 else self._down
        since = at - max(period for *_, period in map(_policy, side["policies"]))
        old = [i for i, (then, n) in enumerate(self._changes) if then < since and n * change > 0]
        where = old[-1] if old else len(self._changes)
        self._changes[where : where + 1] = [(at, change)]


def quantity(text: str | float) -> float:
    """A number as Kubernetes writes it: 650m is 0.65."""
    return float(str(text).removesuffix("m")) / (1000 if str(text).endswith("m") else 1)


def _policy(policy: dict[str, Any]) -> tuple[str, int, int]:
    return policy["type"], policy["value"], policy["periodSeconds"]


def _mean(values: Mapping[str, int]) -> int:
    return sum(values.values()) // len(values)
