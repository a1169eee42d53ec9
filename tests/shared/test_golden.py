"""What runs a model must give the answers that were published with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.shared import golden, model
from services.shared.errors import BadModel
from services.shared.golden import Look
from services.shared.model import Model


@pytest.fixture
def published(tiny: Path) -> Model:
    return model.load(tiny)


def look_of(published: Model, change: Callable[[np.ndarray], np.ndarray]) -> Look:
    """A backend that gives the published logits, one probe after the other, changed."""
    rows = iter(change(published.probes().logits.copy()))
    return lambda x_BHWC: (np.stack([next(rows) for _ in x_BHWC]), np.zeros((len(x_BHWC), 6, 1, 1)))


def test_a_backend_that_gives_the_published_answers_may_serve(published: Model) -> None:
    golden.check(published, look_of(published, lambda logits: logits), "exact")
    golden.check(published, look_of(published, lambda logits: logits), "reduced")


def test_a_backend_that_gives_slightly_other_answers_may_not_serve_exactly(
    published: Model,
) -> None:
    def nudge(logits: np.ndarray) -> np.ndarray:
        logits[1, 0] += 0.01
        return logits

    with pytest.raises(BadModel, match="1e-4"):
        golden.check(published, look_of(published, nudge), "exact")
    golden.check(published, look_of(published, nudge), "reduced")


def test_a_backend_with_another_first_place_at_a_clear_margin_may_not_serve_at_all(
    published: Model,
) -> None:
    def turn(logits: np.ndarray) -> np.ndarray:
        return -logits

    for precision in ("exact", "reduced"):
        with pytest.raises(BadModel):
            golden.check(published, look_of(published, turn), precision)


def test_a_backend_that_gives_nan_may_not_serve(published: Model) -> None:
    def spoil(logits: np.ndarray) -> np.ndarray:
        logits[0, 0] = np.nan
        return logits

    with pytest.raises(BadModel, match="not finite"):
        golden.check(published, look_of(published, spoil), "exact")


def test_a_backend_of_another_shape_may_not_serve(published: Model) -> None:
    def lacks_one(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(x_BHWC), 4)), np.zeros((len(x_BHWC), 6, 1, 1))

    def other_map(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(x_BHWC), 5)), np.zeros((len(x_BHWC), 8, 1, 1))

    for look in (lacks_one, other_map):
        with pytest.raises(BadModel, match="not 5 from 6"):
            golden.check(published, look)
