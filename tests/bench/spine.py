"""`make bench-spine`: what the server adds to decode and forward, and what it keeps in overload.

Every figure is a ratio or a difference to something measured in the same run: the bare limit is
decode and forward in a loop without a server, in one process for each core; the refusal floor is
a grpc.aio server that refuses every call at once.
"""

import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from clients.arrivals import poisson, steps
from clients.demo import free_port, is_ready
from clients.load import plan, requests, run
from clients.report import Kind, Report
from services.shared import model, registry, starter
from services.shared.cores import cores
from services.shared.worker import ENVIRONMENT
from tests.photographs import make

RESULTS = Path(__file__).parent / "results"
REGISTRY = Path("data/registry")
SECONDS = 10.0
PNG_SECONDS = 20.0
RATE_OF_TIMED = 50.0  # what `timed:20ms` can do in a second


def looks() -> model.Model:
    """The model that is measured."""
    return model.load(registry.folder(REGISTRY, starter.ensure(REGISTRY)))


def loop(pictures: list[bytes], seconds: float, out: "multiprocessing.Queue[list[float]]") -> None:
    """Decode and forward, one after the other, without a server; reports the time of each."""
    from services.shared.exported import open_exported

    chosen = looks()
    look = open_exported(chosen, "exact")
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        content = pictures[len(took) % len(pictures)]
        look(model.view(chosen.preprocessing, content)[None])
        took.append(time.perf_counter() - start)
    out.put(took[5:])


def bare(pictures: list[bytes], processes: int) -> list[list[float]]:
    """The times of `loop` in so many processes side by side."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    runners = [
        context.Process(target=loop, args=(pictures, SECONDS, out)) for _ in range(processes)
    ]
    for runner in runners:
        runner.start()
    times = [out.get() for _ in runners]
    for runner in runners:
        runner.join()
    return times


@contextlib.contextmanager
def serving(*command: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server process of ours: its address, and itself."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, f"--port={port}"], stderr=subprocess.DEVNULL
    )
    try:
        address = f"127.0.0.1:{port}"
        if not is_ready(address, process):
            raise SystemExit(f"{' '.join(command)} did not start")
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(40)


def inference(backend: str) -> "contextlib.AbstractContextManager[tuple[str, psutil.Process]]":
    """The inference service on a backend."""
    return serving("services.inference", f"--backend={backend}", f"--metrics-port={free_port()}")


def load(address: str, pictures: list[bytes], rate: float, seconds: float = SECONDS) -> Report:
    """An open-loop load with deadlines of 1 s."""
    rng = random.Random(1)
    choices = requests(pictures, rng)
    schedule = poisson(steps([rate], seconds), rng)
    return asyncio.run(run(address, plan(schedule, lambda: rng.choice(choices), rng)))


def goodput(report: Report, seconds: float = SECONDS) -> float:
    """Answers within their deadline, a second; what came after the load had ended counts not."""
    good = (o for o in report.outcomes if o.kind is Kind.GOOD)
    return sum(outcome.at + outcome.latency <= seconds for outcome in good) / seconds


def idle(address: str, pictures: list[bytes]) -> tuple[list[float], list[float]]:
    """Seconds of decode and forward alone, and of a call, in turn: drift of the machine hits both.

    One call is in flight, on the one client's connection.
    """
    from services.shared.exported import open_exported

    chosen = looks()
    look = open_exported(chosen, "exact")
    choices = requests(pictures, random.Random(1))
    alone: list[float] = []
    called: list[float] = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/emojinet.v1.InferenceService/Suggest", None, None)
        end = time.perf_counter() + 2 * SECONDS
        while (start := time.perf_counter()) < end:
            turn = len(alone) % len(pictures)
            look(model.view(chosen.preprocessing, pictures[turn])[None])
            alone.append(time.perf_counter() - start)
            start = time.perf_counter()
            call(choices[turn], timeout=5)
            called.append(time.perf_counter() - start)
    return alone[5:], called[5:]


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU that the process itself has used, its workers not counted."""
    times = process.cpu_times()
    return float(times.user + times.system)


def refusals(pictures: list[bytes]) -> dict[str, float]:
    """Overload on a device of 50 images a second, and what a refusal costs the server."""
    found: dict[str, float] = {}
    with inference("timed:20ms") as (address, process):
        before = cpu(process)
        calm = load(address, pictures, 0.8 * RATE_OF_TIMED)
        served_ms = (cpu(process) - before) / calm.count(Kind.GOOD) * 1000
        for times in (2, 5, 10):
            before = cpu(process)
            report = load(address, pictures, times * RATE_OF_TIMED)
            spent_ms = (cpu(process) - before) * 1000
            found[f"timed_goodput_{times}x"] = goodput(report) / RATE_OF_TIMED
            good, refused = report.count(Kind.GOOD), report.count(Kind.REFUSED)
            found[f"refusal_ms_{times}x"] = (spent_ms - good * served_ms) / refused
        found["served_ms"] = served_ms
    with serving("tests.bench.refuser") as (address, process):
        before = cpu(process)
        report = load(address, pictures, 10 * RATE_OF_TIMED)
        found["refusal_floor_ms"] = (cpu(process) - before) * 1000 / report.count(Kind.REFUSED)
    return found


