"""Which arithmetic trains fastest here: measured at the start of a run, and kept with it.

No rule of thumb holds: on a CPU with bf16 units, bfloat16 makes the frozen part somewhat faster and
the learning part, with its depthwise convolutions, much slower (tests/bench/results).
"""

import time
from collections.abc import Iterator
from itertools import product

import torch

from services.shared.vocabulary import Vocabulary
from services.trainer.batches import Batch
from services.trainer.learner import Arithmetic, Learner, device
from services.trainer.recipe import Mode, Precision, Recipe
from services.trainer.world import World

IMAGES = 8
STEPS = 3  # timed, after one that is not; the fastest counts


def choose(recipe: Recipe, vocabulary: Vocabulary) -> tuple[Arithmetic, dict[str, float]]:
    """The fastest arithmetic that the recipe allows, and images a second of each that was tried."""
    rates = {}
    for arithmetic in _candidates(recipe):
        rates[arithmetic] = _rate(Learner(recipe, vocabulary, arithmetic))
    best = max(rates, key=lambda arithmetic: rates[arithmetic])
    return best, {_label(arithmetic): rate for arithmetic, rate in rates.items()}


def _candidates(recipe: Recipe) -> Iterator[Arithmetic]:
    allowed = {
        Precision.AUTO: (False, True),
        Precision.FLOAT32: (False,),
        Precision.BFLOAT16: (True,),
    }[recipe.precision]
    trunks = (False,) if recipe.mode is Mode.FULL else allowed
    tails = (False,) if recipe.mode is Mode.HEAD else allowed
    for trunk, tail, last in product(trunks, tails, (True, False)):
        yield Arithmetic(trunk, tail, last)


def _rate(learner: Learner) -> float:
    edge, outputs = learner.recipe.size_px, len(learner.vocabulary)
    x = torch.randint(0, 256, (IMAGES, edge, edge, 3), dtype=torch.uint8)
    batch = Batch(x, torch.full((IMAGES, outputs), 1 / outputs), torch.arange(IMAGES).numpy())
    alone = World.alone()
    seconds = []
    for number in range(STEPS + 1):
        began = time.perf_counter()
        learner.step(number, batch, alone)
        if device().type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return IMAGES / min(seconds[1:])


def _label(arithmetic: Arithmetic) -> str:
    names = {False: "float32", True: "bfloat16"}
    layout = "channels last" if arithmetic.channels_last else "channels first"
    return (
        f"frozen part {names[arithmetic.trunk_bfloat16]}, rest {names[arithmetic.tail_bfloat16]}, "
        f"{layout}"
    )
