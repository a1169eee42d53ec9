"""What learning the last links of the network gains on photographs, over a head alone.

    python -m tests.bench.photos data/photos [MORE …]

In 5 folds, near-duplicates together: the recipe `photos`, and beside it the best linear probe, a
logistic regression on frozen features whose decay is chosen within the training folds. Then the
same with a random label added to every second sample, judged on clean ones. Last, how soon a head
that begins with the starter's table knows its emoji, and one that begins with nothing.

What was computed is kept in `data/bench`: a second call goes on. The last line is `RESULT`.
"""

# N samples, F features, K labels

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from services.shared.vocabulary import Vocabulary
from services.trainer import calibrate, recipe
from services.trainer.batches import Features, Pictures
from services.trainer.bootstrap import paired
from services.trainer.evaluate import Evaluation, evaluate
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger
from services.trainer.look import look
from services.trainer.order import batch
from services.trainer.recipe import Recipe
from services.trainer.train import train
from tests.bench import labelled
from tests.bench.labelled import ALONE, FOLDS, PLAIN, SEED, Chosen, Photographs

TAGGED = 0.5  # random labels for each true one
DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0)  # inverse: what scikit-learn calls C
RECIPE = replace(recipe.read("photos"), warm_start=False)
WARM = replace(PLAIN, steps=200, batch=256, learning_rate=1e-3, ema=0.0)
WARM_AT = (0, 1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
GOALS = {"half": 0.5, "most": 0.9}  # of what the cold head reaches in the end

Classes = Sequence[tuple[int, ...]]


class Fold(NamedTuple):
    """Which samples teach, and which are judged on."""

    number: int
    taught_N: np.ndarray
    tried_N: np.ndarray
    """Of those that teach, a part to choose the probe's decay on."""
    judged_N: np.ndarray


def main() -> None:
    """Prints the tables and the RESULT line."""
    began = time.monotonic()
    folders, work = labelled.folders()
    shown = Photographs.lying(folders)
    plain_NF = labelled.plain(shown, work)
    fold_N = labelled.folds(shown, plain_NF)
    clean = compared(shown, plain_NF, fold_N, shown.classes, work / "photos-clean")
    tagged = compared(shown, plain_NF, fold_N, with_tags(shown), work / "photos-tagged")
    show({"clean": clean, "random tags": tagged})
    gain = paired([(clean["tuned"].judged("top1"), clean["probe"].judged("top1"))])
    recall_gain = paired(
        [(clean["tuned"].judged("macro_recall"), clean["probe"].judged("macro_recall"))]
    )
    clean_recall, tagged_recall = (
        judged["tuned"].metrics["macro_recall"].value for judged in (clean, tagged)
    )
    result = {
        "finetune_gain": list(gain),
        "recall_gain": list(recall_gain),
        "probe_top1": clean["probe"].metrics["top1"].value,
        "finetune_top1": clean["tuned"].metrics["top1"].value,
        "clean_recall": clean_recall,
        "tagged_recall": tagged_recall,
        "tags_recall_share": tagged_recall / clean_recall,
        **warm_start(folders, work),
        "photographs": len(shown.keys),
        "labels": shown.outputs,
        "folds": FOLDS,
        "minutes": (time.monotonic() - began) / 60,
    }
    print("RESULT", json.dumps(result))


def with_tags(shown: Photographs) -> Classes:
    """The classes, and for every second sample, drawn by seed, another that is not its own."""
    random = np.random.Generator(np.random.Philox(SEED))
    classes: list[tuple[int, ...]] = list(shown.classes)
    for number in random.permutation(len(classes))[: round(TAGGED * len(classes))]:
        own = classes[number][0]
        classes[number] = (own, int(own + random.integers(1, shown.outputs)) % shown.outputs)
    return classes


def compared(
    shown: Photographs, plain_NF: np.ndarray, fold_N: np.ndarray, classes: Classes, work: Path
) -> dict[str, Evaluation]:
    """Probe and network, learned from the classes, judged on the photographs' own."""
    maps = labelled.looked(RECIPE, shown, work.parent)
    said = {kind: np.zeros((len(fold_N), shown.outputs), np.float32) for kind in ("probe", "tuned")}
    for number in range(FOLDS):
        tried_N = np.flatnonzero(fold_N == (number + 1) % FOLDS)
        judged_N = np.flatnonzero(fold_N == number)
        fold = Fold(number, np.flatnonzero(fold_N != number), tried_N, judged_N)
        path = work / f"{number}.npz"
        if not path.exists():
            labelled.told(f"{work.name}: fold {number + 1} of {FOLDS}")
            work.mkdir(parents=True, exist_ok=True)
            np.savez(
                path,
                judged_N=judged_N,
                probe=probe(plain_NF, classes, fold, shown.outputs),
                tuned=tuned(shown, maps, classes, fold, work),
            )
        with np.load(path) as kept:
            assert (kept["judged_N"] == fold.judged_N).all(), f"{work} is of other photographs"
            for kind, all_NK in said.items():
                all_NK[fold.judged_N] = kept[kind]
    truth_NK = np.eye(shown.outputs, dtype=bool)[shown.labels_N]
    counts_K = np.bincount(shown.labels_N)
    return {kind: evaluate(all_NK, truth_NK, counts_K=counts_K) for kind, all_NK in said.items()}


def probe(plain_NF: np.ndarray, classes: Classes, fold: Fold, outputs: int) -> np.ndarray:
    """Probabilities (N, K) of a logistic regression on frozen features, with the best decay."""

    def fitted(decay: float, numbers_N: np.ndarray) -> LogisticRegression:
        # A sample with two labels is there twice, each time half.
        rows = [(n, place, 1 / len(classes[n])) for n in numbers_N for place in classes[n]]
        numbers_R, places_R, shares_R = map(np.array, zip(*rows, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it might go on a little
            return LogisticRegression(C=decay, max_iter=300).fit(
                plain_NF[numbers_R], places_R, shares_R
            )

    own_N = np.array([own[0] for own in classes])

    def score(decay: float) -> float:
        tried = fitted(decay, np.setdiff1d(fold.taught_N, fold.tried_N))
        return float(tried.score(plain_NF[fold.tried_N], own_N[fold.tried_N]))

    best = fitted(max(DECAYS, key=score), fold.taught_N)
    said_NK = np.zeros((len(fold.judged_N), outputs), np.float32)
    said_NK[:, best.classes_] = best.predict_proba(plain_NF[fold.judged_N])
    return said_NK


def tuned(
    shown: Photographs, maps: Features, classes: Classes, fold: Fold, work: Path
) -> np.ndarray:
    """Probabilities (N, K) of the network, of the pictures as a server sees them."""
    source = Chosen(maps, fold.taught_N, classes)
    counts_K = np.bincount([k for own in source.classes for k in own], minlength=shown.outputs)
    learner = Learner(RECIPE, labelled.stand_ins(counts_K))
    folder = work / f"checkpoints-{fold.number}"
    train(learner, source, folder, ledger=Ledger(), world=ALONE, tell=lambda **_: None)
    judged = shown.some(fold.judged_N)
    pictures = Pictures(judged, learner.preprocessing, shown.outputs)
    return calibrate.probabilities(look(learner.learned(), pictures, ALONE).logits_NK)


def warm_start(folders: list[Path], work: Path) -> dict[str, float | None]:
    """Macro recall before the first step, and steps to the goals, with the starter's table or not.

    Of emoji, not of labels: what the table knows. Only the head learns.
    """
    shown, emoji = Photographs.meaning(folders)
    plain_NF = labelled.plain(shown, work)
    judged = labelled.folds(shown, plain_NF) == 0
    recalls = {
        warm: rise(shown, emoji, plain_NF, judged, replace(WARM, warm_start=warm))
        for warm in (False, True)
    }
    cold = recalls[False]
    table = Table("macro recall after steps", *map(str, WARM_AT))
    for warm, values in recalls.items():
        table.add_row("warm" if warm else "cold", *(f"{value:.2f}" for value in values))
    Console().print(table)
    result: dict[str, float | None] = {"warm_emoji": len(emoji)}
    for warm, values in recalls.items():
        name = "warm" if warm else "cold"
        result[f"{name}_begins"] = values[0]
        for goal, share in GOALS.items():
            reached = (at for at, v in zip(WARM_AT, values, strict=True) if v >= share * cold[-1])
            result[f"{name}_steps_to_{goal}"] = next(reached, None)
    return result


def rise(
    shown: Photographs,
    emoji: tuple[str, ...],
    plain_NF: np.ndarray,
    judged: np.ndarray,
    recipe: Recipe,
) -> list[float]:
    """Macro recall after each number of steps."""
    counts_K = np.bincount(shown.labels_N[~judged], minlength=len(emoji))
    learner = Learner(recipe, Vocabulary(emoji, tuple(counts_K.tolist())))
    taught_N = np.flatnonzero(~judged)
    source = Features(
        plain_NF[taught_N], [shown.classes[number] for number in taught_N], len(emoji)
    )
    recalls = []
    for step in range(WARM_AT[-1] + 1):
        if step in WARM_AT:
            with torch.inference_mode():
                said_N = learner.net.head(torch.from_numpy(plain_NF[judged])).argmax(1).numpy()
            recalls.append(labelled.macro_recall(said_N, shown.labels_N[judged]))
        picks = batch(recipe.seed, step, recipe.batch, len(taught_N))
        learner.step(step, source.load(picks), ALONE)
    return recalls


def show(kinds: dict[str, dict[str, Evaluation]]) -> None:
    """Prints what each reaches."""
    table = Table("labels", "", "top-1", "macro recall", "ECE")
    for name, judged in kinds.items():
        for kind, evaluation in judged.items():
            figures = (evaluation.metrics[key] for key in ("top1", "macro_recall", "ece"))
            table.add_row(
                name, kind, *(f"{v:.3f} ({low:.3f}-{high:.3f})" for v, low, high in figures)
            )
    Console().print(table)


if __name__ == "__main__":
    main()
