"""A real Prometheus with our rules, whose clocks may run faster."""

import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clients.demo import free_port
from tests.k8s.promtool import SCRAPE_SECONDS, rule_file

SIGNAL = "emojinet-signal"  # the group
WINDOW_SECONDS = 60  # of the rules of the signal
Series = dict[str, list[tuple[float, float]]]
"""Of each pod (second since 1970, value)."""


class Prometheus:
    """Asks one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def now(self, query: str) -> dict[str, float]:
        """Each pod's value."""
        found = self._ask("query", query=query)
        return {each["metric"]["pod"]: float(each["value"][1]) for each in found}

    def wait(self, query: str, pods: int, patience_seconds: float = 30.0) -> None:
        """Until so many pods have a value."""
        end = time.monotonic() + patience_seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if len(self.now(query)) == pods:
                    return
            time.sleep(0.1)
        raise SystemExit(f"Prometheus does not see {pods} pods: {query}")

    def past(self, query: str, start: float, end: float, step: float) -> Series:
        """Each pod's values from one second since 1970 to another."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        found = self._ask("query_range", query=query, **times)
        return {
            each["metric"].get("pod", ""): [(at, float(value)) for at, value in each["values"]]
            for each in found
        }

    def _ask(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


def hurried(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    """The rules of the signal, with their window and interval divided."""
    window = f"[{round(1000 * WINDOW_SECONDS / factor)}ms]"
    (signal,) = (group for group in rules["groups"] if group["name"] == SIGNAL)
    quick: dict[str, Any] = json.loads(json.dumps(signal).replace("[1m]", window))
    seconds = float(quick["interval"].removesuffix("s"))
    return {"groups": [quick | {"interval": f"{round(1000 * seconds / factor)}ms"}]}


@contextlib.contextmanager
def observed(folder: Path, targets: Path, factor: float) -> Iterator[Prometheus]:
    """A Prometheus that scrapes what the file of targets names."""
    port, scrape = free_port(), f"{round(1000 * SCRAPE_SECONDS / factor)}ms"
    (folder / "rules.yml").write_text(json.dumps(hurried(rule_file(), factor)))
    job = {
        "job_name": "emojinet",
        "scrape_interval": scrape,
        "scrape_timeout": scrape,
        "file_sd_configs": [{"files": [str(targets.absolute())], "refresh_interval": "1s"}],
    }
    config = {"rule_files": ["rules.yml"], "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    flags = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "series",
        "web.listen-address": f"127.0.0.1:{port}",
        "query.lookback-delta": f"{round(5000 * SCRAPE_SECONDS / factor)}ms",
    }
    command = ["prometheus", *(f"--{name}={value}" for name, value in flags.items())]
    with (folder / "prometheus.log").open("wb") as said:
        process = subprocess.Popen(command, stderr=said)
    found = Prometheus(port)
    try:
        found.wait("up == 1", len(json.loads(targets.read_text())))
        yield found
    finally:
        process.terminate()
        process.wait(20)
