"""What helps rare classes: logit adjustment, balanced sampling, or neither, at equal steps.

    python -m tests.bench.imbalance data/photos [MORE …]

Ten kinds of clothes, the most frequent with a hundred times the photographs of the rarest; which
is rare changes with every draw. Judged on as many of each, near-duplicates of which taught nothing.
Only the head learns, from features that are computed once. The last line is `RESULT`.

Smoothed labels are ways of their own: they help plain cross-entropy already.
"""

# N samples, F features, K labels

import json
import time
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from services.trainer import recipe
from services.trainer.batches import Features
from services.trainer.learner import Learner
from services.trainer.order import balanced, batch
from services.trainer.recipe import Recipe
from tests.bench import labelled
from tests.bench.labelled import ALONE, FOLDS, Photographs

IMBALANCE = 100
DRAWS = 4  # of which labels are rare, for each fold
LEAST = 100  # photographs of a label that takes part
RECIPE = replace(
    recipe.read("quick"),
    warm_start=False,
    logit_adjustment=0.0,
    label_smoothing=0.0,
    steps=200,
    batch=64,
)
WAYS = {
    "plain": RECIPE,
    "smoothed": replace(RECIPE, label_smoothing=0.1),
    "adjusted": replace(RECIPE, logit_adjustment=1.0),
    "adjusted and smoothed": replace(RECIPE, logit_adjustment=1.0, label_smoothing=0.1),
    "balanced": replace(RECIPE, balance=1.0),
}


def main() -> None:
    """Prints the table and the RESULT line."""
    began = time.monotonic()
    folders, work = labelled.folders()
    whole = Photographs.lying(folders)
    frequent = np.flatnonzero(np.bincount(whole.labels_N) >= LEAST)
    chosen_N = np.flatnonzero(np.isin(whole.labels_N, frequent))
    plain_NF = labelled.plain(whole, work)
    fold_N = labelled.folds(whole, plain_NF)[chosen_N]
    labels_N = np.searchsorted(frequent, whole.labels_N[chosen_N])
    plain_NF = plain_NF[chosen_N]
    recalls: dict[str, list[float]] = {way: [] for way in WAYS}
    for fold in range(FOLDS):
        judged_N = as_many(labels_N, np.flatnonzero(fold_N == fold))
        for draw in range(DRAWS):
            random = np.random.default_rng([fold, draw])
            taught_N = long_tail(labels_N, np.flatnonzero(fold_N != fold), random)
            labelled.told(f"fold {fold + 1} of {FOLDS}, draw {draw + 1} of {DRAWS}")
            for way, how in WAYS.items():
                head = learned(how, plain_NF, labels_N, taught_N)
                recall = labelled.macro_recall(said(head, plain_NF[judged_N]), labels_N[judged_N])
                recalls[way].append(recall)
    print("RESULT", json.dumps(shown(recalls) | {"minutes": (time.monotonic() - began) / 60}))


def as_many(labels_N: np.ndarray, numbers_N: np.ndarray) -> np.ndarray:
    """Of the numbers, the first of each label, as many of each."""
    least = np.bincount(labels_N[numbers_N]).min()
    firsts = [numbers_N[labels_N[numbers_N] == k][:least] for k in np.unique(labels_N)]
    return np.concatenate(firsts)


def long_tail(
    labels_N: np.ndarray, numbers_N: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Of the numbers, ever fewer of each label, in an order that chance decides."""
    most = np.bincount(labels_N[numbers_N]).min()
    labels = random.permutation(labels_N.max() + 1)
    shares = IMBALANCE ** -np.linspace(0, 1, len(labels))
    return np.concatenate(
        [
            random.permutation(numbers_N[labels_N[numbers_N] == k])[: max(1, round(most * share))]
            for k, share in zip(labels, shares, strict=True)
        ]
    )


@torch.inference_mode()
def said(head: nn.Module, plain_NF: np.ndarray) -> np.ndarray:
    """Which label a head puts first."""
    first_N: np.ndarray = head(torch.from_numpy(plain_NF)).argmax(1).numpy()
    return first_N


def learned(
    how: Recipe, plain_NF: np.ndarray, labels_N: np.ndarray, taught_N: np.ndarray
) -> nn.Module:
    """A head, learned from some of the samples."""
    outputs = int(labels_N.max()) + 1
    classes = [(int(label),) for label in labels_N[taught_N]]
    learner = Learner(how, labelled.stand_ins(np.bincount(labels_N[taught_N], minlength=outputs)))
    source = Features(plain_NF[taught_N], classes, outputs)
    weights_N = balanced(classes, outputs, how.balance) if how.balance else None
    for step in range(how.steps):
        picks = batch(how.seed, step, how.batch, len(taught_N), weights_N)
        learner.step(step, source.load(picks), ALONE)
    return learner.learned().head


def shown(recalls: dict[str, list[float]]) -> dict[str, float]:
    """The means, printed with the spread of the draws."""
    table = Table(f"imbalance {IMBALANCE}", "macro recall", "gain", "least gain", "greatest")
    plain = np.array(recalls["plain"])
    for way, values in recalls.items():
        gains = np.array(values) - plain
        cells = (np.mean(values), gains.mean(), gains.min(), gains.max())
        table.add_row(way, *(f"{cell:.3f}" for cell in cells))
    Console().print(table)
    means = {way: float(np.mean(values)) for way, values in recalls.items()}
    best = max(means["adjusted"], means["balanced"])
    return means | {
        "gain": best - means["plain"],
        "gain_over_smoothed": best - means["smoothed"],
        "draws": len(plain),
    }


if __name__ == "__main__":
    main()
