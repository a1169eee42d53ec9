import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.shared import model, network
from services.shared.errors import BadModel
from services.shared.model import Architecture, Arrays, Calibration, Model

LINEAR = Architecture(backbone="test_efficientnet", features=256, head="linear")
PROJECTED = replace(LINEAR, head="projected", classes=7)
OUTPUTS = 5
EDGE_PX = 96  # a map of three by three


def pictures(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, EDGE_PX, EDGE_PX, 3), np.uint8)


def published(like: Path, folder: Path, architecture: Architecture, weights: Arrays) -> Model:
    """A model with these weights; everything else as in another one."""
    other = model.load(like)
    return model.write(
        folder,
        name="net",
        architecture=architecture,
        preprocessing=other.preprocessing,
        calibration=Calibration(),
        vocabulary=other.vocabulary,
        weights=weights,
        probes=other.probes(),
        card="",
        openvino={},
    )


@pytest.fixture(params=[LINEAR, PROJECTED], ids=["linear", "projected"])
def architecture(request: pytest.FixtureRequest) -> Architecture:
    chosen: Architecture = request.param
    return chosen


@pytest.fixture
def net(tiny: Path, architecture: Architecture) -> network.Network:
    torch.manual_seed(0)
    made = network.Network(architecture, model.load(tiny).preprocessing, OUTPUTS)
    for name, buffer in made.named_buffers():
        if name == "head.table_CK":
            buffer.uniform_(0, 1 / OUTPUTS)
    return network.with_weights(made, network.weights(made))


def test_a_published_network_answers_as_it_did_before(
    tiny: Path, tmp_path: Path, architecture: Architecture, net: network.Network
) -> None:
    again = network.read(published(tiny, tmp_path / "m", architecture, network.weights(net)))

    for before, after in zip(
        network.look(net, pictures()), network.look(again, pictures()), strict=True
    ):
        assert (before == after).all()


def test_pixels_are_normalised_as_the_preprocessing_says(tiny: Path, net: network.Network) -> None:
    seen: list[Any] = []
    net.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.look(net, pictures())

    preprocessing = model.load(tiny).preprocessing
    expected = (pictures() / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert seen[0].numpy() == pytest.approx(expected.transpose(0, 3, 1, 2), abs=1e-6)


def test_a_linear_head_looks_at_the_mean_of_the_feature_map(tiny: Path, tmp_path: Path) -> None:
    net = network.Network(LINEAR, model.load(tiny).preprocessing, OUTPUTS).eval()
    logits, feature_map = network.look(net, pictures())
    weights = network.weights(net)

    expected = feature_map.mean((2, 3)) @ weights["head.weight"].T + weights["head.bias"]
    assert logits == pytest.approx(expected, abs=1e-5)


def test_an_emoji_that_no_class_speaks_for_has_the_floor_as_its_probability(tiny: Path) -> None:
    net = network.Network(PROJECTED, model.load(tiny).preprocessing, OUTPUTS).eval()
    logits, _ = network.look(net, pictures())

    assert logits == pytest.approx(np.log(model.FLOOR))


def refusal(like: Path, folder: Path, architecture: Architecture, weights: Arrays) -> str:
    """What reading the network is refused with: one line about that model."""
    made = published(like, folder, architecture, weights)
    with pytest.raises(BadModel) as caught:
        network.read(made)
    message = str(caught.value)
    assert message.startswith(f"The weights of {folder} do not fit its architecture ")
    assert message.isprintable()
    assert caught.value.metadata == {"path": str(folder)}
    return message


def head(features: int) -> Arrays:
    """The least that passes for a linear head."""
    shapes = {"head.weight": (OUTPUTS, features), "head.bias": (OUTPUTS,)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("backbone", "why"),
    [
        ("no_such_net", "Unknown model"),
        ("efficientvit_b0", "Cannot disable pooling"),
        ("test_vit", "its map has shape (1, "),
    ],
)
def test_a_backbone_that_gives_no_feature_map_is_refused(
    tiny: Path, tmp_path: Path, backbone: str, why: str
) -> None:
    architecture = Architecture(backbone=backbone, features=64, head="linear")
    assert why in refusal(tiny, tmp_path / "m", architecture, head(64))


def test_weights_of_another_backbone_are_refused(tiny: Path, tmp_path: Path) -> None:
    net = network.Network(LINEAR, model.load(tiny).preprocessing, OUTPUTS)
    other = replace(LINEAR, backbone="test_efficientnet_ln")
    assert "backbone." in refusal(tiny, tmp_path / "m", other, network.weights(net))


def test_a_backbone_with_other_features_than_the_head_needs_is_refused(
    tiny: Path, tmp_path: Path
) -> None:
    net = network.Network(LINEAR, model.load(tiny).preprocessing, OUTPUTS)
    weights = network.weights(net) | head(48)
    other = replace(LINEAR, features=48)
    assert "its map has shape (1, 256, " in refusal(tiny, tmp_path / "m", other, weights)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"backbone.conv_stem.weight": None}, "they lack backbone.conv_stem.weight"),
        ({"backbone.conv_stem.weight": (3, 3)}, "has shape (3, 3), not ("),
        ({"surprise\n": (1,)}, r"has no 'surprise\n'"),
    ],
)
def test_a_tensor_too_many_or_too_few_or_of_another_shape_is_named(
    tiny: Path, tmp_path: Path, changed: dict[str, tuple[int, ...] | None], why: str
) -> None:
    weights = network.weights(network.Network(LINEAR, model.load(tiny).preprocessing, OUTPUTS))
    weights |= {name: np.zeros(shape, np.float32) for name, shape in changed.items() if shape}
    weights = {name: array for name, array in weights.items() if changed.get(name, ()) is not None}
    assert why in refusal(tiny, tmp_path / "m", LINEAR, weights)


def test_a_claim_to_be_huge_costs_neither_memory_nor_time(tiny: Path, tmp_path: Path) -> None:
    architecture = Architecture(backbone="regnety_2560", features=7392, head="linear")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()

    refusal(tiny, tmp_path / "m", architecture, head(7392))

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB, of 5 GB
    assert time.monotonic() - started < 20
