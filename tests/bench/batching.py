"""`make bench-batching`: how near the gate comes to the best fixed batch, with nothing configured.

On devices that only wait, whose s(b) is known: one on which a batch gains nothing, one on which it
gains a little, and one on which it gains all. What the best fixed batch could do is b/s(b), without
a server. Where nobody else is there, a call must wait no longer than on the device without batches.
"""

import asyncio
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.inference.backends import timed
from services.inference.device import BATCHES
from services.shared.cores import cores
from tests.bench.callers import closed_loop
from tests.bench.contenders import Contender, Server, running
from tests.bench.spine import cpu_name
from tests.bench.standings import share_ms
from tests.photographs import make

DEVICES = {"flat": "timed:20ms", "gentle": "timed:20ms+12ms", "steep": "timed:80ms+4ms"}
ALONE = {"steep": "timed:80ms"}  # the same s(1), and no reason for a batch
IN_FLIGHT = 96
COLUMNS = ["device", "backend", "best fixed, images/s", "share", "least", "most"]
RESULTS = Path(__file__).parent / "results"


def on(backend: str) -> Contender:
    """Our server with such a device."""

    def command(port: int) -> list[str]:
        module = [sys.executable, "-m", "services.inference", f"--port={port}"]
        return [*module, "--metrics-port=METRICS", f"--backend={backend}"]

    return Contender(name=f"EmojiNet, {backend}", command=command)


def best_fixed(backend: str) -> float:
    """Images a second."""
    times = timed.parse(backend)
    return max(times.slots * batch / times.seconds(batch) for batch in BATCHES)


def loop(server: Server, pictures: Sequence[bytes], in_flight: int, seconds: float) -> list[float]:
    """Latencies of a closed loop, and behind them its images a second."""
    bodies = [server.contender.body(picture) for picture in pictures]

    async def load() -> list[float]:
        async with server.connect() as send:
            found = await closed_loop(send, bodies, in_flight, seconds)
            return [*sorted(o.latency for o in found.report.outcomes), found.rate]

    return asyncio.run(load())


def as_markdown(
    rows: Sequence[Sequence[str]], rounds: int, seconds: float, result: dict[str, float]
) -> str:
    """The record of a run."""
    lines = [
        "# Batching",
        "",
        "`make bench-batching`: see the docstring of `tests/bench/batching.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores()} cores, {cpu_name()}; callers and server share them",
        f"- versions: grpcio {version('grpcio')}, python {platform.python_version()}",
        f"- n: {rounds} rounds, {seconds:g} s for each loop, {IN_FLIGHT} in flight",
        "",
        *("| " + " | ".join(row) + " |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)),
        "",
        f"    RESULT {json.dumps(result)}",
        "",
    ]
    return "\n".join(lines)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="For each loop.")] = 10.0,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Measures the devices in turn."""
    pictures = make(640, 480, 8)
    rates: dict[str, list[float]] = {name: [] for name in DEVICES}
    idle: dict[str, list[float]] = {backend: [] for backend in (*DEVICES.values(), *ALONE.values())}
    for _ in range(rounds):
        for name, backend in DEVICES.items():
            with running(on(backend), pictures[0]) as server:
                rates[name].append(loop(server, pictures, IN_FLIGHT, seconds)[-1])
                idle[backend] += loop(server, pictures, 1, seconds)[:-1]
        for backend in ALONE.values():
            with running(on(backend), pictures[0]) as server:
                idle[backend] += loop(server, pictures, 1, seconds)[:-1]
    rows, result = [], {}
    for name, backend in DEVICES.items():
        best = best_fixed(backend)
        shares = [rate / best for rate in rates[name]]
        result[f"{name}_share"] = round(statistics.median(shares), 4)
        figures = (
            f"{value:.3f}" for value in (statistics.median(shares), min(shares), max(shares))
        )
        rows.append([name, backend, f"{best:.0f}", *figures])
    waits = {backend: share_ms(sorted(found), 0.5) for backend, found in idle.items()}
    result["idle_ratio"] = round(waits[DEVICES["steep"]] / waits[ALONE["steep"]], 4)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_batching.md"
    path.write_text(as_markdown(rows, rounds, seconds, result))
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
