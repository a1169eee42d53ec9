"""Batches for training and judging, made by threads ahead of their use.

Decoders and scalers release the interpreter's lock, so threads use all cores, without the copies
between processes that cost a DataLoader more than decoding does. Pixels stay bytes: the network
normalises them where it runs. Which thread makes a row changes nothing of it.
"""

# B batch, K emoji, F features, N samples

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch

from services.shared.cores import cores
from services.shared.errors import BadDataset, ImageError, TrainingFailed
from services.shared.model import Preprocessing
from services.trainer import order
from services.trainer import samples as stored
from services.trainer.augment import CHANCES, train_view
from services.trainer.order import Pick
from services.trainer.recipe import Augment
from services.trainer.samples import Samples, Shards

MAX_CORRUPT_SHARE = 0.1
JUDGED = 100
"""Samples to see before the share counts, or all."""


class Batch(NamedTuple):
    """Samples, and what is to be learned from them.

    A row less for each that is corrupt or was taken down; on a bad day there is none.
    """

    x: torch.Tensor
    """(B, edge, edge, 3) uint8; or what a trunk says, (B, F) or a map (B, f, h, w), of floats."""
    y_BK: torch.Tensor
    """float32; each row is shared alike by the sample's emoji."""
    numbers_B: np.ndarray
    """Which samples."""


class Source(Protocol):
    """What makes batches."""

    def load(self, picks: Sequence[Pick]) -> Batch: ...


class Targets:
    """What is to be learned from each sample."""

    def __init__(self, classes: Sequence[tuple[int, ...]], outputs: int) -> None:
        lengths = np.fromiter((len(own) for own in classes), np.int64, len(classes))
        self._ends = lengths.cumsum()
        self._classes = np.fromiter((k for own in classes for k in own), np.int32, lengths.sum())
        self._outputs = outputs

    def of(self, numbers_B: np.ndarray) -> torch.Tensor:
        """(B, K), each row shared alike by the sample's emoji."""
        y_BK = np.zeros((len(numbers_B), self._outputs), np.float32)
        for row, number in enumerate(numbers_B):
            own = self._classes[self._ends[number - 1] if number else 0 : self._ends[number]]
            y_BK[row, own] = 1 / len(own)
        return torch.from_numpy(y_BK)


