"""What models see in every picture: looked at once, in blocks that are kept on the disk.

A block is a thousand pictures; when some are taken down, only their blocks are looked at again.
All that is said later comes from the pooled features, so that what is kept and what is computed
anew are the same numbers.
"""

# S pictures, F features, K outputs, C classes

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.shared import model
from services.shared.cores import cores
from services.shared.errors import EmojinetError
from services.shared.golden import Look
from services.shared.model import FLOOR, Model
from services.trainer import features, lens
from services.trainer.atlas.corpus import Corpus

VERSION = 1  # of what is kept
BLOCK, BATCH = 1000, 16

Progress = Callable[[int, int], None]


class Seen(NamedTuple):
    """What one model makes of the pictures; NaN in rows of those that cannot be read."""

    features_SF: np.ndarray
    """Half precision."""
    model: Model

    @property
    def readable_S(self) -> np.ndarray:
        """Whether each picture could be read."""
        return np.isfinite(self.features_SF[:, 0])


def look(corpus: Corpus, chosen: Model, folder: Path, progress: Progress) -> Seen:
    """Looks at every picture, or remembers.

    Raises:
        BadModel: the model is not usable.
        StorageFailed: the disk is full or failing.
    """
    opened: list[Look] = []

    def ask(x_BHWC: np.ndarray) -> np.ndarray:
        if not opened:  # what is remembered needs no model
            opened.append(lens.opened(chosen))
        return opened[0](x_BHWC)[1].mean((2, 3), dtype=np.float32)

    blocks, count = [], len(corpus.keys)
    for first in range(0, count, BLOCK):
        numbers = range(first, min(first + BLOCK, count))

        def computed(numbers: range = numbers) -> Iterator[np.ndarray]:
            for rows in _rows(corpus, chosen, ask, numbers):
                yield rows
                progress(numbers.start + len(rows), count)

        key = _key(chosen, [corpus.keys[number] for number in numbers])
        blocks.append(np.array(features.cached(folder, key, computed, len(numbers))))
        progress(numbers.stop, count)
    return Seen(np.concatenate(blocks), chosen)


def views(corpus: Corpus, chosen: Model, numbers: Sequence[int]) -> Iterator[np.ndarray | None]:
    """The square that the model sees of each picture; none where it cannot be read."""

    def view(number: int) -> np.ndarray | None:
        try:
            return model.view(chosen.preprocessing, corpus.read(number))
        except EmojinetError:
            return None

    with ThreadPoolExecutor(cores()) as pool:
        for first in range(0, len(numbers), 4 * BATCH):
            yield from pool.map(view, numbers[first : first + 4 * BATCH])


def _rows(
    corpus: Corpus, chosen: Model, ask: Callable[[np.ndarray], np.ndarray], numbers: range
) -> Iterator[np.ndarray]:
    """One block of rows, in batches whose limits never change: another batch rounds otherwise."""
    found = list(views(corpus, chosen, numbers))
    rows = np.full((len(numbers), chosen.architecture.features), np.nan, np.float16)
    there = [(place, view) for place, view in enumerate(found) if view is not None]
    for first in range(0, len(there), BATCH):
        places, squares = zip(*there[first : first + BATCH], strict=True)
        rows[list(places)] = ask(np.stack(squares))
    yield rows


def _key(chosen: Model, keys: Sequence[str]) -> str:
    facts = f"atlas {VERSION} {chosen.name} {chosen.version}\n" + "\n".join(keys)
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


# -- what follows from features -------------------------------------------------------------------


def class_beliefs(chosen: Model, features_SF: np.ndarray) -> np.ndarray:
    """(S, C) of a projected head: how much it believes in each class."""
    weights = chosen.weights()
    x_SF = features_SF.astype(np.float32)
    return _softmax(x_SF @ weights["head.classifier.weight"].T + weights["head.classifier.bias"])


def emoji_beliefs(chosen: Model, features_SF: np.ndarray) -> np.ndarray:
    """(S, K): the model's calibrated probabilities of its emoji."""
    weights = chosen.weights()
    if "head.table_CK" in weights:
        belief_SC = class_beliefs(chosen, features_SF)
        logits = np.log(belief_SC @ weights["head.table_CK"] + FLOOR)
    else:
        logits = features_SF.astype(np.float32) @ weights["head.weight"].T + weights["head.bias"]
    return chosen.probabilities(logits)


def _softmax(logits_NC: np.ndarray) -> np.ndarray:
    belief_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return belief_NC / belief_NC.sum(1, keepdims=True)
