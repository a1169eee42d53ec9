"""A real Prometheus and its tools against a real server."""

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.client import Client
from clients.demo import free_port, is_ready
from services.shared.photographs import installed

pytestmark = pytest.mark.system
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: inference
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[tuple[str, int]]:
    """Address and metrics port of a server on a device of 50 images a second."""
    port, metrics = free_port(), free_port()
    flags = [f"--port={port}", f"--metrics-port={metrics}", f"--model={tiny}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.inference", "--backend=timed:20ms", *flags],
        stderr=subprocess.DEVNULL,
    )
    assert is_ready(f"127.0.0.1:{port}", process)
    yield f"127.0.0.1:{port}", metrics
    process.terminate()
    process.wait(40)


def test_promtool_finds_no_fault_with_the_metrics(server: tuple[str, int]) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server[1]}/metrics", timeout=5) as page:
        content = page.read()
    promtool = shutil.which("promtool")
    assert promtool, "make test-system installs it"
    checked = subprocess.run([promtool, "check", "metrics"], input=content, capture_output=True)
    ours = [line for line in checked.stderr.decode().splitlines() if "emojinet_" in line]
    assert ours == []


def test_prometheus_sees_how_long_images_waited(server: tuple[str, int], tmp_path: Path) -> None:
    address, metrics = server
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=metrics))
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        content = installed()[0].read_bytes()
        with Client(address) as client:
            for _ in range(10):
                client.suggest([content], timeout=5)
        query = 'emojinet_queue_wait_seconds_count{stage="device",outcome="served"} >= 10'
        assert eventually(port, query) == 10
        assert eventually(port, "emojinet_capacity_images_per_second") == 50
    finally:
        prometheus.terminate()
        prometheus.wait(20)


def eventually(port: int, query: str, seconds: float = 30) -> float:
    """The first value of the query, once there is one."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            continue
        if found:
            return float(found[0]["value"][1])
    raise AssertionError(f"{query} never had a value")