class Present:
    """Leaves out what was taken down since the samples were opened, from the next epoch on."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._epoch, self._gone = 0, frozenset[str]()

    def of(self, picks: Sequence[Pick]) -> Sequence[Pick]:
        """Those that are still there."""
        if isinstance(self._samples, Shards):
            newest = max((pick.epoch for pick in picks), default=0)
            if newest > self._epoch:
                self._epoch = newest
                gone = self._samples.taken_down()
                self._gone = self._gone if gone is None else gone
        if not self._gone:
            return picks
        return [pick for pick in picks if self._samples.keys[pick.number] not in self._gone]


class Pictures:
    """Makes batches of pictures.

    A take-down while this is in use counts from the next epoch on.
    """

    def __init__(
        self,
        samples: Samples,
        preprocessing: Preprocessing,
        outputs: int,
        *,
        seed: int = 0,
        augment: Augment = Augment.NONE,
        threads: int | None = None,
    ) -> None:
        self.classes, self.outputs = samples.classes, outputs
        self._samples, self._preprocessing = samples, preprocessing
        self._targets = Targets(samples.classes, outputs)
        self._seed, self._augment = seed, augment
        self._threads = threads or cores()
        self._pool = ThreadPoolExecutor(self._threads, "pictures")
        self.present = Present(samples)
        self._seen_N = np.zeros(len(samples.classes), bool)
        self.corrupt: dict[int, str] = {}
        """Samples that cannot be learned from, with the reason."""

    @property
    def size_px(self) -> int:
        """The edge of what is loaded."""
        return self._preprocessing.size_px

    @property
    def digest(self) -> str:
        """Names the pictures, in their order."""
        return stored.digest(self._samples)

    def load(self, picks: Sequence[Pick]) -> Batch:
        """A batch. Raises TrainingFailed when more than a tenth of the samples is corrupt."""
        picks = self.present.of(picks)
        edge = self._preprocessing.size_px
        x_BHWC = np.empty((len(picks), edge, edge, 3), np.uint8)
        good_B = np.zeros(len(picks), bool)
        todo = iter(enumerate(picks))  # shared: each thread takes the next

        def work() -> None:
            for row, pick in todo:
                good_B[row] = self._put(pick, x_BHWC[row])

        for done in [self._pool.submit(work) for _ in range(self._threads)]:
            done.result()
        numbers_B = np.array([pick.number for pick in picks], np.int64)
        self._judge(numbers_B)
        if not good_B.all():
            x_BHWC, numbers_B = x_BHWC[good_B], numbers_B[good_B]
        return Batch(torch.from_numpy(x_BHWC), self._targets.of(numbers_B), numbers_B)

    def _put(self, pick: Pick, square_HW3: np.ndarray) -> bool:
        """Whether the sample's view is in its place."""
        try:
            content = self._samples.read(pick.number)
            chances = order.chances(self._seed, pick, CHANCES if self._augment != "none" else 0)
            square_HW3[:] = train_view(self._preprocessing, content, chances, self._augment)
        except (ImageError, BadDataset) as error:
            self.corrupt[pick.number] = str(error)
            return False
        return True

    def _judge(self, numbers_B: np.ndarray) -> None:
        self._seen_N[numbers_B] = True
        seen, corrupt = int(self._seen_N.sum()), len(self.corrupt)
        if seen >= min(JUDGED, len(self._seen_N)) and corrupt > MAX_CORRUPT_SHARE * seen:
            number, why = next(iter(sorted(self.corrupt.items())))
            raise TrainingFailed(
                f"{corrupt} of {seen} samples cannot be read, such as "
                f"{self._samples.keys[number]}: {why} Restore the data set, or freeze it anew."
            )


class Features:
    """Makes batches of what a network's frozen part has said of pictures.

    Rows that begin with NaN, of pictures that could not be read, are left out.
    """

    def __init__(
        self,
        features_RF: np.ndarray,
        classes: Sequence[tuple[int, ...]],
        outputs: int,
        views: int = 1,
        shape: tuple[int, ...] = (-1,),
        present: Present | None = None,
    ) -> None:
        """Of `views` rows for each sample, each of which is given this shape."""
        self._present = present
        self.classes, self.outputs = classes, outputs
        self._features_RF, self._views, self._shape = features_RF, views, shape
        self._targets = Targets(classes, outputs)

    def load(self, picks: Sequence[Pick]) -> Batch:
        """A batch; each epoch shows the next view of all samples."""
        if self._present:
            picks = self._present.of(picks)
        numbers_B = np.array([pick.number for pick in picks], np.int64)
        views_B = np.array([pick.epoch % self._views for pick in picks], np.int64)
        x_BF = np.asarray(self._features_RF[numbers_B * self._views + views_B])
        known_B = ~np.isnan(x_BF[:, 0])
        if not known_B.all():
            x_BF, numbers_B = x_BF[known_B], numbers_B[known_B]
        x = torch.from_numpy(x_BF).reshape(len(x_BF), *self._shape)
        return Batch(x, self._targets.of(numbers_B), numbers_B)


def batches(
    source: Source, picks: Iterable[Sequence[Pick]], ahead: int = 3
) -> Generator[Batch, None, None]:
    """The batches in order, as many as `ahead` made before they are asked for.

    What fails while one is made is raised in its place. Closing this ends its threads.
    """
    left, made = iter(picks), deque[Future[Batch]]()
    # Two at a time: while one waits for its last picture, the next one begins.
    with ThreadPoolExecutor(2, "batches") as pool:
        try:
            made.extend(pool.submit(source.load, each) for each in islice(left, ahead))
            while made:
                batch = made.popleft().result()
                made.extend(pool.submit(source.load, each) for each in islice(left, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def sweep(count: int, batch: int) -> Iterator[list[Pick]]:
    """Every sample once, in order."""
    for first in range(0, count, batch):
        yield [Pick(number, 0) for number in range(first, min(first + batch, count))]
