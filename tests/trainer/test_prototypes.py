import io

import numpy as np
import pytest
import torch
from PIL import Image

from services.shared.vocabulary import Vocabulary
from services.trainer import prototypes
from services.trainer.batches import Pictures
from services.trainer.learner import Learner
from services.trainer.order import Pick
from services.trainer.recipe import Augment, Recipe

RECIPE = Recipe(
    name="test", steps=1, learning_rate=1e-3, size_px=32, weights="random", warm_start=False
)
VOCABULARY = Vocabulary(("🍕", "🐕", "🌵"), (3, 3, 0))


class Plain:
    """Red and blue pictures in turn."""

    def __init__(self, count: int) -> None:
        self.keys = [f"{number:064x}" for number in range(count)]
        self.classes = [(number % 2,) for number in range(count)]
        self.seen: set[int] = set()

    def read(self, number: int) -> bytes:
        self.seen.add(number)
        file = io.BytesIO()
        colour = (200 + number, 20, 20) if number % 2 == 0 else (20, 20, 200 + number)
        Image.new("RGB", (40, 40), colour).save(file, "PNG")
        return file.getvalue()


def pictures(found: Plain) -> Pictures:
    learner = Learner(RECIPE, VOCABULARY)
    return Pictures(found, learner.preprocessing, len(VOCABULARY), augment=Augment.NONE)


def test_the_head_knows_what_it_saw_before_any_step() -> None:
    found, learner = Plain(12), Learner(RECIPE, VOCABULARY)
    learner.begin(*prototypes.head(learner, pictures(found), 2))
    later = pictures(Plain(12)).load([Pick(number, 0) for number in range(8, 12)])
    with torch.inference_mode():
        said_BK = learner.learned()(later.x)[0][:, :2]
    assert said_BK.argmax(1).tolist() == [0, 1, 0, 1]
    assert found.seen == {0, 1, 2, 3}


def test_an_emoji_without_a_picture_begins_with_nothing() -> None:
    learner = Learner(RECIPE, VOCABULARY)
    weight_KF, bias_K = prototypes.head(learner, pictures(Plain(4)), 2)
    assert not weight_KF[2].any()
    assert bias_K[2] == 0


@pytest.mark.parametrize("each", [1, 3])
def test_it_looks_at_so_many_pictures_of_each_emoji(each: int) -> None:
    found = Plain(20)
    learner = Learner(RECIPE, VOCABULARY)
    prototypes.head(learner, pictures(found), each)
    assert np.bincount([found.classes[number][0] for number in found.seen]).tolist() == [each] * 2
