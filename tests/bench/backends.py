"""`make bench-backends`: what a forward pass costs on each backend, and whether it agrees.

s(b) of eager PyTorch (channels last) and of OpenVINO in float32 and bfloat16, each as one process
of one thread, as two such processes side by side, and as one process of two threads; processes of
one kind run together, kinds one after the other within each round. Agreement is with eager float32
on the model's own probe photographs, as its gate for `reduced` judges it. The last line is
`RESULT`.
"""

import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from services.shared.cores import cores
from services.shared.exported import open_exported
from services.shared.golden import Look
from services.shared.model import Model, view
from services.shared.worker import ENVIRONMENT
from tests.bench.spine import cpu_name, looks

RESULTS = Path(__file__).parent / "results"
PRECISIONS = {"openvino f32": "exact", "openvino bf16": "reduced"}
BACKENDS = ("torch", *PRECISIONS)
BATCHES = (1, 2, 4, 8, 16)
MARGINS = {0.0: 0.96, 0.05: 0.99, 0.20: 1.0}  # what the gate for `reduced` asks for


class Split(NamedTuple):
    """How the cores are shared out."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


SPLITS = (Split(1, 1), Split(2, 1), Split(1, 2))

Rates = dict[tuple[str, Split, int], list[float]]
"""Images a second by backend, split and batch, round by round."""


def opened(model: Model, backend: str, threads: int) -> Look:
    """What runs the model on so many threads."""
    if backend == "torch":
        import torch

        from services.shared import network

        torch.set_num_threads(threads)
        net = network.read(model)
        return lambda x_BHWC: network.look(net, x_BHWC)
    return open_exported(model, PRECISIONS[backend], threads)


def rates(backend: str, split: Split, seconds: float) -> list[float]:
    """Images a second of all processes together, by batch."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue[list[float]] = context.Queue()
    together = context.Barrier(split.processes)
    runners = [
        context.Process(target=loop, args=(backend, split.threads, seconds, together, out))
        for _ in range(split.processes)
    ]
    for runner in runners:
        runner.start()
    found = [out.get(timeout=120) for _ in runners]
    for runner in runners:
        runner.join()
    return [sum(each) for each in zip(*found, strict=True)]


def loop(
    backend: str,
    threads: int,
    seconds: float,
    together: Barrier,
    out: "multiprocessing.Queue[list[float]]",
) -> None:
    """One of the processes: each batch for so long, with pictures that are no constant."""
    model = looks()
    edge = model.preprocessing.size_px
    look = opened(model, backend, threads)
    draw = np.random.default_rng(1)
    found = []
    for batch in BATCHES:
        images = draw.integers(0, 256, (batch, edge, edge, 3), np.uint8)
        look(images)
        look(images)
        together.wait()
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            look(images)
            count += batch
        found.append(count / took)
    out.put(found)


def agreement(model: Model, backend: str) -> dict[str, float]:
    """With the published logits, which are eager float32's."""
    probes = model.probes()
    look = opened(model, backend, 1)
    views = (view(model.preprocessing, jpeg)[None] for jpeg in probes.jpegs)
    computed = model.probabilities(np.concatenate([look(x)[0] for x in views]))
    published = model.probabilities(probes.logits)
    first_two = np.sort(published, axis=1)[:, -2:]
    lead = first_two[:, 1] - first_two[:, 0]
    agrees = computed.argmax(1) == published.argmax(1)
    shares = {f"{margin:.2f}": float(agrees[lead >= margin].mean()) for margin in MARGINS}
    return shares | {"worst": float(np.abs(computed - published).max())}


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each batch in a round.")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Prints tables, and as the last line RESULT with the figures as JSON."""
    if not ENVIRONMENT.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | ENVIRONMENT)  # as our workers have it
    found: Rates = {}
    for _ in range(rounds):
        for backend in BACKENDS:
            for split in SPLITS:
                for batch, rate in zip(BATCHES, rates(backend, split, seconds), strict=True):
                    found.setdefault((backend, split, batch), []).append(rate)
    model = looks()
    agreed = {backend: agreement(model, backend) for backend in BACKENDS}
    result = figures(found, agreed) | {"probes": len(model.probes().jpegs), "rounds": rounds}
    tables = [(SPEED_COLUMNS, speed_rows(found)), (AGREEMENT_COLUMNS, agreement_rows(agreed))]
    for columns, rows in tables:
        table = Table(*columns, box=None)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_backends.md"
    path.write_text(as_markdown(tables, rounds, seconds, result))
    print("RESULT", json.dumps({name: round(value, 4) for name, value in result.items()}))


