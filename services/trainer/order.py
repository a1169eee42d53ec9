"""Which sample comes when, and what chance does to it: functions of seed, epoch and sample alone.

So a run goes on anywhere from one number, its step, and neither threads nor processes can change
what it learns. The bits are Philox's, a counter turned into noise; NumPy promises to keep them,
unlike what its generators make of them.
"""

# N samples of a split, K emoji

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

FRACTION_BITS = 53  # of a float
WORD = 2**64 - 1


class Pick(NamedTuple):
    """A sample in an epoch."""

    number: int
    epoch: int


def epoch(seed: int, epoch: int, count: int, weights_N: np.ndarray | None = None) -> np.ndarray:
    """The samples (count,) of an epoch: each once, or with weights as often as chance has it."""
    raw = _philox(seed, epoch, 0, 0).random_raw(count)
    if weights_N is None:
        return np.argsort(raw, kind="stable")
    ends = np.cumsum(weights_N, dtype=np.float64)
    return np.searchsorted(ends, _fractions(raw) * ends[-1], side="right").clip(0, count - 1)


def batch(
    seed: int, step: int, batch: int, count: int, weights_N: np.ndarray | None = None
) -> list[Pick]:
    """The step-th batch of an endless sequence of epochs, in the same time whatever the step.

    Batches go on across the end of an epoch. `weights_N` must not change between calls.
    """
    picks: list[Pick] = []
    at = step * batch
    while at < (step + 1) * batch:
        number, first = divmod(at, count)
        order = _kept(seed, number, count, None if weights_N is None else _Same(weights_N))
        some = order[first : first + (step + 1) * batch - at]
        picks += (Pick(sample, number) for sample in some.tolist())
        at += len(some)
    return picks


def chances(seed: int, pick: Pick, n: int) -> np.ndarray:
    """n floats in [0, 1) for a sample in an epoch."""
    return _fractions(_philox(seed, pick.epoch, 1, pick.number).random_raw(n))


def balanced(classes: Sequence[tuple[int, ...]], outputs: int, strength: float) -> np.ndarray:
    """Weights (N,): 0 has every sample drawn alike, 1 every emoji as often, about 1 on average.

    A sample with several emoji counts as a part of each.
    """
    shares = np.array([1 / len(own) for own in classes])
    lengths = [len(own) for own in classes]
    flat = np.concatenate([np.asarray(own) for own in classes])
    counts_K = np.bincount(flat, np.repeat(shares, lengths), outputs)
    pull_K = counts_K.clip(1e-9) ** -strength
    rows = np.repeat(np.arange(len(classes)), lengths)
    weights_N = np.bincount(rows, pull_K[flat]) * shares
    return weights_N / weights_N.mean()


class _Same:
    """An array that equals itself alone, so that caches need not read it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.array is self.array


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def _kept(seed: int, number: int, count: int, weights: _Same | None) -> np.ndarray:
    return epoch(seed, number, count, weights.array if weights else None)


def _philox(seed: int, epoch: int, purpose: int, sample: int) -> np.random.Philox:
    # As arrays: of lists, NumPy makes Python objects first.
    key = np.array([seed & WORD, epoch], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, sample, purpose, 0], np.uint64))


def _fractions(raw: np.ndarray) -> np.ndarray:
    return (raw >> np.uint64(64 - FRACTION_BITS)) * 2.0**-FRACTION_BITS
