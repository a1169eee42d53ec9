import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.shared.errors import TrainingFailed
from services.trainer.world import World

ROOT = Path(__file__).parents[2]


def joined(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [f"--nproc-per-node={size}", "-m", "tests.trainer.joined", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@given(st.lists(st.integers()), st.integers(1, 9))
def test_the_parts_one_after_the_other_are_the_whole(items: list[int], size: int) -> None:
    world = World.alone()
    world.size = size
    parts = []
    for world.rank in range(size):
        parts.append(world.share(items))
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_the_whole_is_mine() -> None:
    world, x = World.alone(), torch.rand(3, 2)
    before = x.clone()
    world.add([x])
    assert torch.equal(world.gather(x), before)
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.main
    world.close()


def test_torchruns_world_of_one_is_alone() -> None:
    assert World({"RANK": "0", "WORLD_SIZE": "1"}).size == 1


def test_a_world_that_nobody_started_is_said() -> None:
    with pytest.raises(TrainingFailed, match="do not find each other; start them with torchrun"):
        World({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.system
@pytest.mark.parametrize("size", [2, 3])
def test_together_they_sum_and_gather_exactly(size: int) -> None:
    done = joined(size)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done", str(size)] * size


@pytest.mark.system
def test_who_lost_another_says_so() -> None:
    done = joined(2, "lonely")
    assert "told: The processes of this training cannot go on: one of them has died" in done.stdout
