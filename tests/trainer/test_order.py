from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer import order
from services.trainer.order import Pick

SEEDS = st.integers(0, 2**63)


@given(SEEDS, st.integers(0, 1000), st.integers(1, 300))
def test_an_epoch_has_each_sample_once_and_depends_on_its_arguments_alone(
    seed: int, epoch: int, count: int
) -> None:
    numbers = order.epoch(seed, epoch, count)

    assert sorted(numbers) == list(range(count))
    assert numbers.tolist() == order.epoch(seed, epoch, count).tolist()


def test_epochs_and_seeds_differ_and_are_what_they_always_were() -> None:
    orders = [order.epoch(*key, 10).tolist() for key in ((1, 0), (1, 1), (2, 0))]

    assert len({*map(tuple, orders)}) == 3
    assert orders[0] == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]  # a new order would undo every resume


@given(SEEDS, st.integers(0, 40), st.integers(1, 50), st.integers(1, 30))
def test_batches_are_the_epochs_cut_into_pieces(
    seed: int, step: int, size: int, count: int
) -> None:
    whole = [
        Pick(number, epoch)
        for epoch in range((step + 1) * size // count + 1)
        for number in order.epoch(seed, epoch, count).tolist()
    ]

    assert order.batch(seed, step, size, count) == whole[step * size : (step + 1) * size]


def test_chances_are_a_samples_own() -> None:
    draws = {
        (seed, number, epoch): tuple(order.chances(seed, Pick(number, epoch), 4))
        for seed in range(4)
        for number in range(40)
        for epoch in range(40)
    }
    values = np.array(list(draws.values()))

    assert len({*draws.values()}) == len(draws)
    assert draws[3, 7, 9] == tuple(order.chances(3, Pick(7, 9), 6)[:4])
    assert values.min() >= 0
    assert values.max() < 1
    assert np.histogram(values, 10, (0, 1))[0] == pytest.approx([len(draws) * 0.4] * 10, rel=0.06)


def test_chances_are_not_the_bits_that_order_the_epoch() -> None:
    raw = order._fractions(order._philox(5, 3, 0, 0).random_raw(4))

    assert not {*raw} & {*order.chances(5, Pick(0, 3), 4)}


def test_with_weights_samples_come_as_often_as_they_weigh() -> None:
    weights = np.array([1.0, 0.0, 2.0, 7.0])

    drawn = Counter(
        pick.number for step in range(1000) for pick in order.batch(1, step, 10, 4, weights)
    )

    assert drawn[1] == 0
    assert [drawn[n] / 10_000 for n in (0, 2, 3)] == pytest.approx([0.1, 0.2, 0.7], abs=0.02)


def test_other_weights_make_other_batches() -> None:
    first, other = (
        order.batch(1, 0, 50, 50, weights) for weights in (np.ones(50), np.arange(50.0))
    )

    assert first != other
    assert not any(pick.number == 0 for pick in other)


def test_balanced_weights_bring_every_emoji_as_often() -> None:
    classes = [(0,)] * 90 + [(1,)] * 9 + [(2,)]

    for strength, shares in ((0.0, [0.9, 0.09, 0.01]), (1.0, [1 / 3] * 3)):
        weights = order.balanced(classes, 3, strength)
        mass = np.bincount([own[0] for own in classes], weights)
        assert mass / mass.sum() == pytest.approx(shares)
        assert weights.mean() == pytest.approx(1)


def test_samples_with_several_emoji_are_balanced_between_them() -> None:
    weights = order.balanced([(0,), (0,), (0, 1)], 2, 1.0)

    assert weights[0] == weights[1] < weights[2]
