"""How much faster a fine-tune step is than the obvious one, and a head's epoch from kept features.

    python -m tests.bench.train

The obvious step: the whole of EfficientNet-Lite0 at 224 px in float32, channels first, batch norms
in training, AdamW, in as many threads as there are cores. Ours: the same network and pictures with
the first part frozen (`mode=partial`), in the arithmetic that the probe chooses; the same from kept
maps; and a head from kept features, sampling and all. Rounds alternate in one process; the last
line is `RESULT` with ratios of medians.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from services.shared import starter
from services.shared.vocabulary import Vocabulary
from services.trainer import kept, order, probe
from services.trainer.batches import Batch, Pictures, batches
from services.trainer.learner import Learner
from services.trainer.recipe import Augment, Mode, Recipe, read
from services.trainer.world import World
from tests.photographs import make

ROUNDS, BATCH, EMOJI, PICTURES = 7, 32, 500, 256
HEAD_STEPS = 40
ALONE = World.alone()


class Drawn(NamedTuple):
    """Pictures in memory, with an emoji each."""

    contents: list[bytes]
    keys: list[str]
    classes: list[tuple[int, ...]]

    def read(self, number: int) -> bytes:
        return self.contents[number]


def drawn() -> Drawn:
    """Photographs of the size that data sets keep."""
    contents = make(341, 256, PICTURES)
    keys = [f"{number:064x}" for number in range(PICTURES)]
    return Drawn(contents, keys, [(number % EMOJI,) for number in range(PICTURES)])


def vocabulary() -> Vocabulary:
    return Vocabulary(starter.vocabulary().emoji[:EMOJI], (1,) * EMOJI)


class Naive:
    """What a first script does."""

    def __init__(self) -> None:
        self._net = timm.create_model("tf_efficientnet_lite0", num_classes=EMOJI).train()
        self._optimizer = torch.optim.AdamW(self._net.parameters(), 1e-3)
        self._loss = nn.CrossEntropyLoss()

    def step(self, batch: Batch) -> None:
        x = (batch.x.float() / 255 - 0.498) / 0.502
        loss = self._loss(self._net(x.permute(0, 3, 1, 2).contiguous()), batch.y_BK)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def per_second(images: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def measured(folder: Path, console: Console) -> dict[str, list[float]]:
    """Images a second of each way, round by round."""
    partial = Recipe(
        name="bench", steps=1000, learning_rate=1e-3, mode=Mode.PARTIAL, batch=BATCH, at_once=BATCH
    )
    head = read("quick")
    pictures = Pictures(drawn(), starter.PREPROCESSING, EMOJI, augment=Augment.CROP)
    batch = pictures.load(order.batch(0, 0, BATCH, PICTURES))
    naive = Naive()
    arithmetic, rates = probe.choose(partial, vocabulary())
    for name, rate in sorted(rates.items(), key=lambda one: -one[1]):
        console.print(f"probe: {rate:6.1f} images/s  {name}", style="dim")
    learner = Learner(partial, vocabulary(), arithmetic)
    features = {}
    for name, recipe, views in (("maps", partial, 1), ("head", head, 1)):
        one = Learner(recipe, vocabulary(), arithmetic)
        source = kept.keep(folder, one, pictures, views, world=ALONE, progress=lambda text: None)
        features[name] = (one, source, recipe.batch)

    def ours() -> None:
        learner.step(1, batch, ALONE)

    def from_kept(name: str, steps: int) -> None:
        one, source, size = features[name]
        picks = (order.batch(0, step, size, PICTURES) for step in range(steps))
        for step, loaded in enumerate(batches(source, picks)):
            one.step(step, loaded, ALONE)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "naive": (BATCH, lambda: naive.step(batch)),
        "partial": (BATCH, ours),
        "partial, kept maps": (4 * BATCH, lambda: from_kept("maps", 4)),
        "head, kept features": (HEAD_STEPS * 256, lambda: from_kept("head", HEAD_STEPS)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for images, work in ways.values():
        per_second(images, work)  # warm
    for _ in range(ROUNDS):
        for name, (images, work) in ways.items():
            found[name].append(per_second(images, work))
    return found


def main() -> None:
    console = Console()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), console)
    table = Table("way", "images/s", "lowest", "highest", "times naive", box=None)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    for name, rates in found.items():
        ratio = medians[name] / medians["naive"]
        table.add_row(
            name,
            *(f"{rate:,.1f}" for rate in (medians[name], min(rates), max(rates))),
            f"{ratio:,.1f}",
        )
    console.print(table)
    names = {"step": "partial", "maps": "partial, kept maps", "head": "head, kept features"}
    result = {f"{key}_ratio": round(medians[n] / medians["naive"], 2) for key, n in names.items()}
    print("RESULT " + json.dumps(result | {"naive": round(medians["naive"], 2), "rounds": ROUNDS}))


if __name__ == "__main__":
    main()
