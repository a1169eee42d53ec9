"""`make prove-soak`: whatever is asked of a server, its memory does not grow.

Three servers get the same calls at the same times: ours, on the starter; an empty handler, which
answers at once and so shows what grpcio and Python take by themselves; and ours with a leak, small
enough to need all of the time to come to `LEAKED_MB`: a proof that would not notice it proves
nothing. Calls are of every kind (`mixed.py`), some broken, cancelled or too much at once.

Memory is that of all processes of a server, what they share counted once, without pages of files:
those the kernel takes back, and whoever else runs the same programs has a share in them.
"""

import asyncio
import contextlib
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from clients import load
from clients.demo import free_port, is_ready
from services.shared import model, registry, starter
from services.shared.cores import cores
from services.shared.model import Model
from tests.bench.spine import cpu_name
from tests.prove import leaking
from tests.prove.mixed import ASKS, FATES, STREAM, Asks, Call, Came, Fate, calls, expected, outcome

REGISTRY = Path("data/registry")
RESULTS = Path("tests/bench/results")
ALLOWED_MB = 20.0  # more than the empty handler
LEAKED_MB = 80.0
WARM_UP_SHARE, END_SHARE = 0.1, 0.1  # of the time, and of what is left at each end
SAMPLES = 600
CONNECTIONS = 4
WIDTH = 120  # of the table, also where nobody looks
STOP_SECONDS = 40.0
STREAM_SECONDS = 1.0  # at least: grpcio calls it INTERNAL where a stream is late from its start
COUNTED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")


def memory_mb(root: psutil.Process) -> float:
    """Of a process and all that it has started."""
    total_kb = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total_kb += sum(int(line.split()[1]) for line in lines if line.startswith(COUNTED))
    return total_kb * 1024 / 1e6


class Subject:
    """One of the servers, what became of its calls, and its memory over time."""

    def __init__(self, name: str, command: Sequence[str], log: Path, **variables: str) -> None:
        self.name, self.address = name, f"127.0.0.1:{free_port()}"
        self.fates: Counter[Fate] = Counter()
        self.why: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []
        """Seconds since the start, and megabytes."""
        port = f"--port={self.address.split(':')[1]}"
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command, port], stderr=said, env=os.environ | variables
            )

    def wait(self) -> None:
        """Until it is ready."""
        if not is_ready(self.address, self._process):
            raise SystemExit(f"{self.name} did not start")
        self._root = psutil.Process(self._process.pid)

    def stop(self) -> None:
        """Ends it as Kubernetes would."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def sample(self, seconds: float) -> None:
        """Looks at its memory."""
        if self._process.poll() is not None:
            raise SystemExit(f"{self.name} has ended in the midst of it")
        self.memory.append((seconds, memory_mb(self._root)))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Calls can be made within."""
        async with contextlib.AsyncExitStack() as stack:
            channels = [load._channel(self.address) for _ in range(CONNECTIONS)]
            for channel in channels:
                await stack.enter_async_context(channel)
            self._channels = itertools.cycle(channels)
            yield

    async def call(self, call: Call) -> None:
        """Makes it, and takes down what becomes of it."""
        fate, why = outcome(call.ask, await self._come(call))
        self.fates[fate] += 1
        if fate is Fate.FAILED:
            self.why[why] += 1

    async def _come(self, call: Call) -> Came:
        method, requests, *_ = call.ask
        channel = next(self._channels)
        rpc: Any
        if method == STREAM:
            stream = channel.stream_stream(method, None, None)
            rpc = stream(iter(requests), timeout=max(call.deadline, STREAM_SECONDS))
        else:
            rpc = channel.unary_unary(method, None, None)(requests[0], timeout=call.deadline)
        if call.cancel is not None:
            asyncio.get_running_loop().call_later(call.cancel, rpc.cancel)
        try:
            return [answer async for answer in rpc] if method == STREAM else [await rpc]
        except grpc.aio.AioRpcError as failure:
            return failure.with_traceback(None)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return None

    def ends_mb(self) -> tuple[float, float]:
        """Behind the warm-up, and at the end."""
        after = WARM_UP_SHARE * self.memory[-1][0]
        behind = [mb for seconds, mb in self.memory if seconds >= after]
        few = max(1, int(END_SHARE * len(behind)))
        return statistics.median(behind[:few]), statistics.median(behind[-few:])

    @property
    def growth_mb(self) -> float:
        """From the one to the other."""
        first, last = self.ends_mb()
        return last - first


