"""Our rules, as promtool sees them: from the PrometheusRule, with series that a test makes up."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "k8s/components/monitoring/rules.yaml"
SCRAPE_SECONDS = 5
STEPS = 12  # in a minute
Labels = Mapping[str, str]
Value = tuple[Labels, float]
Expected = Mapping[str, Sequence[Value]]


def rule_file() -> dict[str, Any]:
    """What Prometheus reads; the operator takes it out of the PrometheusRule just so."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())["spec"]
    return found


def run(folder: Path, *arguments: str) -> None:
    """Runs promtool, which must find no fault."""
    program = shutil.which("promtool")
    assert program, "make test-system installs it"
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def counter(per_second: float, minutes: float = 4, *, after: int = 0) -> str:
    """A counter's samples: from zero on, after so many scrapes in which it was not there."""
    scrapes = round(minutes * STEPS) - after
    there = f"0+{per_second * SCRAPE_SECONDS}x{scrapes}"
    return f"_x{after} {there}" if after else there


def gauge(value: float, minutes: float = 4, *, after: int = 0) -> str:
    there = f"{value}+0x{round(minutes * STEPS) - after}"
    return f"_x{after} {there}" if after else there


@dataclass(kw_only=True)
class Pod:
    """An inference pod with a steady load; figures are per second."""

    name: str = "emojinet-inference-a"
    served: float = 0.0
    waited: Mapping[str, float] = field(default_factory=dict)
    """By stage: the seconds that images waited."""
    refused: float = 0.0
    hopeless: float = 0.0
    """Refused, too: an idle server would have been late."""
    undecodable: float = 0.0
    late: float = 0.0
    """Of the served, those that waited longer than the objective at the device."""
    busy: Mapping[str, float] = field(default_factory=dict)
    capacity: float = 50.0
    first: float = 0.02
    """s(1), as calibrated."""
    decoders: int = 2
    priority: str = "interactive"
    after: int = 0
    minutes: float = 4

    def series(self) -> dict[str, str]:
        """What a scrape of it finds, every series from readiness on."""
        found: dict[str, str] = {}
        for priority in ("interactive", "bulk"):
            share = 1.0 if priority == self.priority else 0.0
            found |= self._waits(priority, share)
            for stage in ("decode", "device"):
                name = self._name("emojinet_busy_seconds_total", stage=stage, priority=priority)
                found[name] = self._counter(share * self.busy.get(stage, 0.0))
            for reason, count in (("overloaded", self.refused), ("deadline", self.hopeless)):
                name = self._name("emojinet_shed_total", reason=reason, priority=priority)
                found[name] = self._counter(share * count)
        gauges = {
            self._name("emojinet_slots", stage="decode"): self.decoders + 1,
            self._name("emojinet_slots", stage="device"): self.decoders,
            self._name("emojinet_capacity_images_per_second"): self.capacity,
            self._name("emojinet_service_time_seconds", batch="1"): self.first,
        }
        return found | {
            name: gauge(value, self.minutes, after=self.after) for name, value in gauges.items()
        }

    def _waits(self, priority: str, share: float) -> dict[str, str]:
        counts = {
            ("decode", "served"): self.served,
            ("decode", "error"): self.undecodable,
            ("decode", "shed"): self.refused + self.hopeless,
            ("device", "served"): self.served,
            ("device", "error"): 0.0,
        }
        found = {}
        for (stage, outcome), count in counts.items():
            labels = {"stage": stage, "outcome": outcome, "priority": priority}
            waited = self.waited.get(stage, 0.0) if outcome == "served" else 0.0
            late = self.late if (stage, outcome) == ("device", "served") else 0.0
            name = "emojinet_queue_wait_seconds"
            found[self._name(f"{name}_sum", **labels)] = self._counter(share * waited)
            found[self._name(f"{name}_count", **labels)] = self._counter(share * count)
            timely = self._counter(share * (count - late))
            found[self._name(f"{name}_bucket", le="0.1", **labels)] = timely
        return found

    def _counter(self, per_second: float) -> str:
        return counter(per_second, self.minutes, after=self.after)

    def _name(self, metric: str, **labels: str) -> str:
        return named(metric, namespace="emojinet", pod=self.name, **labels)


def named(metric: str, **labels: str) -> str:
    """A series, as Prometheus writes it."""
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def check(
    folder: Path,
    series: Mapping[str, str],
    expected: Expected,
    at: str = "3m",
    interval: str = f"{SCRAPE_SECONDS}s",
) -> None:
    """Fails unless, with these series, each expression has exactly these values at that time.

    To three digits: a rate is a quotient of floats.

    Args:
        interval: between two samples of a series, and two evaluations of the rules.
    """
    (folder / "rules.yml").write_text(json.dumps(rule_file()))
    asked = [
        {
            "expr": f"round({expression}, 0.001)",
            "eval_time": at,
            "exp_samples": [{"labels": named("", **of), "value": value} for of, value in values],
        }
        for expression, values in expected.items()
    ]
    case = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": asked,
    }
    test = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": [case]}
    (folder / "test.yml").write_text(json.dumps(test))
    run(folder, "test", "rules", "test.yml")


def check_alerts(
    folder: Path, series: Mapping[str, str], fire: Sequence[str], at: str, interval: str = "30s"
) -> None:
    """Fails unless just these alerts fire, beside the one that always does."""
    rules = [rule for group in rule_file()["groups"] for rule in group["rules"]]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert alerts >= set(fire)
    firing = {*fire, "EmojinetWatchdog"}
    expected: dict[str, list[Value]] = {
        named("ALERTS", alertname=alert, alertstate="firing"): [({}, 1)] if alert in firing else []
        for alert in alerts
    }
    asked = {f"group({alert})": values for alert, values in expected.items()}
    check(folder, series, asked, at, interval)
