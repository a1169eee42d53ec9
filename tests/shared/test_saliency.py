import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from services.shared import model, saliency
from services.shared.model import Architecture, Calibration, Model
from services.shared.network import Projection
from services.shared.saliency import Explainer

FEATURES, CLASSES, EMOJI = 6, 7, 5
SILENT = 4  # the emoji that no class speaks for

maps = arrays.arrays(
    np.float32, (FEATURES, 4, 3), elements=st.floats(0, 8, width=32, allow_subnormal=False)
)


@pytest.fixture(scope="module")
def linear(tiny: Path) -> Model:
    return model.load(tiny)


@pytest.fixture(scope="module")
def projected(linear: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    draw = np.random.default_rng(3)
    table_CK = draw.dirichlet(np.ones(EMOJI + 1), CLASSES).astype(np.float32)
    table_CK[:, SILENT] = 0
    table_CK /= table_CK.sum(1, keepdims=True)  # so that log-probabilities are the logits
    return model.write(
        tmp_path_factory.mktemp("projected") / "m",
        name="projected",
        architecture=Architecture(
            backbone="resnet18", features=FEATURES, head="projected", classes=CLASSES
        ),
        preprocessing=linear.preprocessing,
        calibration=Calibration(none=True),
        vocabulary=linear.vocabulary,
        weights={
            "head.classifier.weight": draw.normal(size=(CLASSES, FEATURES)).astype(np.float32),
            "head.classifier.bias": draw.normal(size=CLASSES).astype(np.float32),
            "head.table_CK": table_CK,
        },
        probes=replace(
            linear.probes(), logits=np.zeros((len(linear.probes().jpegs), EMOJI + 1), np.float32)
        ),
        card="",
        openvino={},
    )


@pytest.fixture(scope="module", params=["linear", "projected"])
def either(request: pytest.FixtureRequest) -> Model:
    chosen: Model = request.getfixturevalue(request.param)
    return chosen


def head(explained: Model) -> torch.nn.Module:
    """The head as PyTorch runs it."""
    weights = explained.weights()
    outputs = explained.outputs
    made: torch.nn.Module = (
        Projection(FEATURES, CLASSES, outputs)
        if explained.architecture.head == "projected"
        else torch.nn.Linear(FEATURES, outputs)
    )
    state = {
        name.removeprefix("head."): torch.tensor(array)
        for name, array in weights.items()
        if name.startswith("head.")
    }
    made.load_state_dict(state)
    return made


def gradient(explained: Model, map_Fhw: np.ndarray, output: int) -> np.ndarray:
    """Torch's own, by the pooled features: of the log-probability, or of a linear head's logit."""
    x_F = torch.tensor(map_Fhw.mean((1, 2)), requires_grad=True)
    logits_K = head(explained)(x_F[None])[0]
    if explained.architecture.head == "projected":
        logits_K = torch.log_softmax(logits_K / explained.calibration.temperature, 0)
    logits_K[output].backward()
    assert x_F.grad is not None
    found: np.ndarray = x_F.grad.numpy()
    return found


@given(map_Fhw=maps, output=st.integers(0, EMOJI - 1))
def test_evidence_lies_between_nothing_and_one(
    either: Model, map_Fhw: np.ndarray, output: int
) -> None:
    evidence_hw = Explainer(either).explain(map_Fhw, output)

    assert evidence_hw.shape == (4, 3)
    assert 0 <= evidence_hw.min() <= evidence_hw.max() <= 1


@given(map_Fhw=maps, output=st.integers(0, EMOJI - 2))
def test_evidence_is_the_gradient_times_the_map(
    either: Model, map_Fhw: np.ndarray, output: int
) -> None:
    row_F = gradient(either, map_Fhw, output)
    positive_hw = np.maximum(np.einsum("f,fhw->hw", row_F, map_Fhw), 0)
    assume(positive_hw.max() > 1e-3)  # below, floats differ by as much

    expected = positive_hw / positive_hw.max()
    assert Explainer(either).explain(map_Fhw, output) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("where", [(0, 0), (2, 3), (4, 1)])
def test_the_cell_that_speaks_for_an_emoji_is_found(either: Model, where: tuple[int, int]) -> None:
    output = 1
    quiet = np.full((FEATURES, 5, 4), 0.1, np.float32)
    row_F = gradient(either, quiet, output)
    quiet[:, *where] += np.maximum(row_F, 0) / np.abs(row_F).max()  # what this emoji looks like

    evidence_hw = Explainer(either).explain(quiet, output)

    assert evidence_hw[where] == evidence_hw.max() == pytest.approx(1)
    assert np.sort(evidence_hw.ravel())[-2] < 0.5


def test_where_nothing_speaks_for_an_emoji_there_is_no_evidence(linear: Model) -> None:
    against = -np.sign(linear.weights()["head.weight"][0])[:, None, None]
    map_Fhw = np.broadcast_to(against, (FEATURES, 4, 3)).astype(np.float32)

    assert (Explainer(linear).explain(map_Fhw, 0) == 0).all()


def test_an_emoji_that_no_class_speaks_for_is_seen_nowhere(projected: Model) -> None:
    map_Fhw = np.random.default_rng(0).normal(size=(FEATURES, 4, 3)).astype(np.float32)

    assert gradient(projected, map_Fhw, SILENT) == pytest.approx(0, abs=1e-6)
    assert (Explainer(projected).explain(map_Fhw, SILENT) == 0).all()


@pytest.mark.parametrize(("shape", "edge_px"), [((7, 7), 224), ((1, 1), 64), ((4, 3), 32)])
def test_the_picture_is_a_grey_square_png(shape: tuple[int, int], edge_px: int) -> None:
    evidence_hw = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    with Image.open(io.BytesIO(saliency.to_png(evidence_hw, edge_px))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (edge_px, edge_px))


def test_the_picture_is_bright_where_the_evidence_is() -> None:
    evidence_hw = np.zeros((7, 7), np.float32)
    evidence_hw[1, 5] = 1
    with Image.open(io.BytesIO(saliency.to_png(evidence_hw, 224))) as image:
        grey = np.asarray(image)

    assert grey[48, 176] > 200  # in the middle of the cell
    assert grey[:, :96].max() == 0
