"""Whole runs: on pictures of noise, with a network of a few thousand weights."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.shared import model, shards
from services.shared.errors import BadDataset, EmojinetError, MalformedRequest, StorageFailed
from services.trainer import checkpoint, run
from services.trainer.events import NAME, Tail
from services.trainer.recipe import Mode, Recipe
from services.trainer.run import Job
from tests.trainer.freezing import freeze
from tests.trainer.test_learner import TINY

pytestmark = pytest.mark.system
RECIPE = replace(TINY, checkpoint_steps=4, evaluate_steps=4)
ROOT = Path(__file__).parents[2]
FINISHED = {"recipe.json", "events.jsonl", "evaluation.json", "report.html", "model"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return freeze(tmp_path_factory.mktemp("data"), 60, px=48)


def job(dataset: Path, output: Path, recipe: Recipe = RECIPE) -> Job:
    return Job(
        recipe=recipe,
        dataset=dataset,
        output=output,
        data=output.parent / "kept",
        model_name="tiny",
    )


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Tail(output / NAME).new() if event["kind"] == kind]


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "run"
    run.run(job(dataset, output))
    return output


def test_a_run_leaves_a_model_its_judgement_and_a_report(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= FINISHED
    made = model.load(finished / "model").check()
    assert made.name == "tiny"
    assert (finished / "report.html").stat().st_size < 5_000_000
    said = json.loads((finished / "evaluation.json").read_text())
    assert {"model", "calibrated", "prior", "chance", "starter"} <= said["test"].keys()
    assert said["temperature"] == made.calibration.temperature
    assert list((finished / "tensorboard").iterdir())


def test_its_events_tell_how_good_it_is_and_that_it_is_done(finished: Path) -> None:
    splits = [event["split"] for event in events(finished, "metrics")]
    assert splits == ["validation", "validation", "test"]  # once on the way, then at the end
    last = events(finished, "metrics")[-1]["metrics"]
    assert {"top1", "prior_top5", "starter_macro_recall", "ece_before", "ece"} <= last.keys()
    assert len(events(finished, "done")) == 1


def test_started_again_it_learns_nothing_twice(finished: Path, dataset: Path) -> None:
    before = checkpoint.newest(finished / "checkpoints")
    run.run(job(dataset, finished))
    after = checkpoint.newest(finished / "checkpoints")
    assert before is not None
    assert after is not None
    assert before.step == after.step == RECIPE.steps
    assert len(events(finished, "done")) == 2


def test_another_recipe_in_the_same_folder_is_refused(finished: Path, dataset: Path) -> None:
    with pytest.raises(MalformedRequest, match="another recipe"):
        run.run(job(dataset, finished, replace(RECIPE, steps=9)))


@pytest.mark.parametrize("mode", [Mode.HEAD, Mode.PARTIAL])
def test_what_is_frozen_is_looked_at_once(mode: Mode, dataset: Path, tmp_path: Path) -> None:
    run.run(job(dataset, tmp_path / "run", replace(RECIPE, mode=mode, views=2)))
    assert list((tmp_path / "kept" / "features").glob("*.npy"))
    assert events(tmp_path / "run", "done")


def copied(dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "set")
    return tmp_path / "set"


def refusal(dataset: Path, tmp_path: Path) -> EmojinetError:
    with pytest.raises(EmojinetError) as caught:
        run.run(job(dataset, tmp_path / "run"))
    assert "\n" not in str(caught.value)
    (said,) = events(tmp_path / "run", "failed")
    assert said["text"] == str(caught.value)
    return caught.value


def test_a_changed_shard_is_named_before_anything_is_learned(dataset: Path, tmp_path: Path) -> None:
    changed = copied(dataset, tmp_path)
    shard = next(iter(sorted((changed / "shards").iterdir())))
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    error = refusal(changed, tmp_path)
    assert isinstance(error, BadDataset)
    assert shard.name in str(error)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_half_written_data_set_is_refused(dataset: Path, tmp_path: Path) -> None:
    half = copied(dataset, tmp_path)
    (half / "dataset.json").unlink()
    assert "not frozen to the end" in str(refusal(half, tmp_path))


def test_an_emoji_without_pictures_is_left_out_and_said(dataset: Path, tmp_path: Path) -> None:
    taken = copied(dataset, tmp_path)
    first = next(shards.read_samples(taken, "train")).emoji[0]
    gone = [s.key for s in shards.read_samples(taken, "train") if first in s.emoji]
    shards.write_excluded(taken, gone)
    run.run(job(taken, tmp_path / "run"))
    (note,) = [e["text"] for e in events(tmp_path / "run", "note") if "no picture" in e["text"]]
    assert first in note
    assert first not in model.load(tmp_path / "run" / "model").vocabulary.emoji


def test_an_output_that_cannot_be_written_is_said_in_a_line(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StorageFailed, match="run"):
        run.run(job(dataset, tmp_path / "run"))


def test_the_ledger_adds_up_to_the_time_that_the_process_took(
    dataset: Path, tmp_path: Path
) -> None:
    settings = {
        "backbone": "test_efficientnet",
        "weights": "random",
        "size_px": 32,
        "steps": 30,
        "batch": 8,
        "mode": "full",
        "views": 0,
    }
    sets = [f"--set={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "services.trainer", "run", "quick", *sets]
    output = tmp_path / "run"
    began = time.monotonic()
    subprocess.run(
        [*command, f"--dataset={dataset}", f"--output={output}", f"--data={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.monotonic() - began
    seconds = events(output, "progress")[-1]["seconds"]
    last = events(output, "done")[-1]["time"] - time.time() + time.monotonic() - began
    assert sum(seconds.values()) == pytest.approx(last, rel=0.02)
    assert sum(seconds.values()) < wall
    assert set(seconds) == {"start", "data_wait", "compute", "checkpoint", "evaluate", "publish"}


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)
