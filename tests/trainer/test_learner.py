"""On networks of a few thousand weights: what is tested is what learns, not how well."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from services.shared import network, starter
from services.shared.errors import BadModel, MalformedRequest
from services.shared.vocabulary import Vocabulary
from services.trainer import learner
from services.trainer.batches import Batch
from services.trainer.learner import Arithmetic, Learner
from services.trainer.recipe import Mode, Recipe
from services.trainer.world import World

EMOJI = ("🍕", "🐕", "❤️", "🌅", "🚗")
KNOWN = Vocabulary(EMOJI, (50, 20, 15, 10, 5))
TINY = Recipe(
    name="tiny",
    steps=8,
    learning_rate=3e-3,
    backbone="test_efficientnet",
    weights="random",
    size_px=32,
    batch=6,
    at_once=4,
    warmup=0.0,
)
ALONE = World.alone()


def made(arithmetic: Arithmetic = learner.EXACT, **changed: Any) -> Learner:
    return Learner(replace(TINY, **changed), KNOWN, arithmetic)


def batch(seed: int = 0, count: int = 6, edge: int = 32) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, edge, edge, 3), dtype=torch.uint8, generator=draw)
    y_BK = torch.eye(len(EMOJI))[torch.randint(0, len(EMOJI), (count,), generator=draw)]
    return Batch(x, y_BK, np.arange(count))


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone(memory_format=torch.contiguous_format) for name, t in state.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of the network whose weights are others."""
    names = (name for name in before if not torch.equal(before[name], after[name]))
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("arithmetic", [Arithmetic(), Arithmetic(True, True, False)])
def test_a_restored_learner_goes_on_bit_for_bit(mode: Mode, arithmetic: Arithmetic) -> None:
    one = made(arithmetic, mode=mode, adapt_norms=mode is Mode.FULL)
    for number in range(3):
        one.step(number, batch(number), ALONE)
    state = copied(one.state())
    other = made(arithmetic, mode=mode, adapt_norms=mode is Mode.FULL)
    other.restore(state)
    for number in range(3, 6):
        assert one.step(number, batch(number), ALONE) == other.step(number, batch(number), ALONE)
    assert same(one.state(), other.state())
    assert same(one.learned().state_dict(), other.learned().state_dict())


def test_what_is_frozen_stays_and_the_rest_learns() -> None:
    moved = {}
    for mode in Mode:
        one = made(mode=mode, ema=0.0)
        before = copied(one.net.state_dict())
        one.step(0, batch(), ALONE)
        moved[mode] = changed(before, one.net.state_dict())
        frozen = sum(not p.requires_grad for p in one.net.parameters())
        assert (frozen > 0) is (mode is not Mode.FULL)
    assert moved == {Mode.FULL: {"backbone", "head"}, Mode.PARTIAL: {"backbone", "head"}} | {
        Mode.HEAD: {"head"}
    }


def test_batch_norms_follow_the_data_only_where_they_are_asked_to() -> None:
    def counted(adapt: bool) -> bool:
        one = made(adapt_norms=adapt)
        before = copied(one.net.state_dict())
        one.step(0, batch(), ALONE)
        return any("running_mean" in n and not torch.equal(before[n], t)
                   for n, t in one.net.state_dict().items())  # fmt: skip

    assert counted(True)
    assert not counted(False)


def test_how_many_images_are_computed_at_once_changes_next_to_nothing() -> None:
    losses = [made(at_once=size).step(0, batch(), ALONE) for size in (1, 4, 6, 100)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def test_learning_the_same_pictures_over_and_over_is_learned() -> None:
    one = made(steps=60, learning_rate=1e-2, label_smoothing=0.0)
    losses = [one.step(number, batch(), ALONE) for number in range(60)]
    assert losses[-1] < 0.3 * losses[0]


def test_earlier_layers_learn_more_slowly() -> None:
    one = made(layer_decay=0.5, weight_decay=0.0)
    before = copied(one.net.state_dict())
    one.step(0, batch(), ALONE)
    after = one.net.state_dict()

    def moved(name: str) -> float:
        return float((after[name] - before[name]).abs().max())

    # Adam's first step is as large as the rate, whatever the gradient.
    assert moved("head.weight") == pytest.approx(3e-3, rel=0.01)
    assert moved("backbone.conv_head.weight") == pytest.approx(1.5e-3, rel=0.01)
    assert moved("backbone.conv_stem.weight") < 0.2e-3


def test_a_batch_of_nothing_changes_no_weight() -> None:
    one = made(weight_decay=0.0)
    before = copied(one.net.state_dict())
    assert one.step(0, batch(count=0), ALONE) == 0.0
    assert changed(before, one.net.state_dict()) == set()


def test_logit_adjustment_pulls_toward_rare_emoji() -> None:
    rare = torch.eye(5)[torch.tensor([4] * 6)]
    x = batch().x

    def loss(strength: float) -> float:
        one = made(logit_adjustment=strength, label_smoothing=0.0)
        return one.step(0, Batch(x, rare, np.arange(6)), ALONE)

    assert loss(1.0) > loss(0.0) + 1.0  # a rare emoji has to be believed in more


def test_what_the_trunk_says_can_be_kept() -> None:
    for mode in (Mode.PARTIAL, Mode.HEAD):
        one, other = made(mode=mode), made(mode=mode)
        seen = batch()
        said = one.trunk(seen.x)
        assert tuple(said.shape[1:]) == one.trunk_shape()
        direct = one.step(0, seen, ALONE)
        assert other.step(0, seen._replace(x=said), ALONE) == pytest.approx(direct, rel=1e-5)


def test_the_chain_of_a_backbone_computes_what_the_backbone_does() -> None:
    for name in ("test_efficientnet", "test_resnet", "test_convnext", "tf_efficientnet_lite0"):
        one = Learner(replace(TINY, backbone=name), KNOWN)
        links = learner.chain(one.net.backbone, 32)
        assert len(links) > 4, name


def test_a_backbone_that_is_no_chain_is_frozen_as_a_whole() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.left(x), self.right(x)], 1)

    forked = Forked()
    assert learner.chain(forked, 32) == [forked]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"backbone": "efficientnet_b77"}, "timm cannot build 'efficientnet_b77'"),
        ({"backbone": "../../etc"}, "timm cannot build"),
        ({"backbone": "test_vit", "size_px": 160}, "choose a convolutional network"),
        ({"backbone": "resnet18", "weights": "imagenet"}, "no ImageNet weights here"),
    ],
)
def test_a_backbone_that_cannot_be_used_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        made(**changed)


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel):
        made(weights=str(tmp_path))


def test_a_warm_head_knows_what_the_starter_knows() -> None:
    known = Vocabulary(("🍕", "🐕", "🚗"), (1, 1, 1))
    recipe = replace(TINY, backbone="tf_efficientnet_lite0", weights="imagenet")
    warm, cold = (Learner(replace(recipe, warm_start=start), known) for start in (True, False))
    pizza = starter.lite0(list(network.Network(starter.IMAGENET, starter.PREPROCESSING, 1)
                               .state_dict()))["head.classifier.weight"][963]  # fmt: skip
    for one, knows in ((warm, True), (cold, False)):
        scores = one.net.head.weight.detach().numpy() @ (pizza / np.linalg.norm(pizza))
        assert bool(scores.argmax() == 0 and scores[0] > 0.5) is knows
