"""The whole product on one machine: really started, killed, started again, and ended."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clients import supervised
from clients.supervised import SERVICES, WEB
from services.shared import registry
from tests.clients.commandline import COMMAND, clean
from tests.clients.test_up import free_offset

pytestmark = pytest.mark.system

NAMES = {service.name for service in SERVICES}
# No path that such a configuration file could hold, nor one that a socket could have.
AWKWARD = '100 % [odd] # it\'s ; "here"' + 90 * "x"


class Product:
    """A folder, from which people start the product."""

    def __init__(self, folder: Path, offset: int) -> None:
        self.folder, self.offset = folder, offset
        self.data, self.up = folder / "data", folder / "data" / "up"
        self.environment = clean(
            EMOJINET_BACKEND="timed:1ms",
            EMOJINET_PORT="1",  # meant for none of those that are started, as is the next
            EMOJINET_HOST="192.0.2.1",
        )

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def status(self) -> dict[str, dict[str, Any]]:
        _, lines, _ = self.run("status", "--json")
        return {row["service"]: row for row in map(json.loads, lines.splitlines())}

    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.up / supervised.PID).read_text()))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Product]:
    """Started by four at the same instant, where a killed one has left rubbish behind."""
    product = Product(tmp_path_factory.mktemp("up") / AWKWARD, free_offset())
    product.up.mkdir(parents=True)
    for name in (supervised.CONFIG, supervised.SOCKET, supervised.PID):
        (product.up / name).write_bytes(b"\x00rubbish\xff[")
    root = product.data / "registry"
    shutil.copytree(tiny, product.data / "staged")
    registry.activate(root, registry.publish(root, product.data / "staged"))
    all_at_once = [product.begin("up", f"--port-offset={product.offset}") for _ in range(4)]
    try:
        for process in all_at_once:
            out, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
            assert f"http://{WEB.address(product.offset)}\n" in out
        yield product
    finally:
        product.run("down")


@pytest.fixture
def product(started: Product) -> Product:
    """With everything ready; at once if it is already."""
    status, _, err = started.run("up", f"--port-offset={started.offset}")
    assert status == 0, err
    return started


def until(what: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_four_at_the_same_instant_start_one_and_another_changes_nothing(product: Product) -> None:
    before = [process.pid for process in product.supervisor().children()]

    status, out, err = product.run("up")
    elsewhere, _, why = product.run("up", f"--port-offset={product.offset + 1}")

    assert (status, err) == (0, "")
    assert "runs already" in out
    assert elsewhere == 1
    assert f"--port-offset {product.offset}" in why
    assert len(before) == len(SERVICES)
    assert [process.pid for process in product.supervisor().children()] == before
    mine = [p for p in psutil.process_iter() if _works_in(p, product.up)]
    assert [process.pid for process in mine] == [product.supervisor().pid]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False


def test_status_tells_people_and_programs_that_all_are_ready(product: Product, tiny: Path) -> None:
    status, table, err = product.run("status")
    rows = product.status()

    assert (status, err) == (0, "")
    assert "serves tiny@" in table
    assert "data/logs/{crawler,trainer,inference,web}.log" in table
    assert rows.keys() == NAMES
    for service in SERVICES:
        row = rows[service.name]
        assert (row["state"], row["ready"]) == ("ready", True)
        assert row["address"] == service.address(product.offset)
        assert psutil.Process(row["pid"]).ppid() == product.supervisor().pid
        assert (product.folder / row["log"]).exists()
    assert rows["inference"]["served"] == rows["trainer"]["live"]
    with urllib.request.urlopen(f"http://{rows['web']['address']}/", timeout=5) as page:
        assert page.status == 200


def test_a_service_that_is_killed_is_back_within_seconds(product: Product) -> None:
    before = product.status()["crawler"]["pid"]
    os.kill(before, signal.SIGKILL)

    began = time.monotonic()
    until(lambda: (row := product.status()["crawler"])["ready"] and row["pid"] != before)

    assert time.monotonic() - began < 30
    assert all(row["ready"] for row in product.status().values())


def test_a_supervisor_that_hangs_is_told_and_keeps_nobody_waiting(product: Product) -> None:
    product.supervisor().suspend()
    try:
        began = time.monotonic()
        status, table, err = product.run("status")
        seconds = time.monotonic() - began
    finally:
        product.supervisor().resume()

    assert status == 1
    assert err.startswith("emojinet: The supervisor in data/up does not answer: timed out.")
    assert "inference" in table
    assert seconds < 15


def test_a_service_that_was_stopped_is_started_again(product: Product) -> None:
    running = supervised.running(product.up)
    assert running is not None
    with running as supervisor:
        supervisor._rpc.stopProcess("web")
    assert product.status()["web"]["state"] == "ended"
    assert product.run("status")[0] == 1

    status, out, err = product.run("up")

    assert status == 0, err
    assert "runs already" not in out
    assert "web " in err
    assert "crawler" not in err


def test_nothing_outlives_a_supervisor_that_is_killed(product: Product) -> None:
    supervisor = product.supervisor()
    alive = supervisor.children(recursive=True)
    assert len(alive) > len(SERVICES)
    supervisor.kill()

    _, left = psutil.wait_procs(alive, 10)

    assert left == []
    status, out, err = product.run("up", f"--port-offset={product.offset}")
    assert status == 0, err
    assert "runs already" not in out


def test_a_service_that_cannot_start_is_told_and_the_others_go_on(product: Product) -> None:
    assert product.run("down")[0] == 0
    live = product.data / "registry" / registry.LIVE
    before = live.read_text()
    live.write_text("{")

    status, out, err = product.run("up", f"--port-offset={product.offset}")
    rows = product.status()
    live.write_text(before)
    again, _, why = product.run("up")

    assert (status, out) == (1, "")
    told = f"{live} must hold a model's name and version."
    assert f"emojinet: inference does not start: {told}\n" in err
    assert "Running all the same: crawler, trainer, web." in err
    assert rows["inference"]["state"] in ("failing", "starting")
    assert {name for name, row in rows.items() if row["ready"]} == NAMES - {"inference"}
    assert again == 0, why


def test_the_end_is_the_end_of_everything(product: Product) -> None:
    processes = [product.supervisor(), *product.supervisor().children(recursive=True)]

    status, out, err = product.run("down")

    assert (status, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines() if line.endswith(" ended")} == NAMES
    assert psutil.wait_procs(processes, 5)[1] == []
    assert not (product.up / supervised.SOCKET).exists()
    assert product.run("down")[:2] == (0, "Nothing runs in data.\n")
    assert product.run("status")[0] == 1
