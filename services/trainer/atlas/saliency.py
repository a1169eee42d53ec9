"""Where a model sees an emoji, and whether that has to do with what it has learned.

The check is that of Adebayo et al. 2018, "Sanity Checks for Saliency Maps": the same network with
random weights explains the same picture; if its map is much the same, the map tells of the picture
and not of the model.
"""

# h w cells of the feature map

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from services.shared.model import Model
from services.shared.saliency import Explainer
from services.trainer import lens
from services.trainer.atlas import seen
from services.trainer.atlas.corpus import Corpus

MOST_CHECKED = 160
LEVELS = 9  # of a cell's evidence, as a digit


class Explained(NamedTuple):
    """A map for one emoji in one picture."""

    picture: int
    cells: Sequence[int]
    """Row by row, each from 0 to 9."""
    width: int
    agreement: float
    """Rank correlation with the map of random weights; NaN where it was not asked."""


def explained(
    corpus: Corpus, chosen: Model, asked: Sequence[tuple[int, int]]
) -> list[Explained | None]:
    """Maps for pairs of a picture and an output of the model; none where it cannot be read."""
    if not asked:
        return []
    look, explainer = lens.opened(chosen), Explainer(chosen)
    views = list(seen.views(corpus, chosen, [picture for picture, _ in asked]))
    maps = [
        None if view is None else explainer.explain(look(view[None])[1][0], output)
        for view, (_, output) in zip(views, asked, strict=True)
    ]
    # Evenly over all, so that the check is of no part of them.
    there = [place for place, cells in enumerate(maps) if cells is not None]
    checked = there[:: max(1, -(-len(there) // MOST_CHECKED))]
    random = _random_maps(chosen, [(views[place], asked[place][1]) for place in checked])
    agreement = dict(zip(checked, random, strict=True))
    return [
        None
        if cells is None
        else Explained(
            picture,
            np.round(cells * LEVELS).astype(int).ravel().tolist(),
            cells.shape[1],
            _agreement(cells, agreement[place]) if place in agreement else float("nan"),
        )
        for place, ((picture, _), cells) in enumerate(zip(asked, maps, strict=True))
    ]


def _random_maps(chosen: Model, asked: Sequence[tuple[np.ndarray | None, int]]) -> list[np.ndarray]:
    """What the same architecture says that has learned nothing."""
    import torch

    from services.shared import network

    torch.manual_seed(0)
    net = network.Network(chosen.architecture, chosen.preprocessing, chosen.outputs).eval()
    shuffled = np.random.Generator(np.random.Philox(0))
    name = "head.classifier.weight" if chosen.architecture.head == "projected" else "head.weight"
    weight = chosen.weights()[name]
    rows = shuffled.permuted(weight, axis=1)
    maps = []
    for view, output in asked:
        assert view is not None
        map_Fhw = network.look(net, view[None])[1][0]
        map_Fhw = (map_Fhw - map_Fhw.mean()) / (map_Fhw.std() + 1e-9)
        maps.append(np.einsum("f,fhw->hw", rows[output % len(rows)], map_Fhw))
    return maps


def _agreement(one_hw: np.ndarray, other_hw: np.ndarray) -> float:
    """Spearman's rank correlation."""
    ranks = [np.argsort(np.argsort(cells.ravel(), kind="stable")) for cells in (one_hw, other_hw)]
    if one_hw.std() == 0 or other_hw.std() == 0:
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
