"""`make prove-resume` in short, and the same training by one process and by two."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer import checkpoint
from services.trainer.events import NAME, Tail
from tests.prove import resume
from tests.prove.resume import Folders

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
STEPS = 6
# Each process has its own batch norms: they would follow half of the pictures.
SETTINGS: dict[str, Any] = {**resume.SETTINGS, "adapt_norms": False, "steps": STEPS}


def test_a_training_that_is_killed_learns_what_it_would_have_learned(tmp_path: Path) -> None:
    found = resume.prove(4, tmp_path, seed=3)
    assert found["kills"] == 4
    assert found["identical"] == 1
    assert found["worst_lost_steps"] <= resume.INTERVAL


def trained(folders: Folders, size: int) -> Path:
    """The folder of a run by so many processes."""
    output = folders.root / f"world-{size}"
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    sets = [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    where = [f"--dataset={folders.dataset}", f"--output={output}", f"--data={folders.root}"]
    program = ["-m", "tests.prove.teller", "run", "quick", *where, *sets]
    subprocess.run([sys.executable, *torchrun, *program], cwd=ROOT, check=True)
    return output


def told(output: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Tail(output / NAME).new() if event["kind"] == kind]


def test_two_processes_learn_and_judge_as_one_does(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    resume.dataset(folders.dataset)
    (folders.root / "world-2").mkdir()
    alone = trained(folders, 1)
    # As for one: each world measures which arithmetic is the fastest.
    (folders.root / "world-2" / resume.PLAN).write_bytes((alone / resume.PLAN).read_bytes())
    both = trained(folders, 2)
    losses = [[event["loss"] for event in told(run, "progress")] for run in (alone, both)]
    assert len(losses[0]) >= STEPS
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    images = [told(run, "progress")[-1]["images"] for run in (alone, both)]
    assert images[0] == images[1] == STEPS * SETTINGS["batch"]
    states = [checkpoint.newest(run / "checkpoints") for run in (alone, both)]
    assert states[0] is not None
    assert states[1] is not None
    for name, tensor in states[0].tensors.items():
        assert torch.allclose(tensor, states[1].tensors[name], rtol=1e-3, atol=1e-4), name
    for one, two in zip(told(alone, "metrics"), told(both, "metrics"), strict=True):
        assert one["split"] == two["split"]
        for name, interval in one["metrics"].items():
            assert two["metrics"][name] == pytest.approx(interval, abs=1e-3), name
