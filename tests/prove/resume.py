"""`make prove-resume`: a training that is killed again and again learns what it would have learned.

Runs are killed with SIGKILL at random instants, and die by themselves at every named fault point
within the writing of checkpoints. The weights that each ends with are compared, bit for bit, with
those of a run nobody disturbed. Then: what it costs to go on, early and late in a long run.
"""

import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from threading import Lock
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from services.shared import faults
from services.trainer import checkpoint
from services.trainer.events import NAME, Tail
from tests import photographs

STEPS, INTERVAL = 240, 5
# All that a step may change is in use: moments, averages, batch norms, draws, schedules.
SETTINGS: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "weights": "random",
    "mode": "full",
    "adapt_norms": True,
    "size_px": 32,
    "batch": 12,
    "at_once": 8,
    "balance": 0.5,
    "augment": "strong",
    "precision": "float32",
    "checkpoint_steps": INTERVAL,
}
EMOJI, PICTURES, EDGE_PX = ("pizza", "dog_face", "red_heart"), 12, 96
PLAN = "recipe.json"  # says with which arithmetic, which a run measures once
LONGEST_SECONDS = 1.5  # between a process's first step and its death
FAULT_SHARE, STARTING_SHARE = 0.5, 0.2  # of deaths: at a fault point; of the others, so early
STARTING_SECONDS = 6.0
KILLS_EACH = 12  # of one run, at most
LONG, LATE = 1_000_000, 900_000  # steps
STARTS = 3  # at each position
PATIENCE_SECONDS = 120.0


class Folders(NamedTuple):
    """Where everything lies."""

    root: Path

    @property
    def dataset(self) -> Path:
        return self.root / "pictures"

    @property
    def reference(self) -> Path:
        return self.root / "reference"

    @property
    def victims(self) -> Path:
        """What came of the runs so far, a line each."""
        return self.root / "victims.jsonl"


class Training:
    """A context: a run's process; leaving it kills the process, unless it has ended before."""

    def __init__(self, folders: Folders, output: Path, steps: int, fault: str = "") -> None:
        self._tail, self._log = Tail(output / NAME), output.with_suffix(".log")
        self._tail.new()  # of earlier processes
        self.first = 0  # step that this process has done
        settings = {**SETTINGS, "steps": steps}
        sets = (f"--set={name}={json.dumps(value)}" for name, value in settings.items())
        where = (f"--dataset={folders.dataset}", f"--output={output}", f"--data={folders.root}")
        self._command = [sys.executable, "-m", "tests.prove.teller", "run", "quick", *where, *sets]
        self._environment = os.environ | ({"EMOJINET_FAULT": fault} if fault else {})

    def __enter__(self) -> "Training":
        self.began = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def patient(self) -> None:
        """Waits a moment; raises when there were too many, or it has failed."""
        time.sleep(0.002)
        self.ended()
        if time.monotonic() > self.began + PATIENCE_SECONDS:
            raise TimeoutError("a training does not come to its end")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def steps(self) -> list[int]:
        """Which steps it has done since this was asked."""
        steps = [event["step"] for event in self._tail.new() if event["kind"] == "progress"]
        if steps and not self.first:
            self.first = steps[0]
        return steps

    def ended(self) -> bool:
        """Whether it has come to its good end; raises if to another than its death."""
        status = self.process.poll()
        if status not in (None, 0, 137, -signal.SIGKILL):
            raise RuntimeError(f"a training failed:\n{self._log.read_text()[-2000:]}")
        return status == 0


class Fate(NamedTuple):
    """How a process is to die; by default it is not."""

    fault: str = ""
    """A point and its count."""
    seconds: float = math.inf
    at_work: bool = False
    """Whether the seconds begin with its first step, not with its start."""


class Victim:
    """A run that is killed until it has ended all the same."""

    def __init__(
        self, folders: Folders, output: Path, draw: random.Random, points: Iterator[str]
    ) -> None:
        self._folders, self._output, self._draw, self._points = folders, output, draw, points
        self.deaths: list[str] = []
        self.reached, self.lost = 0, [0]  # the last step that was done; how many were in vain

    def live(self, most: int) -> None:
        """Dies up to `most` times, each in its own way, and then comes to its end."""
        while True:
            fate = self._fate() if len(self.deaths) < most else Fate()
            with Training(self._folders, self._output, STEPS, fate.fault) as training:
                self._watch(training, fate)
            if training.ended():
                return
            self.deaths.append(fate.fault.partition(":")[0] or "SIGKILL")

    def _fate(self) -> Fate:
        if self._draw.random() < FAULT_SHARE:
            return Fate(f"{next(self._points)}:{self._draw.randint(1, 8)}")
        if self._draw.random() < STARTING_SHARE:
            return Fate("", self._draw.uniform(0, STARTING_SECONDS))
        return Fate("", self._draw.uniform(0, LONGEST_SECONDS), at_work=True)

    def _watch(self, training: Training, fate: Fate) -> None:
        """Waits for its end, which may be brought about."""
        since = math.inf if fate.at_work else training.began
        while training.process.poll() is None:
            if self._count(training) and since == math.inf:
                since = time.monotonic()
            if time.monotonic() > since + fate.seconds:
                training.kill()
            training.patient()
        self._count(training)

    def _count(self, training: Training) -> bool:
        """Notes the steps it has done since the last look, and says whether it has done any."""
        fresh = not training.first
        steps = training.steps()
        if fresh and training.first:
            self.lost.append(max(0, self.reached - (training.first - 1)))
        self.reached = max([self.reached, *steps])
        return training.first > 0


