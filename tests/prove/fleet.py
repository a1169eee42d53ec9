"""Real servers as the pods of a Deployment: at 127.0.0.2 and on, all on the same ports.

    async with Fleet(folder, flags, start_seconds=5) as fleet:
        fleet.scale(3)
        await fleet.ready(3)

As a ReplicaSet it first ends pods that are not ready, then the newest. One that ends is no longer
named from that moment, serves on for the seconds of our preStop hook, and then gets SIGTERM.

In a cluster a pod that starts has a CPU of its own. Here it takes only what the others leave, until
it is ready.
"""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import psutil
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.demo import free_port

BASE = Path(__file__).parents[2] / "k8s/base/inference.yaml"
DRAIN_SECONDS = 60.0
LOOK_SECONDS = 0.05


def pre_stop_seconds() -> float:
    """As the Deployment has it."""
    for described in yaml.safe_load_all(BASE.read_text()):
        if described["kind"] == "Deployment":
            (container,) = described["spec"]["template"]["spec"]["containers"]
            return float(container["lifecycle"]["preStop"]["sleep"]["seconds"])
    raise AssertionError("there is no Deployment")


@dataclass
class Pod:
    """One server. Times in seconds of the monotonic clock."""

    name: str
    host: str
    born: float
    process: subprocess.Popen[bytes] | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    """When it was told to end."""

    @property
    def state(self) -> str:
        """As the autoscaler sees it."""
        if self.ended_at is not None:
            return "deleting"
        if self.ready_at is not None:
            return "ready"
        return "running" if self.process else "pending"


class Fleet:
    """A Deployment's pods.

    Args:
        folder: for what they say, and for the list that Prometheus reads.
        program: of a pod, all but its addresses.
        start_seconds: from when a pod is made until it is ready, if it takes no longer by itself.
        own_seconds: of these, what its program takes: it is started so much before.
    """

    def __init__(
        self,
        folder: Path,
        program: Sequence[str],
        start_seconds: float = 0.0,
        own_seconds: float = 0.0,
    ) -> None:
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []
        self.port, self.metrics_port = free_port(), free_port()
        self.targets = folder / "pods.json"
        self._folder, self._program = folder, program
        self._pending_seconds = max(0.0, start_seconds - own_seconds)
        self._numbers = itertools.count(1)
        self._pre_stop = pre_stop_seconds()
        self._lives: set[asyncio.Task[None]] = set()
        self.targets.write_text("[]")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        processes = [pod.process for pod in self.pods if pod.process]
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DRAIN_SECONDS)
            process.kill()

    @property
    def wanted(self) -> list[Pod]:
        """Those that nobody has told to end: the replicas."""
        return [pod for pod in self.pods if pod.ended_at is None]

    def addresses(self) -> list[str]:
        """What the name of a headless Service gives."""
        return [pod.host for pod in self.pods if pod.state == "ready"]

    def scale(self, replicas: int) -> None:
        """Makes it so many, or begins to."""
        there = self.wanted
        for _ in range(replicas - len(there)):
            number = next(self._numbers)
            host = f"127.0.{number // 250}.{number % 250 + 1}"
            pod = Pod(f"emojinet-inference-{number}", host, time.monotonic())
            self.pods.append(pod)
            self._begin(self._start(pod))
        there.sort(key=lambda pod: (pod.ready_at is not None, -(pod.ready_at or 0)))
        for pod in there[: max(0, len(there) - replicas)]:
            self.end(pod)

    def end(self, pod: Pod) -> None:
        """As the deletion of a pod."""
        pod.ended_at = time.monotonic()
        self._begin(self._stop(pod))

    async def ready(self, replicas: int, patience_seconds: float = 60.0) -> None:
        """Waits until at least so many take work."""
        async with asyncio.timeout(patience_seconds):
            while len(self.addresses()) < replicas:
                await asyncio.sleep(LOOK_SECONDS)

    def _begin(self, life: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(life)
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def _start(self, pod: Pod) -> None:
        await asyncio.sleep(self._pending_seconds)
        if pod.ended_at is not None:
            return
        ports = (f"--port={self.port}", f"--metrics-port={self.metrics_port}")
        with (self._folder / f"{pod.name}.log").open("wb") as said:
            command = [sys.executable, "-m", *self._program, f"--host={pod.host}", *ports]
            pod.process = subprocess.Popen(["chrt", "--idle", "0", *command], stderr=said)
        self._tell_prometheus()
        async with self._health(pod) as check:
            while not await check():
                if pod.process.poll() is not None:
                    raise SystemExit(f"{pod.name} did not start: see {said.name}")
                await asyncio.sleep(LOOK_SECONDS)
        _as_others(pod.process)
        pod.ready_at = time.monotonic()

    async def _stop(self, pod: Pod) -> None:
        if pod.process:
            if pod.ready_at is not None:
                await asyncio.sleep(self._pre_stop)
            pod.process.terminate()
            async with asyncio.timeout(DRAIN_SECONDS):
                while pod.process.poll() is None:
                    await asyncio.sleep(LOOK_SECONDS)
        self.pods.remove(pod)
        self.gone.append(pod)
        self._tell_prometheus()

    @contextlib.asynccontextmanager
    async def _health(self, pod: Pod) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
        async with grpc.aio.insecure_channel(f"{pod.host}:{self.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def check() -> bool:
                asked = health_pb2.HealthCheckRequest(service="ready")
                try:
                    told = await stub.Check(asked, timeout=1.0)
                except grpc.aio.AioRpcError:
                    return False
                return told.status == health_pb2.HealthCheckResponse.SERVING

            yield check

    def _tell_prometheus(self) -> None:
        targets = [
            {
                "targets": [f"{pod.host}:{self.metrics_port}"],
                "labels": {"namespace": "emojinet", "pod": pod.name},
            }
            for pod in self.pods
            if pod.process
        ]
        written = self.targets.with_suffix(".new")
        written.write_text(json.dumps(targets))
        written.replace(self.targets)


def _as_others(process: subprocess.Popen[bytes]) -> None:
    """From now on the kernel treats it, and what it has started, like any program."""
    there = psutil.Process(process.pid)
    for each in (there, *there.children(recursive=True)):
        for thread in each.threads():
            os.sched_setscheduler(thread.id, os.SCHED_OTHER, os.sched_param(0))
