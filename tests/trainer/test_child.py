"""A run's process, and its ties to the service."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.trainer import child
from services.trainer.child import Child
from tests.trainer.running import alive

pytestmark = pytest.mark.system

PARENT = """
import sys, time
from services.trainer.child import Child
Child([sys.executable, "-c", sys.argv[1], sys.argv[2]])
time.sleep(float(sys.argv[3]))
"""
# Tells its number, niceness and group, then stays.
TELLS = """
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.with_suffix(".tmp").write_text(f"{os.getpid()} {os.nice(0)} {os.getpgrp()}")
path.with_suffix(".tmp").rename(path)
time.sleep(100)
"""


def told(path: Path) -> list[int]:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


def ended(started: Child) -> int:
    end = time.monotonic() + 20
    while (status := started.ended()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return status


def test_it_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "told"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, TELLS, str(path), "100"])
    pid, nice, group = told(path)
    assert alive(pid)
    assert nice >= os.nice(0) + child.NICE or nice == 19
    assert group == pid != os.getpgrp()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_does_not_begin_when_its_parent_died_before_it_could_say_so(tmp_path: Path) -> None:
    path = tmp_path / "told"
    subprocess.run([sys.executable, "-c", PARENT, TELLS, str(path), "0"], check=True)
    time.sleep(1.5)
    assert not path.exists() or not alive(told(path)[0])


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit(137)", -signal.SIGKILL),
        ("raise SystemExit(255)", 255),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
    ],
)
def test_its_end_is_told_as_a_status_or_as_a_signal(program: str, status: int) -> None:
    assert ended(Child([sys.executable, "-S", "-c", program])) == status


def test_ending_it_twice_or_when_it_has_ended_does_no_harm() -> None:
    started = Child([sys.executable, "-S", "-c", "pass"])
    ended(started)
    started.end()
    started.end()
    assert started.ended() == 0


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "told"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TELLS!r}, {str(path)!r}])"
    )
    started = Child([sys.executable, "-c", program])
    pid, _, _ = told(path)
    started.end()
    end = time.monotonic() + 5
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.01)
