import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared.errors import TrainingFailed
from services.trainer.calibrate import LEAST, MOST, probabilities, temperature
from services.trainer.evaluate import evaluate


def drawn(scale: float, samples: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `scale` times as sharp as the chances that the truth was drawn with."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(samples, 8)) * 2
    chances = probabilities(logits)
    picked = (chances.cumsum(1) > random.random((samples, 1))).argmax(1)
    return logits * scale, np.eye(8, dtype=bool)[picked]


@settings(max_examples=12)
@given(st.floats(0.1, 20))
def test_the_temperature_undoes_how_much_too_sharp_the_logits_are(scale: float) -> None:
    assert temperature(*drawn(scale)) == pytest.approx(scale, rel=0.1)


def test_no_other_temperature_makes_the_truth_likelier() -> None:
    logits, truth = drawn(3.0)
    truth[:500, 0] = True  # some have two emoji

    def loss(t: float) -> float:
        belief = np.log(probabilities(logits, t))
        return float(-((belief * truth).sum(1) / truth.sum(1)).mean())

    best = temperature(logits, truth)

    assert loss(best) <= min(loss(best * step) for step in (0.9, 0.97, 1.03, 1.1))


def test_the_error_of_calibration_falls_on_samples_that_were_not_fitted_on() -> None:
    fit, judge = drawn(4.0, seed=1), drawn(4.0, seed=2)
    before, after = (
        evaluate(probabilities(judge[0], t), judge[1], counts_K=[1] * 8, resamples=100)
        for t in (1.0, temperature(*fit))
    )

    assert after.metrics["ece"].high < before.metrics["ece"].low / 3
    assert after.metrics["top1"] == before.metrics["top1"]


def test_the_temperature_stays_where_a_model_takes_it() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(30) % 3]
    wrong = np.roll(truth, 1, axis=1)

    assert temperature(truth * 0.001, truth) == pytest.approx(LEAST, rel=1e-3)
    assert temperature(wrong * 1000.0, truth) == pytest.approx(MOST, rel=1e-3)
    assert LEAST <= temperature(np.zeros((4, 3)), truth[:4]) <= MOST


def test_a_model_that_erred_nowhere_is_not_certain_for_that() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(99) % 3]

    sure = probabilities(truth * 50.0, temperature(truth * 50.0, truth)).max()

    assert 0.98 < sure < 0.997  # one error in a hundred, to be seen in the hundredth sample


def test_logits_that_are_no_numbers_are_refused() -> None:
    logits, truth = drawn(1.0, samples=5)
    logits[2, 2] = np.nan

    with pytest.raises(TrainingFailed, match="not finite"):
        temperature(logits, truth)
