"""The loop, on a network of a few thousand weights and pictures of noise."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.shared.errors import TrainingFailed
from services.trainer import checkpoint
from services.trainer.batches import Batch, Features
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger
from services.trainer.order import Pick
from services.trainer.recipe import Mode
from services.trainer.train import Stopped, train
from services.trainer.world import World
from tests.trainer.test_learner import KNOWN, TINY, copied, same

RECIPE = replace(TINY, mode=Mode.HEAD, steps=12, batch=8, at_once=8, checkpoint_steps=5)
ALONE = World.alone()
CLASSES = [(number % 5,) for number in range(20)]


class Slow(Features):
    """Features that take their time."""

    seconds = 0.0
    kill_at: int | None = None

    def load(self, picks: Sequence[Pick]) -> Batch:
        time.sleep(self.seconds)
        return super().load(picks)


@pytest.fixture
def source() -> Slow:
    draw = np.random.default_rng(0)
    return Slow(draw.normal(size=(20, 256)).astype(np.float32), CLASSES, 5)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def trained(source: Features, folder: Path, **changed: Any) -> tuple[Learner, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    learner = Learner(replace(RECIPE, **changed), KNOWN)
    train(
        learner,
        source,
        folder,
        ledger=Ledger(),
        world=ALONE,
        tell=lambda **said: told.append(said),
    )
    return learner, told


def test_it_takes_all_steps_and_tells_of_them(source: Slow, tmp_path: Path) -> None:
    _, told = trained(source, tmp_path)
    last = told[-1]
    assert (last["step"], last["steps"], last["images"]) == (12, 12, 96)
    assert last["remaining_seconds"] == 0
    assert last["images_per_second"] > 0
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 12


class Kill(Exception):
    pass


def test_one_that_died_goes_on_from_its_newest_checkpoint(source: Slow, tmp_path: Path) -> None:
    whole, _ = trained(source, tmp_path / "whole")

    class Dying(Slow):
        left = 9

        def load(self, picks: Sequence[Pick]) -> Batch:
            self.left -= 1
            if not self.left:
                raise Kill
            return super().load(picks)

    dying = Dying(source._features_RF, CLASSES, 5)
    with pytest.raises(Kill):
        trained(dying, tmp_path / "died")
    found = checkpoint.newest(tmp_path / "died")
    assert found is not None
    assert found.step == 5
    again, told = trained(source, tmp_path / "died")
    assert told[0]["step"] > 5
    assert same(copied(again.state()), copied(whole.state()))


def test_a_term_signal_writes_a_checkpoint_first(source: Slow, tmp_path: Path) -> None:
    class Asked(Slow):
        left = 4

        def load(self, picks: Sequence[Pick]) -> Batch:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().load(picks)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        trained(Asked(source._features_RF, CLASSES, 5), tmp_path)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert 1 <= found.step < 12
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_not_finite_ends_it_and_the_last_checkpoint_stays(
    source: Slow, tmp_path: Path
) -> None:
    trained(source, tmp_path, steps=5)
    torn = Features(np.full((20, 256), np.inf, np.float32), CLASSES, 5)
    with pytest.raises(TrainingFailed, match="smaller learning_rate") as caught:
        trained(torn, tmp_path, steps=10)
    assert "at step 5" in str(caught.value)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert all(torch.isfinite(t).all() for t in found.tensors.values())


def test_waiting_for_pictures_is_charged_to_waiting(source: Slow, tmp_path: Path) -> None:
    ledger = Ledger()
    source.seconds = 0.3
    learner = Learner(RECIPE, KNOWN)
    said: list[float] = []
    train(
        learner,
        source,
        tmp_path,
        ledger=ledger,
        world=ALONE,
        tell=lambda **progress: said.append(progress["data_wait_share"]),
    )
    assert ledger.seconds["data_wait"] > 1.2  # twelve times, two at a time, less what is computed
    assert 0.3 < said[-1] <= 1


def test_the_judge_is_asked_as_often_as_the_recipe_says(source: Slow, tmp_path: Path) -> None:
    asked: list[int] = []
    train(
        Learner(replace(RECIPE, evaluate_steps=4), KNOWN),
        source,
        tmp_path,
        ledger=Ledger(),
        world=ALONE,
        tell=lambda **said: None,
        judge=asked.append,
    )
    assert asked == [4, 8]  # after the last step comes the final judgement


def test_balanced_sampling_shows_rare_emoji_as_often(tmp_path: Path) -> None:
    seen = np.zeros(5)
    classes = [(0,)] * 80 + [(k,) for k in (1, 2, 3, 4) for _ in range(5)]

    class Counting(Features):
        def load(self, picks: Sequence[Pick]) -> Batch:
            batch = super().load(picks)
            seen[:] += batch.y_BK.sum(0).numpy()
            return batch

    noise = np.random.default_rng(0).normal(size=(100, 256)).astype(np.float32)
    trained(Counting(noise, classes, 5), tmp_path, balance=1.0, steps=50, checkpoint_steps=50)
    assert seen.max() < 1.5 * seen.min()
