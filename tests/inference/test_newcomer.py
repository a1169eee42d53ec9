"""A worker that starts beside others gives way to them, and is as they are when it works."""

import dataclasses
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.inference import gate
from services.inference.gate import Ask, Gate
from services.inference.newcomer import nicely
from services.shared import model
from services.shared.errors import BadModel
from services.shared.queue import Priority, QueueMetrics


def policies(pid: int) -> dict[int, int]:
    """Of each thread of a process how it is scheduled."""
    found = {}
    for thread in map(int, os.listdir(f"/proc/{pid}/task")):
        with suppress(ProcessLookupError):  # one that has just ended
            found[thread] = os.sched_getscheduler(thread)
    return found


def test_what_is_done_nicely_gives_way_and_leaves_the_caller_as_it_was() -> None:
    main = threading.get_native_id()

    def look() -> tuple[int, int]:
        return os.sched_getscheduler(0), threading.get_native_id()

    policy, thread = nicely(look)
    assert (policy, thread == main) == (os.SCHED_IDLE, False)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_goes_wrong_nicely_goes_wrong() -> None:
    with pytest.raises(ZeroDivisionError):
        nicely(lambda: 1 // 0)


def test_who_has_no_privileges_is_as_before_afterwards() -> None:
    drop = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 23)"  # CAP_SYS_NICE, for good
    tell = (
        "import os; from services.inference.newcomer import nicely;"
        "print(nicely(lambda: os.sched_getscheduler(0)), os.sched_getscheduler(0))"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"{drop}; os.execv(sys.executable, sys.argv[1:])"),
            *(sys.executable, "-c", tell),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(os.SCHED_IDLE), str(os.SCHED_OTHER)]


async def test_a_gate_started_gently_has_workers_like_any_other(tiny: Path) -> None:
    started = await Gate(model.load(tiny), "timed:5ms", "exact").start(gently=True)
    started.open(QueueMetrics(CollectorRegistry()))
    try:
        for worker in started._workers:
            assert policies(worker.pid)[worker.pid] == os.SCHED_OTHER
            assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 0
        edge = started.model.preprocessing.size_px
        view = bytes(edge * edge * 3)
        seen = await started.look(view, Ask(), Priority.INTERACTIVE, float("inf"))
        assert seen.probabilities_K[0] == pytest.approx(0.5, abs=1e-4)
    finally:
        await started.close()


async def test_a_gate_is_gentle_for_a_while_only(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "GENTLE_SECONDS", 0.05)  # none starts so fast
    started = await Gate(model.load(tiny), "timed:5ms", "exact").start(gently=True)
    try:
        command = Path(f"/proc/{started._workers[0].pid}/cmdline").read_bytes().decode()
        assert "services.inference.device" in command
    finally:
        for worker in started._workers:
            await worker.kill()


async def test_a_model_that_is_refused_gently_is_refused_with_the_same_words(tiny: Path) -> None:
    gone = dataclasses.replace(model.load(tiny), version="0" * 12)
    with pytest.raises(BadModel, match="replaced"):
        await Gate(gone, "timed:5ms", "exact").start(gently=True)
