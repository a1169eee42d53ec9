"""The one way to the accelerator, and how long each image waited for it.

The article gives the GPU to an actor and times each message in its mailbox. Here the actor is a
process, one for each slot, and the mailbox a `Queue`: a slot is free again only when its process
has replied or died. So a caller that is cancelled never lets a second job onto the device, which
a lock around `asyncio.to_thread` would: `tests/inference/test_gate.py` shows both.
"""

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.inference.backends import timed
from services.inference.curve import Curve
from services.inference.device import ASK, SIZE, TOOK
from services.shared.cores import cores
from services.shared.errors import DeviceDied
from services.shared.model import Model
from services.shared.queue import Priority, Queue, QueueMetrics, Served, Work
from services.shared.worker import ENVIRONMENT, Worker, WorkerDied, start_all

DEVICES = Path("/dev")
GENTLE_SECONDS = 30.0  # ten times what it takes at half load


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller wants to know of one image, beside its probabilities."""

    embedding: bool = False
    explain: int = -1
    """The output to explain; -1 for none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model made of one image."""

    probabilities_K: np.ndarray
    embedding_F: np.ndarray | None
    evidence_hw: np.ndarray | None
    served: Served


class Split(NamedTuple):
    """How the device workers of one model share the cores."""

    workers: int
    threads: int = 1
    """Of each."""
    keeps_memory: bool = True
    """Whether malloc keeps what a forward pass needs for the next: see `worker.ENVIRONMENT`."""


def is_on_gpu(backend: str, devices: Path = DEVICES) -> bool:
    """Whether it runs on one of NVIDIA's GPUs, told without PyTorch."""
    return backend == "torch" and any(devices.glob("nvidia[0-9]*"))


def usual(backend: str, devices: Path = DEVICES) -> Split:
    """How it is split where nobody has measured: a worker for the GPU, or one for each core."""
    return Split(1 if is_on_gpu(backend, devices) else cores())


class Gate:
    """Owns the device workers of one model, and the line in front of them."""

    def __init__(
        self, model: Model, backend: str, precision: str, split: Split | None = None
    ) -> None:
        self.model, self.backend, self.precision = model, backend, precision
        if backend.startswith("timed:"):
            split = Split(timed.parse(backend).slots)
        self.split = split or usual(backend)
        self.slots = self.split.workers
        self._workers: list[Worker] = []

    async def start(self, *, gently: bool = False) -> "Gate":
        """Starts the workers. Raises BadModel when this machine cannot run the model.

        Args:
            gently: leave the cores to whoever is at work on them; for a while, since on a machine
                that is never idle a model would never be served.
        """
        if gently:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GENTLE_SECONDS):
                    self._workers = await start_all(self._start(True) for _ in range(self.slots))
        if not self._workers:
            self._workers = await start_all(self._start() for _ in range(self.slots))
        hellos = [json.loads(worker.hello) for worker in self._workers]
        self.backend, self._widens = hellos[0]["backend"], hellos[0]["widens"]
        sizes = min((hello["seconds"] for hello in hellos), key=len)
        # They measured beside each other: the fastest was disturbed least.
        self.curve = Curve({int(b): min(hello["seconds"][b] for hello in hellos) for b in sizes})
        return self

    def open(self, metrics: QueueMetrics) -> None:
        """Lets the workers pull from the line."""
        self.queue = Queue(
            "device",
            self._start,
            slots=self.slots,
            metrics=metrics,
            relative=self.curve.relative,
        )
        self.queue.open(self._workers)

    @property
    def image_seconds(self) -> float:
        """What one image takes alone."""
        return self.curve.image_seconds

    @property
    def capacity(self) -> float:
        """Images a second of all workers together."""
        return self.slots * self.curve.capacity

    async def close(self) -> None:
        """Lets running work finish and ends the workers."""
        await self.queue.close()

    async def look(
        self, view: bytes, ask: Ask, priority: Priority, deadline: float, *, alone: bool = False
    ) -> Seen:
        """What the model makes of one image.

        Args:
            view: the RGB bytes of the square that the model looks at.
            deadline: when the answer is worth nothing any more, on `time.monotonic`.
            alone: the server has nothing else to do, so it may have all cores.

        Raises:
            Overloaded: it would come too late.
            DeviceDied: the worker did, twice.
        """
        alone = alone and self._widens and not self.queue.busy and not len(self.queue)
        work = Work(
            parts=[ASK.pack(alone, ask.embedding, ask.explain), view],
            cost_seconds=self.image_seconds,
            deadline=deadline,
            priority=priority,
            alone=alone,
        )
        try:
            served = await self.queue.run(work)
        except WorkerDied:
            raise DeviceDied("The accelerator's worker died. Try again.") from None
        if served.index == 0 and not alone:
            self.curve.observe(served.batch_size, *TOOK.unpack_from(served.reply))
        return self._read(served, ask)

    def _read(self, served: Served, ask: Ask) -> Seen:
        start = TOOK.size
        for _ in range(served.index):
            start += SIZE.size + SIZE.unpack_from(served.reply, start)[0]
        (length,) = SIZE.unpack_from(served.reply, start)
        values = np.frombuffer(served.reply, "<f4", length // 4, start + SIZE.size)
        ends = self.model.outputs, self.model.outputs + self.model.architecture.features
        logits_K, rest = values[: ends[0]], values[ends[ask.embedding] :]
        embedding_F = values[ends[0] : ends[1]]
        edge = math.isqrt(len(rest))
        return Seen(
            self.model.probabilities(logits_K[None])[0],
            embedding_F if ask.embedding else None,
            rest.reshape(edge, edge) if ask.explain >= 0 else None,
            served,
        )

    async def _start(self, gently: bool = False) -> Worker:
        module, more = ("newcomer", ["--gently"]) if gently else ("device", [])
        arguments = [
            *more,
            str(self.model.folder),
            f"--version={self.model.version}",
            f"--backend={self.backend}",
            f"--precision={self.precision}",
            f"--threads={self.split.threads}",
        ]
        environment = {
            name: value
            for name, value in ENVIRONMENT.items()
            if self.split.keeps_memory or not name.startswith("MALLOC_")
        }
        return await Worker(f"services.inference.{module}", arguments, environment).start()