def beside_png(address: str, pictures: list[bytes], rate: float) -> dict[str, float]:
    """What one client that sends a PNG of 64 megapixels after the other does to the others."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(pictures[0])).resize((8000, 8000), Image.Resampling.NEAREST)
    image.save(file, "PNG", compress_level=1)
    (large,) = requests([file.getvalue()], random.Random(1))
    calm = load(address, pictures, rate, PNG_SECONDS)
    ended, took = threading.Event(), list[float]()

    def insist() -> None:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/emojinet.v1.InferenceService/Suggest", None, None)
            while not ended.is_set():
                start = time.perf_counter()
                try:
                    call(large, timeout=PNG_SECONDS)
                    took.append(time.perf_counter() - start)
                except grpc.RpcError:  # refused: it comes again
                    time.sleep(0.1)

    client = threading.Thread(target=insist)
    client.start()
    shared = load(address, pictures, rate, PNG_SECONDS)
    ended.set()
    client.join()
    p99, beside = (p99_ms(report) for report in (calm, shared))
    return {
        "png_rate": rate,
        "p99_ms": p99,
        "p99_beside_png_ms": beside,
        "png_p99_ratio": beside / p99,
        "not_good_beside_png": len(shared.outcomes) - shared.count(Kind.GOOD),
        "pngs_served": len(took),
    }


def p99_ms(report: Report) -> float:
    """Of the latencies from when calls were due, of those that were answered in time."""
    return statistics.quantiles(report.latencies(Kind.GOOD), n=100)[98] * 1000


def measure(pictures: list[bytes]) -> dict[str, float]:
    """Every figure of this benchmark."""
    found: dict[str, float] = {}
    found["limit"] = sum(len(t) / sum(t) for t in bare(pictures, cores()))
    with inference("auto") as (address, _):
        alone, called = idle(address, pictures)
        found["alone_ms"] = statistics.median(alone) * 1000
        found["idle_ms"] = statistics.median(called) * 1000
        found["idle_p99_ms"] = statistics.quantiles(called, n=100)[98] * 1000
        found["overhead_ms"] = found["idle_ms"] - found["alone_ms"]
        rates = [share * found["limit"] for share in (0.7, 0.8, 0.9, 1.0, 1.1)]
        found["capacity"] = max(goodput(load(address, pictures, rate)) for rate in rates)
        doubled = load(address, pictures, 2 * found["capacity"])
        found["goodput_2x"] = goodput(doubled) / found["capacity"]
        found["failed_calls_2x"] = doubled.count(Kind.FAILED)
        found |= beside_png(address, pictures, found["capacity"] / 2)
    found["limit_share"] = found["capacity"] / found["limit"]
    return found | refusals(pictures)


def as_markdown(found: dict[str, float], facts: dict[str, Any]) -> str:
    """The record of one run."""
    lines = ["# Spine", "", "`make bench-spine`: see the docstring of `tests/bench/spine.py`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in found.items()]
    return "\n".join(lines) + "\n"


def main(
    size: Annotated[str, typer.Option(help="Of the pictures, WIDTHxHEIGHT.")] = "640x480",
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""

    if not ENVIRONMENT.items() <= os.environ.items():
        # Decode and forward alone get the malloc settings that our workers have.
        os.execve(sys.executable, sys.orig_argv, os.environ | ENVIRONMENT)
    width, height = (int(edge) for edge in size.split("x"))
    pictures = make(width, height, 18)
    found = measure(pictures)
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cores()} cores, {cpu_name()}",
        "versions": ", ".join(f"{p} {version(p)}" for p in ("grpcio", "openvino", "simplejpeg")),
        "python": platform.python_version(),
        "pictures": f"{len(pictures)} of {size}, {sum(map(len, pictures)) // len(pictures)} bytes",
        "n": f"{SECONDS:.0f} s for each figure, Poisson arrivals, deadlines of 1 s",
    }
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}")
    Console().print(table)
    (output or RESULTS / f"{time.strftime('%Y-%m')}_spine.md").write_text(as_markdown(found, facts))
    print("RESULT", json.dumps({name: round(value, 4) for name, value in found.items()}))


def cpu_name() -> str:
    """As the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if "model name" in line), "unknown CPU")


if __name__ == "__main__":
    typer.run(main)
