"""All three services as programs, for tests of what they tell Prometheus."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.demo import free_port, is_ready
from services.shared.photographs import installed
from tests.k8s.rendered import SERVICES


@dataclass(frozen=True)
class Program:
    """A service that runs."""

    port: int
    metrics_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def page(self) -> str:
        """Its metrics."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            return str(page.read().decode())


@pytest.fixture(scope="session")
def programs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """Inference on a device of 50 images a second, a crawler and a trainer."""
    data = tmp_path_factory.mktemp("data")
    started = {name: Program(free_port(), free_port()) for name in SERVICES}
    more = {"inference": [f"--model={tiny}", "--backend=timed:20ms"]}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", f"services.{name}", f"--port={program.port}"),
                *(f"--metrics-port={program.metrics_port}", f"--data={data}", *more.get(name, ())),
            ],
            stderr=subprocess.DEVNULL,
        )
        for name, program in started.items()
    ]
    try:
        for program, process in zip(started.values(), processes, strict=True):
            assert is_ready(program.address, process)
        yield started
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(40)


@pytest.fixture(scope="session")
def crawled(programs: dict[str, Program], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The crawler has read a few posts, and stored their pictures."""
    folder = tmp_path_factory.mktemp("posts") / "🐱"
    folder.mkdir()
    for path in installed()[:3]:
        shutil.copy(path, folder)
    command = ["crawl", "start", "import", str(folder.parent), "--watch"]
    subprocess.run(
        [sys.executable, "-m", "clients.cli", *command],
        env=os.environ | {"EMOJINET_CRAWLER": programs["crawler"].address},
        check=True,
        capture_output=True,
    )
