"""How sure a figure is: intervals from resampling the samples, alone and for a difference.

Every model that is judged on the same samples with the same seed sees the same resamples, so that
the difference of two models needs no second look at their answers (`paired`).
"""

# N samples, R resamples, C resamples at a time

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np

LEVEL = 0.95
Z = 1.96  # of a normal distribution at that level
AT_ONCE = 100  # resamples; 8 MB of weights for 20,000 samples


class Interval(NamedTuple):
    """A figure, and where it would lie in 95 of 100 sets of samples like this one."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws_R: np.ndarray) -> Self:
        """From what the resamples gave; those that gave nothing (NaN) are passed over."""
        known = draws_R[np.isfinite(draws_R)]
        if not len(known) or not np.isfinite(value):
            return cls(float(value), float("nan"), float("nan"))
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(value), float(min(low, value)), float(max(high, value)))


def weights(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sample is drawn, (N, C) float32; the columns add up to N."""
    random = np.random.Generator(np.random.Philox(seed))
    for first in range(0, resamples, AT_ONCE):
        columns = min(AT_ONCE, resamples - first)
        drawn = random.integers(0, count, (count, columns)) * columns + np.arange(columns)
        counted = np.bincount(drawn.ravel(), minlength=count * columns)
        yield counted.reshape(count, columns).astype(np.float32)


def wilson(hits: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's interval of a share; unlike a resample it knows what five in five hide."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share, spread = hits / trials, Z * Z / trials
        centre = (share + spread / 2) / (1 + spread)
        half = Z / (1 + spread) * np.sqrt(share * (1 - share) / trials + spread / trials / 4)
    return centre - half, centre + half


class Judged(NamedTuple):
    """One figure of one model, with the value that each resample gave."""

    value: float
    draws_R: np.ndarray


def paired(pairs: Sequence[tuple[Judged, Judged]]) -> Interval:
    """Interval of how much the first models are better than the second: the mean over the folds.

    Args:
        pairs: of each fold (one is enough) the same figure of two models, judged on the same
            samples with the same seed. Folds have different samples.

    Raises:
        ValueError: there is no fold, or the figures have different numbers of resamples.
    """
    sizes = {len(figure.draws_R) for pair in pairs for figure in pair}
    if len(sizes) != 1:
        raise ValueError(f"paired figures need one number of resamples, not {sorted(sizes)}")
    value = float(np.mean([a.value - b.value for a, b in pairs]))
    total_R = np.zeros(sizes.pop())
    for fold, (a, b) in enumerate(pairs):
        # The folds' resamples came from one seed: shuffled, they are independent.
        shuffled = np.random.Generator(np.random.Philox(fold)).permutation(len(total_R))
        total_R += (a.draws_R - b.draws_R)[shuffled]
    return Interval.of(value, total_R / len(pairs))
