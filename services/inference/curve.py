"""s(b), how long a batch of b images takes on one device worker: what batching is decided by."""

from collections.abc import Mapping

import numpy as np

WORTH_WAITING = 1.02  # a smaller batch is as good when an image costs at most so much more in it
WEIGHT = 1 / 32  # of a batch in the mean of its size
OUTLIER = 4.0  # a batch counts as at most so many times what is known of its size
EVERY = 32  # batches between two looks at what they say


class Curve:
    """Measured when a model is loaded, refined by every batch that runs.

    At load a worker is alone and its caches are warm, so that it measures the least that a batch
    can take. What it takes in service is more, and not by the same factor for each size. A size
    that is not used keeps its first, favourable figure until it is tried.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.seconds = dict(seconds)
        """By size."""
        self.relative: list[float] = []
        """s(b)/s(1) for batches of 1, 2, …, up to the largest worth taking; the same list for good,
        for the queue in front of the workers."""
        self._count = 0
        self._fit()

    @property
    def image_seconds(self) -> float:
        """s(1)."""
        return self._best[0]

    @property
    def capacity(self) -> float:
        """Images a second of one worker, in batches of the size worth taking."""
        return len(self._best) / self._best[-1]

    def observe(self, size: int, seconds: float) -> None:
        """One more batch has run."""
        known = self.seconds.setdefault(size, seconds)
        self.seconds[size] += WEIGHT * (min(seconds, OUTLIER * known) - known)
        self._count += 1
        if self._count % EVERY == 0:
            self._fit()

    def _fit(self) -> None:
        self._best = worthwhile(self.seconds)
        self.relative[:] = [seconds / self._best[0] for seconds in self._best]


def worthwhile(seconds: Mapping[int, float]) -> list[float]:
    """s(1), s(2), … up to the smallest batch in which an image is about as cheap as in any.

    >>> worthwhile({1: 0.020, 2: 0.040})
    [0.02]
    >>> [round(s, 3) for s in worthwhile({1: 0.008, 2: 0.009, 4: 0.011})]
    [0.008, 0.009, 0.01, 0.011]
    """
    sizes = sorted(seconds)
    cheapest = min(seconds[b] / b for b in sizes)
    best = next(b for b in sizes if seconds[b] / b <= WORTH_WAITING * cheapest)
    every = range(1, best + 1)
    return [float(s) for s in np.interp(every, sizes, [seconds[b] for b in sizes])]
