"""A trainer as its operators run it, as a process; and one within the test's own process.

What is trained by either is `standin.py`.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from prometheus_client import CollectorRegistry

from clients.demo import free_port
from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc
from services.shared import harness, watching
from services.shared.watching import LIVE
from services.trainer import __main__ as program
from services.trainer import runs
from services.trainer.metrics import Metrics
from services.trainer.runs import Runs
from services.trainer.server import TrainerService
from tests.trainer import standin

START_SECONDS = 30.0


class Trainer:
    """A context; leaving it kills the process as `kill -9` does, unless it has ended before."""

    def __init__(self, data: Path, module: str = "tests.trainer.running") -> None:
        self.port, self._module, self._data = free_port(), module, data

    def __enter__(self) -> Self:
        flags = [f"--port={self.port}", f"--metrics-port={free_port()}", f"--data={self._data}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", self._module, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        soon = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", soon)
        self.stub = rpc.TrainerServiceStub(self.channel)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def is_up(self) -> bool:
        """Waits until it answers; false if it died instead."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.stub.ListRuns(pb.ListRunsRequest(), timeout=1)
                return True
            except grpc.RpcError:
                time.sleep(0.02)
        return False

    def get(self, name: str) -> pb.Run:
        run: pb.Run = self.stub.GetRun(pb.GetRunRequest(name=name), timeout=10).run
        return run

    def reached(self, name: str, step: int) -> pb.Run:
        """The run, as soon as it has come so far, or has ended."""
        for message in self.stub.WatchRun(pb.WatchRunRequest(name=name), timeout=60):
            run: pb.Run = message.run
            if run.progress.step >= step:
                break
        return run


@dataclass
class Running:
    """A trainer that serves, with what is behind it."""

    data: Path
    stub: rpc.TrainerServiceStub
    registry: CollectorRegistry

    async def start(self, dataset: str = "first", **more: Any) -> str:
        """The name of a new run."""
        return (await self.stub.StartRun(train(dataset, **more))).run.name

    async def get(self, name: str) -> pb.Run:
        return (await self.stub.GetRun(pb.GetRunRequest(name=name))).run

    async def cancel(self, name: str) -> pb.Run:
        return (await self.stub.CancelRun(pb.CancelRunRequest(name=name))).run

    async def seen(self, name: str) -> list[pb.Run]:
        """What a watcher is sent until the run has ended."""
        request = pb.WatchRunRequest(name=name)
        return [message.run async for message in self.stub.WatchRun(request)]

    async def reached(self, name: str, found: Callable[[pb.Run], Any]) -> pb.Run:
        """The run, as soon as this is so of it, or it has ended."""
        async for message in self.stub.WatchRun(pb.WatchRunRequest(name=name)):
            run: pb.Run = message.run
            if found(run) or run.state not in LIVE:
                return run
        raise AssertionError("it did not end")

    def sample(self, name: str, /, **labels: str) -> float | None:
        """A metric's value; None for one that is not there."""
        return self.registry.get_sample_value(name, labels)


def train(dataset: str = "first", **more: Any) -> pb.StartRunRequest:
    """Asks for a run."""
    asked: dict[str, Any] = {"kind": pb.RUN_KIND_TRAIN, "recipe": "quick", "dataset": dataset}
    return pb.StartRunRequest(**asked | more)


def is_in(state: states.State) -> Callable[[pb.Run], bool]:
    """Whether a run is."""
    return lambda run: run.state == state


@pytest.fixture(scope="module", autouse=True)
def brisk() -> Iterator[None]:
    """Looks and tries more often than a trainer should, in the modules that import it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watching, "WATCH_SECONDS", 0.03)
        patched.setattr(runs, "LOOK_SECONDS", 0.03)
        patched.setattr(runs, "BACKOFF_SECONDS", 0.01)
        patched.setattr(runs, "PAUSE_SECONDS", 0.3)
        yield


@asynccontextmanager
async def trainer(data: Path, command: runs.Command = standin.command) -> AsyncIterator[Running]:
    """Serves a data folder until the test is done with it; what trains is stopped then."""
    boundary, registry = harness.Boundary(), CollectorRegistry()
    listening, service = harness.new_server(boundary), TrainerService(data / "registry")
    rpc.add_TrainerServiceServicer_to_server(service, listening)
    address = f"127.0.0.1:{harness.bind(listening, '127.0.0.1', 0)}"
    await listening.start()
    service.open(Runs(data, Metrics(registry), command))
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Running(data, rpc.TrainerServiceStub(channel), registry)
    finally:
        await service.close()
        await listening.stop(None)


async def until(found: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether there is such a process, and more of it than what its parent has to bury."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":  # as `python -m services.trainer`, with the stand-in

    async def serve(options: program.Options) -> None:
        await program.serve(options, standin.command)

    values = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
    data = Path(values["data"])
    harness.log_as_json()
    asyncio.run(
        serve(
            program.Options(
                host="127.0.0.1",
                port=int(values["port"]),
                metrics_port=int(values["metrics-port"]),
                data=data,
                registry=data / "registry",
            )
        )
    )
