import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.curve import EVERY, OUTLIER, Curve, worthwhile

FLAT = {1: 0.0080, 2: 0.0159, 4: 0.0318}
STEEP = {1: 0.008, 2: 0.009, 4: 0.011, 8: 0.015}


def test_a_larger_batch_must_be_worth_waiting_for() -> None:
    assert worthwhile(FLAT) == [0.0080]
    assert len(worthwhile(STEEP)) == 8


def test_what_batches_take_in_service_replaces_what_they_took_at_load() -> None:
    curve = Curve({1: 0.010, 2: 0.0199})
    relative = curve.relative
    assert relative == [1.0]

    for _ in range(10 * EVERY):
        curve.observe(1, 0.013)

    assert curve.seconds[1] == pytest.approx(0.013, rel=0.01)
    assert curve.relative is relative
    assert len(relative) == 2
    assert curve.image_seconds == curve.seconds[1]
    assert curve.capacity == pytest.approx(2 / 0.0199)


def test_one_batch_that_hung_changes_little() -> None:
    curve = Curve(STEEP)

    curve.observe(8, 10.0)

    assert curve.seconds[8] < STEEP[8] * (1 + OUTLIER / 32)


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(1e-4, 1.0)), max_size=200))
def test_whatever_is_observed_s_of_one_is_one(seen: list[tuple[int, float]]) -> None:
    curve = Curve(STEEP)
    for size, seconds in seen:
        curve.observe(size, seconds)

    assert curve.relative[0] == 1.0
    assert all(relative > 0 for relative in curve.relative)
    assert curve.capacity > 0
