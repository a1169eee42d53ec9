"""What a network's frozen part says of pictures, computed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.shared import shards
from services.trainer import kept, samples
from services.trainer.batches import Features, Pictures
from services.trainer.learner import Learner
from services.trainer.order import Pick
from services.trainer.recipe import Augment, Mode, Recipe
from services.trainer.world import World
from tests.trainer.freezing import freeze
from tests.trainer.test_learner import TINY

RECIPE = replace(TINY, mode=Mode.PARTIAL)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return freeze(tmp_path_factory.mktemp("data"))


def pictures(dataset: Path, augment: Augment = Augment.CROP) -> Pictures:
    known = samples.vocabulary(dataset)
    split = samples.opened(dataset, "train", known)
    return Pictures(split, learner(dataset).preprocessing, len(known), seed=1, augment=augment)


def learner(dataset: Path, recipe: Recipe = RECIPE) -> Learner:
    return Learner(recipe, samples.vocabulary(dataset))


def keep(folder: Path, dataset: Path, views: int, recipe: Recipe = RECIPE) -> Features:
    said: list[str] = []
    found = kept.keep(
        folder,
        learner(dataset, recipe),
        pictures(dataset),
        views,
        world=World.alone(),
        progress=said.append,
    )
    keep.said = said  # type: ignore[attr-defined]
    return found


def test_each_epoch_shows_the_next_view_and_then_the_first_again(
    dataset: Path, tmp_path: Path
) -> None:
    source, one, shown = keep(tmp_path, dataset, 3), learner(dataset), pictures(dataset)
    for epoch in range(5):
        picks = [Pick(number, epoch) for number in (4, 1, 7)]
        seen = [Pick(number, epoch % 3) for number in (4, 1, 7)]
        said, wanted = source.load(picks), one.trunk(shown.load(seen).x)
        assert said.x.shape == wanted.shape
        assert torch.allclose(
            said.x.float(), wanted, rtol=2e-3, atol=2e-3
        )  # kept in half precision
        assert said.numbers_B.tolist() == [4, 1, 7]


def test_a_second_run_finds_what_the_first_has_computed(dataset: Path, tmp_path: Path) -> None:
    first = keep(tmp_path, dataset, 2)
    assert keep.said  # type: ignore[attr-defined]
    second = keep(tmp_path, dataset, 2)
    assert not keep.said  # type: ignore[attr-defined]
    picks = [Pick(number, 0) for number in range(5)]
    assert torch.equal(first.load(picks).x, second.load(picks).x)
    assert len(list(tmp_path.glob("*.npy"))) == 1


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, seed=2),
        replace(RECIPE, mode=Mode.HEAD),
        replace(RECIPE, frozen=0.4),
        replace(RECIPE, augment=Augment.STRONG),
    ],
)
def test_another_recipe_finds_nothing_of_it(dataset: Path, tmp_path: Path, changed: Recipe) -> None:
    keep(tmp_path, dataset, 1)
    keep(tmp_path, dataset, 1, changed)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_picture_that_cannot_be_read_is_left_out(dataset: Path, tmp_path: Path) -> None:
    source = keep(tmp_path, dataset, 1)
    rows = np.array(source._features_RF)
    rows[3] = np.nan
    torn = Features(rows, source.classes, source.outputs, 1, learner(dataset).trunk_shape())
    batch = torn.load([Pick(number, 0) for number in (2, 3, 4)])
    assert batch.numbers_B.tolist() == [2, 4]
    assert len(batch.x) == len(batch.y_BK) == 2


def test_what_is_taken_down_is_not_learned_from_in_the_next_epoch(tmp_path: Path) -> None:
    own = freeze(tmp_path)
    source = keep(tmp_path / "kept", own, 1)
    keys = samples.opened(own, "train", samples.vocabulary(own)).keys
    shards.write_excluded(own, [keys[2]])

    def learned(epoch: int) -> list[int]:
        numbers: list[int] = source.load([Pick(n, epoch) for n in (1, 2, 3)]).numbers_B.tolist()
        return numbers

    assert learned(0) == [1, 2, 3]
    assert learned(1) == [1, 3]
