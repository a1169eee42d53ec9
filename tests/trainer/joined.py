"""What processes that train together do with a world; run by torchrun, see `test_world.py`."""

import os
import signal
import sys

import torch

from services.shared.errors import TrainingFailed
from services.trainer.world import World

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def together(world: World) -> None:
    """Cuts, sums and gathers, also where there is not something for everybody."""
    for count in range(2 * world.size + 2):
        torch.manual_seed(count)
        for dtype in DTYPES:
            whole = (torch.rand(count, 2, 3) * 100).to(dtype)
            part = whole[world.share(range(count))]
            assert torch.equal(world.gather(part), whole), (count, dtype)


def uneven(world: World) -> None:
    """Some rows of a part may be missing: broken pictures."""
    mine = torch.arange(world.rank * 10, world.rank * 10 + 2 * world.rank)
    expected = [r * 10 + i for r in range(world.size) for i in range(2 * r)]
    assert world.gather(mine).tolist() == expected


def sums(world: World) -> None:
    """In place, whatever type and layout."""
    x = torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last)
    tensors = [
        x.clone() * (world.rank + 1),
        torch.tensor(world.rank),
        torch.ones(3, requires_grad=True),
        torch.zeros(0),
    ]
    world.add(tensors)
    assert torch.equal(tensors[0], x * sum(range(1, world.size + 1)))
    assert tensors[0].is_contiguous(memory_format=torch.channels_last)
    assert int(tensors[1]) == sum(range(world.size))
    assert tensors[2].tolist() == [world.size] * 3
    world.add([])


def lonely(world: World) -> None:
    """The last one dies; the others say so, unhurried by torchrun, which ends them at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    world.add([torch.ones(1)])  # nobody dies before everybody is there
    if world.rank == world.size - 1:
        os._exit(137)
    try:
        world.add([torch.ones(1000)])
    except TrainingFailed as error:
        print("told:", error, flush=True)


if __name__ == "__main__":
    world = World()
    assert world.main == (world.rank == 0)
    if sys.argv[1:] == ["lonely"]:
        lonely(world)
    else:
        together(world)
        uneven(world)
        sums(world)
        world.close()
        os.write(1, f"done {world.size}\n".encode())  # at once: the others write, too
