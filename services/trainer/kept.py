"""What the frozen part of a network says of every picture, computed once and kept.

A head then learns thousands of times as fast as a whole network, and the last links of one many
times: the frozen part, which is most of the work, is not computed again at every step.
"""

# N samples, V views of each, B batch, K emoji

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from services.shared import network
from services.trainer import features
from services.trainer.batches import Features, Pictures, batches
from services.trainer.learner import Learner
from services.trainer.order import Pick
from services.trainer.world import World

BATCH = 32


def keep(
    folder: Path,
    learner: Learner,
    pictures: Pictures,
    views: int,
    *,
    world: World,
    progress: Callable[[str], None],
) -> Features:
    """Batches of what the trunk says, from a file of the folder, computed if need be.

    Args:
        views: of each picture, as the epochs from 0 on would show them; then they come again.

    Raises as `features.cached`.
    """
    rows = len(pictures.classes) * views
    key = _key(learner, pictures, views)

    def computed() -> Iterator[np.ndarray]:
        done = 0
        for block in _blocks(learner, pictures, views):
            yield block
            done += len(block)
            progress(f"looking at each picture once: {done:,} of {rows:,}")

    if world.main:
        features.cached(folder, key, computed, rows)
    world.add([torch.zeros(1)])  # the others wait here, and find it made
    found = features.cached(folder, key, computed, rows)
    return Features(
        found,
        pictures.classes,
        pictures.outputs,
        views,
        learner.trunk_shape(),
        pictures.present,
    )


def _blocks(learner: Learner, pictures: Pictures, views: int) -> Iterator[np.ndarray]:
    """Rows of half precision, picture by picture; NaN where one cannot be read."""
    count, width = len(pictures.classes), int(np.prod(learner.trunk_shape()))
    at_once = max(1, BATCH // views)
    spans = [range(first, min(first + at_once, count)) for first in range(0, count, at_once)]
    shown = ([Pick(number, view) for number in span for view in range(views)] for span in spans)
    for span, batch in zip(spans, batches(pictures, shown), strict=True):
        rows = np.full((len(span) * views, width), np.nan, np.float16)
        said = learner.trunk(batch.x).flatten(1).cpu().numpy()
        # The views of a picture that can be read are all there, in order.
        first_of = {number: (number - span.start) * views for number in span}
        for number in np.unique(batch.numbers_B):
            rows[first_of[number] : first_of[number] + views] = said[batch.numbers_B == number]
        yield rows


def _key(learner: Learner, pictures: Pictures, views: int) -> str:
    """Names everything that the rows depend on."""
    digest = hashlib.sha256()
    for name, array in network.weights(learner.net).items():
        if name.startswith("backbone."):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    recipe = learner.recipe
    facts = {
        "pictures": pictures.digest,
        "weights": digest.hexdigest(),
        "arithmetic": learner.arithmetic,
        "augment": recipe.augment,
        "seed": recipe.seed,
        "size": recipe.size_px,
        "cut": learner.trunk_shape(),
        "views": views,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
