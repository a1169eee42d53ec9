"""Photographs with one label each, as samples: what benchmarks learn from and judge on.

Labels are finer than emoji (81 groceries, 10 kinds of clothes), so that an emoji of the inventory
stands in for each. Which one says nothing: these are measurements of learning.
"""

# N samples, F features, K labels, E pairs

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from services.crawler import duplicates
from services.crawler.prescaled import prescaled
from services.shared.vocabulary import Vocabulary, inventory
from services.trainer import kept, photos
from services.trainer.batches import Batch, Features, Pictures, Targets
from services.trainer.learner import Learner
from services.trainer.order import Pick
from services.trainer.recipe import Augment, Mode, Recipe
from services.trainer.world import World

KINDS = ("clothes", "groceries")
NEAR = 0.85  # cosine of features above which two photographs belong into one fold
FOLDS, SEED = 5, 20151109
WORK = Path("data/bench")
ALONE = World.alone()
PLAIN = Recipe(
    name="plain",
    mode=Mode.HEAD,
    augment=Augment.NONE,
    steps=10,
    learning_rate=1e-3,
    warm_start=False,
)
"""What frozen features come from: the view that a server sees."""


class Photographs:
    """Photographs as samples, each of one class."""

    def __init__(self, keys: list[str], paths: list[Path], labels_N: np.ndarray) -> None:
        self.keys, self.paths, self.labels_N = keys, paths, labels_N
        self.classes = [(int(label),) for label in labels_N]

    @classmethod
    def lying(cls, folders: list[Path]) -> Self:
        """Those of `KINDS` in the folders; each label is a class."""
        found = [(photo, path) for photo, path in _found(folders) if _label(photo).kind in KINDS]
        return cls._of(found, [photo.label for photo, _ in found])[0]

    @classmethod
    def meaning(cls, folders: list[Path]) -> tuple[Self, tuple[str, ...]]:
        """All that show what an emoji means, and the emoji, each a class: what the starter says."""
        named = [(photo, path) for photo, path in _found(folders) if _label(photo).emoji]
        often = Counter(_label(photo).emoji[0] for photo, _ in named)
        found = [(p, path) for p, path in named if often[_label(p).emoji[0]] >= 2 * FOLDS]
        return cls._of(found, [_label(photo).emoji[0] for photo, _ in found])

    @classmethod
    def _of(
        cls, found: list[tuple[photos.Photo, Path]], classes: list[str]
    ) -> tuple[Self, tuple[str, ...]]:
        if not found:
            raise SystemExit("None of the photographs of photos.csv lies in the folders.")
        names, labels_N = np.unique(classes, return_inverse=True)
        keys, paths = [photo.sha256 for photo, _ in found], [path for _, path in found]
        return cls(keys, paths, labels_N), tuple(names.tolist())

    def read(self, number: int) -> bytes:
        """As `Samples` has it."""
        return self.paths[number].read_bytes()

    def some(self, numbers_N: np.ndarray) -> "Photographs":
        """A part of them, in this order."""
        return Photographs(
            [self.keys[number] for number in numbers_N],
            [self.paths[number] for number in numbers_N],
            self.labels_N[numbers_N],
        )

    @property
    def outputs(self) -> int:
        """K."""
        return int(self.labels_N.max()) + 1


def _found(folders: list[Path]) -> list[tuple[photos.Photo, Path]]:
    lying = ((photo, photos.found(photo, folders)) for photo in photos.photos())
    return [(photo, path) for photo, path in lying if path]


def _label(photo: photos.Photo) -> photos.Label:
    return photos.labels()[photo.label]


class Chosen(Features):
    """Of what is kept, some samples, perhaps with other classes."""

    def __init__(
        self, whole: Features, numbers_N: np.ndarray, classes: Sequence[tuple[int, ...]]
    ) -> None:
        """Classes are those of the whole."""
        self._whole, self._numbers_N = whole, numbers_N
        self._targets = Targets(classes, whole.outputs)
        self.outputs, self.classes = whole.outputs, [classes[number] for number in numbers_N]

    def load(self, picks: Sequence[Pick]) -> Batch:
        there = [Pick(int(self._numbers_N[pick.number]), pick.epoch) for pick in picks]
        batch = self._whole.load(there)
        return batch._replace(y_BK=self._targets.of(batch.numbers_B))


def folders() -> tuple[list[Path], Path]:
    """Where photographs lie, and where to keep what was computed: from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+", help="where photographs lie")
    parser.add_argument("--work", type=Path, default=WORK, help="keeps what was computed")
    flags = parser.parse_args()
    return flags.folders, flags.work


def stand_ins(counts_K: Sequence[int] | np.ndarray) -> Vocabulary:
    """As many emoji as labels, with these counts."""
    return Vocabulary(
        tuple(emoji.text for emoji in inventory()[: len(counts_K)]), tuple(map(int, counts_K))
    )


def looked(recipe: Recipe, shown: Photographs, work: Path) -> Features:
    """What the recipe's frozen part says of its views of the photographs; kept in the folder."""
    learner = Learner(recipe, stand_ins([1] * shown.outputs))
    pictures = Pictures(
        shown, learner.preprocessing, shown.outputs, seed=recipe.seed, augment=recipe.augment
    )
    return kept.keep(
        work / "features", learner, pictures, max(1, recipe.views), world=ALONE, progress=told
    )


def told(text: str) -> None:
    """Overwrites the line."""
    print(f"\r{text}\033[K", end="", flush=True)


def plain(shown: Photographs, work: Path) -> np.ndarray:
    """Pooled features (N, F) of the plain views."""
    seen = looked(PLAIN, shown, work)
    return seen.load([Pick(number, 0) for number in range(len(shown.keys))]).x.float().numpy()


def folds(shown: Photographs, plain_NF: np.ndarray) -> np.ndarray:
    """A fold for each photograph (N,): near-duplicates in one, labels spread over all."""
    unit_NF = plain_NF / np.linalg.norm(plain_NF, axis=1, keepdims=True)
    alike_E2 = np.argwhere(np.triu(unit_NF @ unit_NF.T > NEAR, 1))
    seen = [prescaled(shown.read(number))[2:4] for number in range(len(shown.keys))]
    hashes_N32 = np.stack([np.frombuffer(pdq, np.uint8) for pdq, _ in seen])
    near_N = duplicates.clusters(hashes_N32, [quality for _, quality in seen])
    near_E2 = np.stack([near_N, np.arange(len(near_N))], axis=1)
    groups_N = duplicates.components(len(near_N), np.concatenate([alike_E2, near_E2]))
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    fold_N = np.zeros(len(near_N), int)
    for fold, (_, judged) in enumerate(splitter.split(plain_NF, shown.labels_N, groups_N)):
        fold_N[judged] = fold
    return fold_N


def macro_recall(said_N: np.ndarray, labels_N: np.ndarray) -> float:
    """The mean over labels of the share that is found."""
    return float(np.mean([(said_N[labels_N == k] == k).mean() for k in np.unique(labels_N)]))
