"""The servers that are compared: ours, and those that people would pick instead."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clients.client import suggest_request
from clients.demo import free_port, is_ready
from services.shared.model import Model
from services.shared.worker import ENVIRONMENT
from tests.bench.callers import Send, over_grpc, over_http, response
from tests.bench.peers import environment

CAPACITY = 100  # of Mosec's queue where it is bounded: 0.7 s of work, of deadlines of 1 s
MOSEC_TIMEOUT_MS = 1000
LITSERVE_TIMEOUT_SECONDS = 0.9  # it has no bound; what has waited so long is not begun
START_SECONDS = 120.0
END_SECONDS = 1.0  # then it is killed: how it would end is not what is measured
Connect = Callable[[str], contextlib.AbstractAsyncContextManager[Send]]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server in one set-up."""

    name: str
    command: Callable[[int], list[str]]
    """For a port."""
    variables: dict[str, str] = field(default_factory=dict)
    connect: Connect = over_grpc
    body: Callable[[bytes], bytes] = lambda picture: suggest_request([picture]).SerializeToString()
    first: Callable[[bytes], str] = lambda answer: response(answer).suggestions.suggestions[0].emoji
    """The most likely emoji of an answer."""


class Server:
    """One of them, running."""

    def __init__(self, contender: Contender, port: int, workers: Path, metrics_port: int) -> None:
        self.contender, self.address = contender, f"127.0.0.1:{port}"
        self._workers, self._metrics_port = workers, metrics_port
        self._seconds: dict[int, float] = {}
        command = [part.replace("METRICS", str(metrics_port)) for part in contender.command(port)]
        root = Path.cwd()
        variables = {
            "BENCH_WORKERS": str(workers),
            "PYTHONPATH": f"{root}:{root / 'protos'}",
            **contender.variables,
        }
        kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        self.process = subprocess.Popen(
            command, env=kept | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def connect(self) -> contextlib.AbstractAsyncContextManager[Send]:
        """A way to call it."""
        return self.contender.connect(self.address)

    def cpu_seconds(self) -> float:
        """Used by the server by now, without its workers; what has ended in between counts."""
        for process in self._tree():
            if not self._is_worker(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self._seconds[process.pid] = times.user + times.system
        return sum(self._seconds.values())

    def memory_mb(self) -> float:
        """Of all its processes; what they share counts once."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 1e6

    def device_seconds(self) -> float:
        """How long our accelerator has been busy by now."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        busy = [x for x in lines if x.startswith("emojinet_busy_seconds_total{") and "device" in x]
        return sum(float(line.split()[-1]) for line in busy)

    def _tree(self) -> list[psutil.Process]:
        try:
            server = psutil.Process(self.process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _is_worker(self, process: psutil.Process) -> bool:
        ours = "services.inference" in self.contender.command(0)
        if ours:  # all that it starts are workers
            return bool(process.pid != self.process.pid)
        return (self._workers / str(process.pid)).exists()

    def is_up(self, picture: bytes) -> bool:
        """Waits until it answers."""
        if self.contender.connect is over_grpc:
            return is_ready(self.address, self.process)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if asyncio.run(self._answers(picture)):
                return True
            time.sleep(0.1)
        return False

    async def _answers(self, picture: bytes) -> bool:
        async with self.connect() as send:
            return isinstance(await send(self.contender.body(picture), 30.0), bytes)

    def end(self) -> None:
        """Ends it and all that it has started."""
        tree = self._tree()
        self.process.terminate()
        _, alive = psutil.wait_procs(tree, END_SECONDS)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, END_SECONDS)


@contextlib.contextmanager
def running(contender: Contender, picture: bytes) -> Iterator[Server]:
    """The server, once it answers, until we are done with it."""
    with tempfile.TemporaryDirectory() as workers:
        server = Server(contender, free_port(), Path(workers), free_port())
        try:
            if not server.is_up(picture):
                raise SystemExit(f"{contender.name} did not start")
            yield server
        finally:
            server.end()


def ours(precision: str = "exact") -> Contender:
    """Our server."""

    def command(port: int) -> list[str]:
        module = [sys.executable, "-m", "services.inference", f"--port={port}"]
        return [*module, "--metrics-port=METRICS", f"--precision={precision}"]

    return Contender(name="EmojiNet" + f", {precision}" * (precision != "exact"), command=command)


class Peers:
    """The others, with a model."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def naive(self) -> Contender:
        """A lock around the model."""
        command = [sys.executable, "-m", "tests.bench.peers.naive"]
        return Contender(
            name="naive grpc.aio",
            command=lambda port: [*command, f"--port={port}"],
            variables=self._variables("eager", "pillow", "documented"),
        )

    def mosec(self, backend: str, decode: str, setup: str = "tuned") -> Contender:
        """Mosec; its queue is bounded where its workers are as fast as ours."""
        command = [str(environment.PYTHON), "-m", "tests.bench.peers.mosec", "--log-level=error"]
        if backend == "openvino":
            command += [f"--capacity={CAPACITY}", f"--timeout={MOSEC_TIMEOUT_MS}"]
        return Contender(
            name=_name("Mosec", backend, decode, setup),
            command=lambda port: [*command, "--address=127.0.0.1", f"--port={port}"],
            variables=self._variables(backend, decode, setup),
            connect=lambda address: over_http(f"http://{address}/inference", "image/jpeg"),
            body=lambda picture: picture,
            first=_first,
        )

    def litserve(self, backend: str, decode: str, setup: str = "tuned") -> Contender:
        """LitServe; late work is not begun where its workers are as fast as ours."""
        command = [str(environment.PYTHON), "-m", "tests.bench.peers.litserve"]
        if backend == "openvino":
            command += [f"--timeout={LITSERVE_TIMEOUT_SECONDS}"]

        def body(picture: bytes) -> bytes:
            return json.dumps({"image_data": base64.b64encode(picture).decode()}).encode()

        return Contender(
            name=_name("LitServe", backend, decode, setup),
            command=lambda port: [*command, f"--port={port}"],
            variables=self._variables(backend, decode, setup),
            connect=lambda address: over_http(f"http://{address}/predict", "application/json"),
            body=body,
            first=_first,
        )

    def _variables(self, backend: str, decode: str, setup: str) -> dict[str, str]:
        said = {
            "BENCH_MODEL": str(self._model.folder.absolute()),
            "BENCH_BACKEND": backend,
            "BENCH_DECODE": decode,
            "BENCH_SETUP": setup,
        }
        return said | (ENVIRONMENT if setup == "tuned" else {})


def _name(peer: str, backend: str, decode: str, setup: str) -> str:
    what = {
        ("openvino", "ours"): "ours inside",
        ("openvino", "pillow"): "our backend, Pillow",
        ("eager", "pillow"): "PyTorch, Pillow",
    }[backend, decode]
    return f"{peer}, {what}" + ", as documented" * (setup == "documented")


def _first(answer: bytes) -> str:
    emoji: str = json.loads(answer)[0][0]
    return emoji


def first_places(server: Server, pictures: list[bytes]) -> list[str]:
    """What it takes to be the most likely emoji of each picture."""

    async def ask() -> list[str]:
        async with server.connect() as send:
            found = []
            for picture in itertools.islice(pictures, 8):
                came = await send(server.contender.body(picture), 10.0)
                if not isinstance(came, bytes):
                    raise SystemExit(f"{server.contender.name} did not answer: {came!r}")
                found.append(server.contender.first(came))
            return found

    return asyncio.run(ask())