SPEED_COLUMNS = ["backend", "processes x threads", *(f"b = {batch}" for batch in BATCHES), "s(1)"]
AGREEMENT_COLUMNS = [
    "backend",
    *(f"first place, lead >= {margin:.2f}" for margin in MARGINS),
    "worst |dp|",
]


def speed_rows(found: Rates) -> list[list[str]]:
    """Images a second, and the milliseconds of a single one in each process."""
    rows = []
    for backend in BACKENDS:
        for split in SPLITS:
            middle = [statistics.median(found[backend, split, batch]) for batch in BATCHES]
            single = 1000 * split.processes / middle[0]
            rows.append([backend, str(split), *(f"{m:.1f}" for m in middle), f"{single:.2f} ms"])
    return rows


def agreement_rows(agreed: dict[str, dict[str, float]]) -> list[list[str]]:
    """Shares, and the worst difference of a probability."""
    return [
        [backend, *(f"{each[f'{m:.2f}']:.3f}" for m in MARGINS), f"{each['worst']:.1g}"]
        for backend, each in agreed.items()
    ]


def figures(found: Rates, agreed: dict[str, dict[str, float]]) -> dict[str, float]:
    """The best of each backend, and what the gate for `reduced` would say."""
    best = {
        backend: max(statistics.median(found[backend, s, b]) for s in SPLITS for b in BATCHES)
        for backend in BACKENDS
    }
    two, one = SPLITS[1], SPLITS[2]
    bf16 = agreed["openvino bf16"]
    exact = "openvino f32"
    return {
        "torch_images_per_second": best["torch"],
        "exact_images_per_second": best[exact],
        "reduced_images_per_second": best["openvino bf16"],
        "exact_ratio": best[exact] / best["torch"],
        "reduced_ratio": best["openvino bf16"] / best["torch"],
        "split_ratio": statistics.median(found[exact, two, 1])
        / statistics.median(found[exact, one, 1]),
        "exact_agreement": agreed[exact]["0.00"],
        "reduced_agreement": bf16["0.00"],
        "reduced_passes": int(all(bf16[f"{m:.2f}"] >= least for m, least in MARGINS.items())),
    }


def as_markdown(
    tables: list[tuple[list[str], list[list[str]]]],
    rounds: int,
    seconds: float,
    result: dict[str, float],
) -> str:
    """The record of one run."""
    flags = Path("/proc/cpuinfo").read_text()
    has = [flag for flag in ("avx512_bf16", "amx_bf16", "avx512_vnni") if flag in flags]
    lines = [
        "# Backends",
        "",
        "`make bench-backends`: see the docstring of `tests/bench/backends.py`. Images a second.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores()} cores, {cpu_name()}, {', '.join(has) or 'without bfloat16'}",
        f"- versions: {', '.join(f'{p} {version(p)}' for p in ('torch', 'openvino', 'timm'))}",
        f"- python: {platform.python_version()}",
        f"- n: {rounds} rounds of {seconds:g} s for each batch, medians",
    ]
    for columns, rows in tables:
        lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    rounded = {name: round(value, 4) for name, value in result.items()}
    return "\n".join([*lines, "", f"    RESULT {json.dumps(rounded)}", ""])


if __name__ == "__main__":
    typer.run(main)
