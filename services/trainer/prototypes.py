"""A head that begins as a classifier by nearest class mean, from a few pictures of each emoji.

A backbone that learns beside a head of random rows first learns to please them; with 500 classes
that takes longer than all the rest, and harms what it knew (arXiv:2202.10054).
"""

# B batch, M pictures, F features, K outputs

from collections.abc import Sequence

import numpy as np
import torch

from services.trainer.batches import Pictures, batches
from services.trainer.learner import Learner, device
from services.trainer.order import Pick

BATCH = 32
SCALE = 16.0  # of the logits: of a picture's cosine with a mean, both seen from the common mean
LEAST = 1e-6


def head(learner: Learner, pictures: Pictures, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (K, F) and biases (K,) by the first `each` pictures of every emoji."""
    chosen = _first(pictures.classes, pictures.outputs, each)
    picks = [[Pick(n, 0) for n in chosen[at : at + BATCH]] for at in range(0, len(chosen), BATCH)]
    with torch.inference_mode():
        seen = [
            (learner.net(batch.x.to(device()))[1].mean((2, 3)).cpu(), batch.y_BK)
            for batch in batches(pictures, iter(picks))
        ]
    x_MF, y_MK = torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])
    length = x_MF.norm(dim=1).mean().clamp(min=LEAST)
    unit_MF = torch.nn.functional.normalize(x_MF)
    means_KF = (y_MK.T @ unit_MF) / y_MK.sum(0)[:, None].clamp(min=LEAST)
    known_K1 = (y_MK.sum(0) > 0)[:, None]
    centre_F = unit_MF.mean(0)
    spread = (unit_MF - centre_F).norm(dim=1).mean().clamp(min=LEAST)
    rows_KF = torch.nn.functional.normalize((means_KF - centre_F) * known_K1)
    rows_KF *= SCALE / (spread * length)
    return rows_KF, -(rows_KF @ centre_F) * length


def _first(classes: Sequence[tuple[int, ...]], outputs: int, each: int) -> list[int]:
    """The numbers of the first pictures of every emoji."""
    left_K = np.full(outputs, each)
    chosen = []
    for number, own in enumerate(classes):
        if any(left_K[place] > 0 for place in own):
            chosen.append(number)
            left_K[list(own)] -= 1
    return chosen
