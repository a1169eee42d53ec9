"""The cancelled-caller race: what a lock around a thread lets through, and the gate does not."""

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from services.inference.gate import Ask, Gate, usual
from services.shared import model
from services.shared.cores import cores
from services.shared.errors import BadModel, DeviceDied
from services.shared.queue import Priority, QueueMetrics

DEADLINES = [0.02] * 4 + [0.02, 0.04, 0.06, 0.08]
WORK_SECONDS = 0.08


async def test_a_lock_around_a_thread_lets_a_second_job_onto_the_device() -> None:
    lock, done, on_it = asyncio.Lock(), threading.Event(), list[int]()

    def work() -> None:
        on_it.append(threading.get_ident())
        done.wait()

    async def call() -> None:
        async with lock:
            await asyncio.to_thread(work)

    try:
        async with asyncio.timeout(20):
            for jobs in (1, 2):
                calling = asyncio.create_task(call())
                while len(on_it) < jobs:
                    await asyncio.sleep(0.01)
                calling.cancel()  # it leaves the lock, and not the device
    finally:
        done.set()
    assert len(set(on_it)) == 2


class Opened:
    """A gate with one slot on a device that only waits, and what it counts."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.registry = CollectorRegistry()
        self.gate = Gate(model.load(folder), backend, "exact")
        self.view = bytes(self.gate.model.preprocessing.size_px**2 * 3)

    async def __aenter__(self) -> "Opened":
        await self.gate.start()
        self.gate.open(QueueMetrics(self.registry))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gate.close()

    async def look(self, within: float = 10.0, *, alone: bool = False) -> None:
        deadline = time.monotonic() + within
        await self.gate.look(self.view, Ask(), Priority.INTERACTIVE, deadline, alone=alone)

    def counted(self, outcome: str) -> float:
        labels = {"stage": "device", "outcome": outcome, "priority": "interactive"}
        return self.registry.get_sample_value("emojinet_queue_wait_seconds_count", labels) or 0.0

    def busy_seconds(self) -> float:
        labels = {"stage": "device", "priority": "interactive"}
        return self.registry.get_sample_value("emojinet_busy_seconds_total", labels) or 0.0


async def test_the_gate_never_does_whatever_callers_do(tiny: Path) -> None:
    async with Opened(tiny, f"timed:{WORK_SECONDS * 1000:.0f}ms") as opened:
        began = time.monotonic()
        calls = [asyncio.wait_for(opened.look(), deadline) for deadline in DEADLINES]
        await asyncio.gather(*calls, return_exceptions=True)
        await opened.look()  # comes when the last job that was started has ended
        elapsed = time.monotonic() - began
        ran = opened.counted("served")
        # One device, one job at a time: as long as it was at work, so long did it take.
        assert ran * WORK_SECONDS <= opened.busy_seconds() <= elapsed
        assert ran + opened.counted("cancelled") == len(DEADLINES) + 1
        assert ran < len(DEADLINES)  # what was cancelled in line never ran


async def test_a_thousand_cancelled_calls_leave_the_line_empty_and_none_of_them_runs(
    tiny: Path,
) -> None:
    # Longer than it takes to make a thousand calls, on a busy machine.
    async with Opened(tiny, "timed:1000ms") as opened:
        running = asyncio.create_task(opened.look())
        await asyncio.sleep(0.02)
        calls = [asyncio.create_task(opened.look()) for _ in range(1000)]
        await asyncio.sleep(0.02)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert len(opened.gate.queue) == 0
        await running
        await opened.look()
        assert opened.counted("served") == 2
        assert opened.counted("cancelled") == 1000


async def test_all_cores_compute_an_image_that_is_alone_and_it_counts_as_on_one(
    starter: Path,
) -> None:
    async with Opened(starter, "openvino") as opened:
        before, expected = dict(opened.gate.curve.seconds), opened.gate.image_seconds
        await opened.look(alone=True)
        # It tells nothing of batches, where it was wider than they are.
        assert (opened.gate.curve.seconds == before) is (cores() > 1)
        assert opened.busy_seconds() >= expected
        for _ in range(3):
            await asyncio.gather(opened.look(), opened.look())
        assert opened.gate.curve.seconds != before


async def test_the_slot_of_a_device_that_died_is_filled_again_and_the_image_answered(
    tiny: Path,
) -> None:
    async with Opened(tiny, "timed:100ms") as opened:
        (worker,) = opened.gate._workers
        call = asyncio.create_task(opened.look())
        await asyncio.sleep(0.02)
        worker._process.kill()
        await call
        assert opened.counted("served") == 1


async def test_a_model_that_dies_on_the_device_twice_is_unavailable_not_internal(
    tiny: Path,
) -> None:
    async with Opened(tiny, "timed:2000ms") as opened:
        call = asyncio.create_task(opened.look(within=60))
        for _ in range(2):
            while not opened.gate.queue.busy:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            kill_the_device()
            while opened.gate.queue.busy:
                await asyncio.sleep(0.01)
        with pytest.raises(DeviceDied):
            await call


def kill_the_device() -> None:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # or a zombie: one that died a moment ago
            if "services.inference.device" in child.cmdline():
                child.kill()


async def test_a_device_takes_no_batch_where_that_gains_nothing(tiny: Path) -> None:
    async with Opened(tiny, "timed:20ms") as opened:
        assert opened.gate.capacity == pytest.approx(50, rel=0.2)
        await asyncio.gather(*(opened.look() for _ in range(4)))
        assert opened.busy_seconds() >= 4 * 0.02


async def test_a_device_takes_a_batch_where_images_get_cheaper_in_it(tiny: Path) -> None:
    async with Opened(tiny, "timed:200ms+10ms") as opened:
        await asyncio.gather(*(opened.look() for _ in range(17)))
        assert opened.busy_seconds() < 17 * 0.2 / 2


async def test_slots_work_side_by_side(tiny: Path) -> None:
    async with Opened(tiny, "timed:300msx4") as opened:
        began = time.monotonic()
        await asyncio.gather(*(opened.look() for _ in range(4)))
        assert time.monotonic() - began < 0.9


async def test_a_model_that_cannot_run_here_is_refused_before_it_serves(tiny: Path) -> None:
    with pytest.raises(BadModel, match=r"openvino\.xml"):
        await Gate(model.load(tiny), "openvino", "exact").start()


def test_a_gpu_has_one_worker_and_a_cpu_one_for_each_core(tmp_path: Path) -> None:
    for name in ("nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert usual("torch", tmp_path).workers == cores()
    (tmp_path / "nvidia0").touch()
    assert usual("torch", tmp_path).workers == 1
    assert usual("openvino", tmp_path).workers == cores()