def dataset(folder: Path) -> None:
    """A few small photographs of each emoji."""
    jpegs = photographs.make(EDGE_PX, EDGE_PX, len(EMOJI) * PICTURES, seed=3)
    for number, jpeg in enumerate(jpegs):
        split = ("train", "validation", "test")[max(0, number // len(EMOJI) + 3 - PICTURES)]
        path = folder / split / EMOJI[number % len(EMOJI)] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)


def weights(output: Path) -> list[str]:
    """Digests of what a run ends with: all its state, and the weights that it would publish."""
    paths = (
        output / "checkpoints" / f"{STEPS:08}.safetensors",
        output / "model" / "weights.safetensors",
    )
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def undisturbed(folders: Folders) -> None:
    """The reference."""
    with on_core(0):
        Victim(folders, folders.reference, random.Random(0), iter(())).live(0)


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Has processes that this thread starts run on one core: all with as many threads."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def victims(folders: Folders, kills: int, seed: int, end: float) -> None:
    """Kills runs, one on each core, until so many kills are made or the time is over."""
    numbers, lock, left = SimpleQueue[int](), Lock(), [kills]
    points = cycle(faults.TRAINER)
    begun = len(told(folders))
    for number in range(begun, begun + kills):
        numbers.put(number)
    expected, cores = weights(folders.reference), len(os.sched_getaffinity(0))

    def lane(core: int) -> None:
        with on_core(core):
            while True:
                with lock:
                    most = min(KILLS_EACH, left[0], math.ceil(kills / cores))
                    left[0] -= most
                if most == 0 or time.monotonic() > end:
                    return
                number = numbers.get()
                output = folders.root / f"victim-{number}"
                shutil.rmtree(output, ignore_errors=True)
                output.mkdir()
                shutil.copy(folders.reference / PLAN, output)
                draw = random.Random(seed * 1000 + number)
                victim = Victim(folders, output, draw, points)
                victim.live(most)
                same = weights(output) == expected
                with lock:
                    left[0] += most - len(victim.deaths)  # it came to its end too soon
                    tell(folders, victim, same)
                shutil.rmtree(output)

    with ThreadPoolExecutor(cores) as pool:
        for done in [pool.submit(lane, core) for core in range(cores)]:
            done.result()


def tell(folders: Folders, victim: Victim, same: bool) -> None:
    """Writes down what came of a run."""
    said = {"deaths": victim.deaths, "lost": max(victim.lost), "identical": same}
    with folders.victims.open("a") as file:
        file.write(json.dumps(said) + "\n")
    deaths = sum(len(each["deaths"]) for each in told(folders))
    print(f"{deaths} kills; this run: {len(victim.deaths)}, identical: {same}", flush=True)


def told(folders: Folders) -> list[dict[str, Any]]:
    """What came of the runs so far."""
    if not folders.victims.exists():
        return []
    return [json.loads(line) for line in folders.victims.read_text().splitlines()]


def resuming(folders: Folders) -> dict[str, float]:
    """Seconds from a process's start to its first step, early and late in a long run."""
    first = folders.root / "long"
    with Training(folders, first, LONG) as training:
        while not (first / "checkpoints" / f"{INTERVAL:08}.json").exists():
            training.patient()
        training.kill()
    found = checkpoint.newest(first / "checkpoints")
    assert found is not None
    seconds: dict[int, list[float]] = {found.step: [], LATE: []}
    for step in list(seconds) * STARTS:
        output = folders.root / f"at-{step}"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        shutil.copy(first / PLAN, output)
        checkpoint.save(output / "checkpoints", step, found.tensors, found.facts)
        with Training(folders, output, LONG) as training:
            while not training.steps():
                training.patient()
            seconds[step].append(time.monotonic() - training.began)
            assert training.first == step + 1
    early, late = (median(each) for each in seconds.values())
    return {"resume_early_seconds": early, "resume_late_seconds": late}


def prove(kills: int, folder: Path, seed: int = 1, limit_seconds: float = 3600.0) -> dict[str, Any]:
    """Goes on with what is in the folder until so many kills are made; what came of them."""
    folders, end = Folders(folder), time.monotonic() + limit_seconds
    if not folders.dataset.exists():
        dataset(folders.root / "pictures.new")
        (folders.root / "pictures.new").rename(folders.dataset)
    if not (folders.reference / "model" / "manifest.json").exists():
        undisturbed(folders)
    made = sum(len(each["deaths"]) for each in told(folders))
    victims(folders, max(0, kills - made), seed, end)
    found = told(folders)
    return {
        "kills": sum(len(each["deaths"]) for each in found),
        "identical": int(all(each["identical"] for each in found)),
        "worst_lost_steps": max(each["lost"] for each in found),
        "runs": len(found),
        "fault_points": len({death for each in found for death in each["deaths"]} - {"SIGKILL"}),
        "steps": STEPS,
        "checkpoint_steps": INTERVAL,
    }


def show(folders: Folders) -> None:
    """How the runs died."""
    tally = Counter(death for each in told(folders) for death in each["deaths"])
    table = Table("died of", "times")
    for how, times in sorted(tally.items()):
        table.add_row(how, str(times))
    Console().print(table)


def main(
    kills: Annotated[int, typer.Option(min=1)] = 100,
    folder: Annotated[Path, typer.Option(help="For what is found until the end.")] = Path(
        "data/prove-resume"
    ),
    limit_seconds: Annotated[float, typer.Option(help="After which no run is begun.")] = 1500.0,
) -> None:
    """Kills trainings, and compares what they learn with what an undisturbed one learns."""
    folder.mkdir(parents=True, exist_ok=True)
    result = prove(kills, folder, limit_seconds=limit_seconds)
    result |= resuming(Folders(folder))
    show(Folders(folder))
    print("RESULT", json.dumps(result))
    if result["kills"] >= kills:
        shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
