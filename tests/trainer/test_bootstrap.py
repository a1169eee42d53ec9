import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.bootstrap import Interval, Judged, paired, weights, wilson


@settings(max_examples=12)
@given(st.integers(1, 300), st.integers(1, 250))
def test_every_resample_draws_as_many_as_there_are(count: int, resamples: int) -> None:
    drawn = np.concatenate(list(weights(count, resamples, seed=1)), axis=1)

    assert drawn.shape == (count, resamples)
    assert (drawn.sum(0) == count).all()


def test_a_sample_is_left_out_of_a_third_of_the_resamples() -> None:
    drawn = np.concatenate(list(weights(400, 300, seed=1)), axis=1)

    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_an_interval_is_the_middle_of_the_draws_and_holds_the_value() -> None:
    draws = np.linspace(0, 1, 1001)

    assert Interval.of(0.5, draws) == pytest.approx((0.5, 0.025, 0.975))
    assert Interval.of(0.99, draws).high == 0.99
    assert Interval.of(0.5, np.append(draws, np.nan)) == Interval.of(0.5, draws)


def test_a_figure_that_there_is_none_of_has_no_interval() -> None:
    assert np.isnan(Interval.of(float("nan"), np.ones(3))).all()
    assert np.isnan(Interval.of(0.5, np.full(3, np.nan)).low)


def test_wilson_s_interval_is_the_one_of_the_books() -> None:
    low, high = wilson(np.array([5, 40]), np.array([5, 100]))

    assert low.tolist() == pytest.approx([0.566, 0.309], abs=1e-3)
    assert high.tolist() == pytest.approx([1.0, 0.498], abs=1e-3)


def test_folds_that_were_resampled_alike_count_as_independent() -> None:
    draws = np.random.default_rng(0).normal(size=1000)
    fold = Judged(0.0, draws), Judged(0.0, np.zeros(1000))

    one, four = paired([fold]), paired([fold] * 4)

    assert four.high - four.low == pytest.approx((one.high - one.low) / 2, rel=0.1)
