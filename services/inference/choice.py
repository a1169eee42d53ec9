"""How this machine runs a model fastest: backend, processes and threads, decoders, and malloc.

No rule knows it: two processes of one thread beat one of two here, and may not elsewhere. So
`--backend auto` tries what is installed, each in a small server of its own with decoders in front,
and remembers the fastest that gives the published answers. It takes seconds, once for each shape of
model, since weights do not matter, and machine.
"""

import asyncio
import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from services.inference.gate import Ask, Gate, Split, is_on_gpu, usual
from services.shared import pixels, shards
from services.shared.cores import cores
from services.shared.decoders import Decoders
from services.shared.errors import EmojinetError, StorageFailed
from services.shared.model import Model
from services.shared.queue import Priority, QueueMetrics
from services.shared.worker import WorkerDied, WorkerFailed

VERSION = 1  # of what is measured: raise it when an old answer may be wrong
IN_FLIGHT = 4  # for each core
WARM_UP_SECONDS, SECONDS = 0.3, 0.7
PICTURES = 8
HOPELESS = 0.7  # of the best rate: a backend with less in its first split is not tried in others
BETTER = 1.1  # times the best rate: by less, measurements differ anyway
SLOW_SECONDS = 30.0  # one that does not answer by then is out

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a model."""

    backend: str
    split: Split
    decoders: int
    """Processes that decode."""


class Trial(NamedTuple):
    """What came of one way."""

    choice: Choice
    images_per_second: float
    failure: Exception | None = None
    """Why it may not serve."""


async def fastest(model: Model, precision: str) -> Choice:
    """The best way for this model here: remembered, or measured now.

    Raises:
        EmojinetError: no backend may serve the model; of several reasons, the first.
    """
    path = folder() / f"{_key(model, precision)}.json"
    known = _remembered(path)
    if known is not None:
        log.info("the fastest here, by %s: %s", path, said(known))
        return known
    log.info("measuring how this machine runs the model fastest, once")
    trials: list[Trial] = []
    await _try_all(model, precision, trials)
    best = _best(trials)
    if best is None:
        raise trials[0].failure or RuntimeError("nothing was tried")
    _show(trials, best)
    _remember(path, best.choice, trials)
    return best.choice


def said(choice: Choice) -> str:
    """In words."""
    workers, threads, keeps = choice.split
    how = f"{choice.backend}, {workers} x {threads} threads, {choice.decoders} decoders"
    return how + ("" if keeps else ", malloc untouched")


async def _try_all(model: Model, precision: str, trials: list[Trial]) -> None:
    """Backends and their splits first; then the rest, with the best of them."""
    many = cores()
    exported = "openvino.xml" in model.files
    for backend in ("openvino", "torch") if exported else ("torch",):
        for split in [usual(backend)] if is_on_gpu(backend) else _splits(many):
            trial = await _try(model, precision, Choice(backend, split, many))
            before = _best(trials)
            trials.append(trial)
            if before and trial.images_per_second < HOPELESS * before.images_per_second:
                break
    best = _best(trials)
    if best is None:
        return
    base = best.choice
    trials.append(
        await _try(model, precision, replace(base, split=base.split._replace(keeps_memory=False)))
    )
    if many > 1:
        trials.append(await _try(model, precision, replace(base, decoders=max(1, many // 2))))


def _splits(many: int) -> Iterator[Split]:
    """Processes times threads make the cores."""
    for threads in sorted({1, 2 if many % 2 == 0 and many > 2 else 1, many}):
        yield Split(many // threads, threads)


def _best(trials: Sequence[Trial]) -> Trial | None:
    """The fastest; of those that are about as fast, the one tried first."""
    best: Trial | None = None
    for trial in trials:
        least = BETTER * best.images_per_second if best else 0.0
        if trial.failure is None and trial.images_per_second > least:
            best = trial
    return best


async def _try(model: Model, precision: str, choice: Choice) -> Trial:
    try:
        async with asyncio.timeout(SLOW_SECONDS):
            return Trial(choice, await _rate(model, precision, choice))
    except (EmojinetError, WorkerDied, WorkerFailed, TimeoutError) as failure:
        return Trial(choice, 0.0, failure)


async def _rate(model: Model, precision: str, choice: Choice) -> float:
    """Images a second, from bytes to probabilities, of a line that is never empty."""
    metrics = QueueMetrics(CollectorRegistry())
    gate = Gate(model, choice.backend, precision, choice.split)
    decoders = Decoders(choice.decoders)
    pictures, done = cycle(_pictures()), 0
    async with AsyncExitStack() as stack:
        for opened in (gate, decoders):
            await opened.start()
            opened.open(metrics)
            stack.push_async_callback(opened.close)
        began = time.monotonic() + WARM_UP_SECONDS
        end = began + SECONDS

        async def caller() -> None:
            nonlocal done
            while (now := time.monotonic()) < end:
                view = await decoders.view(
                    next(pictures),
                    cost_seconds=0.002,
                    preprocessing=model.preprocessing,
                    priority=Priority.INTERACTIVE,
                    deadline=now + SLOW_SECONDS,
                )
                await gate.look(view.rgb, Ask(), Priority.INTERACTIVE, now + SLOW_SECONDS)
                done += began <= time.monotonic() < end

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT * cores())))
    return done / SECONDS


@cache
def _pictures() -> list[bytes]:
    """As large as photographs on the web, and about as much work to decode."""
    rng = np.random.default_rng(0)
    blobs = rng.integers(0, 256, (PICTURES, 120, 160, 3), np.uint8)
    return [pixels.jpeg(pixels.resized(blob, 640, 480), quality=85) for blob in blobs]


def _show(trials: Sequence[Trial], best: Trial) -> None:
    """A table for people who watch; lines for those who read the log."""
    table = Table("backend", "processes x threads", "decoders", "malloc", "images/s", "")
    for choice, rate, failure in trials:
        workers, threads, keeps = choice.split
        verdict = str(failure) if failure else "chosen" * (choice == best.choice)
        log.info("%s: %.0f images a second %s", said(choice), rate, verdict)
        table.add_row(
            choice.backend,
            f"{workers} x {threads}",
            str(choice.decoders),
            "tuned" if keeps else "untouched",
            f"{rate:.0f}",
            verdict,
        )
    if sys.stderr.isatty():
        Console(stderr=True).print(table)


def folder() -> Path:
    """Where choices are remembered, for all servers of this user."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "emojinet" / "choices"


def _key(model: Model, precision: str) -> str:
    """What the speed depends on: the shape of the model, and this machine."""
    facts = {
        "version": VERSION,
        "architecture": asdict(model.architecture),
        "outputs": model.outputs,
        "size_px": model.preprocessing.size_px,
        "exported": "openvino.xml" in model.files,
        "precision": precision,
        "cores": cores(),
        "cpu": _cpu(),
        "packages": {name: _version(name) for name in ("openvino", "torch")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _remembered(path: Path) -> Choice | None:
    try:
        said = json.loads(path.read_text())["choice"]
        return Choice(said["backend"], Split(*said["split"]), said["decoders"])
    except (OSError, ValueError, KeyError, TypeError):  # measured anew, then
        return None


def _remember(path: Path, choice: Choice, trials: Sequence[Trial]) -> None:
    measured = [
        {**asdict(trial.choice), "images_per_second": trial.images_per_second} for trial in trials
    ]
    said = json.dumps({"choice": asdict(choice), "measured": measured}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shards.replace(path, said.encode())
    except (OSError, StorageFailed) as error:
        log.warning("cannot remember the choice: %s; the next start measures again", error)