async def soak(
    subjects: Sequence[Subject], plan: Sequence[Call], seconds: float, record: Path
) -> None:
    """Makes every call to each of them when it is due; their memory is recorded as time goes by."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for subject in subjects:
            await stack.enter_async_context(subject.connected())
        start = loop.time()
        looking = asyncio.create_task(_look(subjects, seconds, record))
        async with asyncio.TaskGroup() as group:
            for call in plan:
                await asyncio.sleep(max(0.0, start + call.at - loop.time()))
                for subject in subjects:
                    group.create_task(subject.call(call))
        await looking


async def _look(subjects: Sequence[Subject], seconds: float, record: Path) -> None:
    start = time.monotonic()
    with record.open("w", buffering=1) as file:
        print("second", *(subject.name for subject in subjects), sep=",", file=file)
        while (now := time.monotonic() - start) < seconds:
            await asyncio.gather(*(asyncio.to_thread(subject.sample, now) for subject in subjects))
            sizes = (f"{subject.memory[-1][1]:.1f}" for subject in subjects)
            print(f"{now:.1f}", *sizes, sep=",", file=file)
            await asyncio.sleep(seconds / SAMPLES)


def started(one: Model, folder: Path, seconds: float, leaked_mb: float) -> list[Subject]:
    """Ours, the empty handler, and ours with a leak of so much in all."""

    def options() -> list[str]:
        return [f"--model={one.folder.absolute()}", f"--metrics-port={free_port()}"]

    leaked = {leaking.VARIABLE: str(round(leaked_mb * 1e6 / expected(seconds)))}
    return [
        Subject("EmojiNet", ["services.inference", *options()], folder / "server.log"),
        Subject("empty handler", ["tests.prove.empty"], folder / "empty.log"),
        Subject("with a leak", [leaking.__name__, *options()], folder / "leaking.log", **leaked),
    ]


def prove(
    minutes: float, folder: Path, starting: Path, *, leaked_mb: float = LEAKED_MB, seed: int = 1
) -> tuple[list[Subject], dict[str, Any]]:
    """The servers as they were, and every figure of the proof.

    Args:
        folder: for their logs, and for their memory over time.
        starting: the folder of the starter.
    """
    one, rng, seconds = model.load(starting), random.Random(seed), 60 * minutes
    asks = Asks(one.name, one.vocabulary.emoji[0], rng)
    different = [asks.draw() for _ in range(ASKS)]
    plan = list(calls(different, seconds, rng))
    subjects = started(one, folder, seconds, leaked_mb)
    try:
        for subject in subjects:
            subject.wait()
        asyncio.run(soak(subjects, plan, seconds, folder / "memory.csv"))
    finally:
        for subject in subjects:
            subject.stop()
    return subjects, figures(*subjects) | {"minutes": minutes}


def figures(ours: Subject, empty: Subject, control: Subject) -> dict[str, Any]:
    """What is printed."""
    control_excess = control.growth_mb - empty.growth_mb
    return {
        "growth_mb": ours.growth_mb,
        "empty_growth_mb": empty.growth_mb,
        "excess_mb": ours.growth_mb - empty.growth_mb,
        "control_excess_mb": control_excess,
        "control_fails": int(control_excess > ALLOWED_MB),
        "calls": ours.fates.total(),
        "cancelled": ours.fates[Fate.CANCELLED],
        "refused": ours.fates[Fate.REFUSED],
        "late": ours.fates[Fate.LATE],
        "failed_calls": ours.fates[Fate.FAILED],
        "why": dict(ours.why),
    }


COLUMNS = ["server", *FATES, "MB, first", "MB, last", "growth"]


def rows(subjects: Sequence[Subject]) -> list[list[str]]:
    """A line for each."""
    return [
        [
            subject.name,
            *(f"{subject.fates[fate]:,}" for fate in FATES),
            *(f"{mb:.1f}" for mb in (*subject.ends_mb(), subject.growth_mb)),
        ]
        for subject in subjects
    ]


def as_markdown(subjects: Sequence[Subject], found: dict[str, Any], picture: str) -> str:
    """The record of one run."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("grpcio", "openvino"))
    lines = [
        "# Soak",
        "",
        "`make prove-soak`: see the docstring of `tests/prove/soak.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores()} cores, {cpu_name()}; callers and all three servers share them",
        f"- versions: Python {platform.python_version()}, {versions}",
        f"- n: {found['minutes']:g} minutes, {found['calls']:,} calls to each server",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in rows(subjects)),
        "",
        f"![Memory over time]({picture})",
        "",
        f"    RESULT {json.dumps(found)}",
        "",
    ]
    return "\n".join(lines)


def draw(subjects: Sequence[Subject], path: Path) -> None:
    """Growth over time, from the end of the warm-up."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for subject in subjects:
        first, _ = subject.ends_mb()
        points = [(seconds / 60, mb - first) for seconds, mb in subject.memory]
        axes.plot(*zip(*points, strict=True), label=subject.name, linewidth=0.8)
    axes.axhline(ALLOWED_MB, color="grey", linestyle=":", label="allowed at the end")
    axes.axvline(WARM_UP_SHARE * subjects[0].memory[-1][0] / 60, color="grey", linewidth=0.5)
    axes.set(xlabel="minutes", ylabel="MB more than behind the warm-up")
    axes.set_ylim(-2 * LEAKED_MB, 2 * LEAKED_MB)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path)


def main(
    minutes: Annotated[float, typer.Option(min=0.2)] = 30.0,
    save: Annotated[bool, typer.Option("--save", help="Record the run among the results.")] = False,
    folder: Annotated[Path, typer.Option(help="For logs, and memory over time.")] = Path(
        "data/prove-soak"
    ),
) -> None:
    """Prints tables, and as the last line RESULT with the figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    starting = registry.folder(REGISTRY, starter.ensure(REGISTRY))
    subjects, found = prove(minutes, folder, starting)
    table = Table(*COLUMNS)
    for row in rows(subjects):
        table.add_row(*row)
    Console(width=WIDTH).print(table)
    for subject in subjects:
        for why, count in subject.why.items():
            print(f"{subject.name}: {count} times {why}", file=sys.stderr)
    result = {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}
    if save:
        path = RESULTS / f"{time.strftime('%Y-%m')}_soak.md"
        path.write_text(as_markdown(subjects, result, path.with_suffix(".png").name))
        draw(subjects, path.with_suffix(".png"))
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
