"""What a network says of every picture of a split, as it would say it in service."""

# N samples, B batch, K outputs

from typing import NamedTuple

import numpy as np
import torch

from services.shared.network import Network
from services.trainer.batches import Pictures, batches, sweep
from services.trainer.learner import device
from services.trainer.world import World

BATCH = 32


class Seen(NamedTuple):
    """The pictures that could be read, with what was said of them."""

    numbers_N: np.ndarray
    logits_NK: np.ndarray


@torch.inference_mode()
def look(net: Network, pictures: Pictures, world: World) -> Seen:
    """Eager float32, over all processes of the world; the same for every size of it."""
    edge = pictures.size_px
    nothing = net(torch.zeros(1, edge, edge, 3, dtype=torch.uint8, device=device()))[0][:0].cpu()
    numbers, logits = [torch.zeros(0, dtype=torch.int64)], [nothing]
    shares = (world.share(picks) for picks in sweep(len(pictures.classes), BATCH * world.size))
    for batch in batches(pictures, shares):
        if len(batch.numbers_B):
            numbers.append(torch.from_numpy(batch.numbers_B))
            logits.append(net(batch.x.to(device()))[0].cpu())
    numbers_N, logits_NK = world.gather(torch.cat(numbers)), world.gather(torch.cat(logits))
    order_N = torch.argsort(numbers_N)
    return Seen(numbers_N[order_N].numpy(), logits_NK[order_N].numpy())
