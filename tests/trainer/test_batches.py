import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from services.crawler import dataset as crawled
from services.shared import model, photographs, pixels
from services.shared.errors import BadDataset, TrainingFailed
from services.trainer import order, samples
from services.trainer.batches import Batch, Features, Pictures, batches, sweep
from services.trainer.order import Pick
from services.trainer.recipe import Augment
from tests.crawler.finds import VOCABULARY
from tests.trainer.freezing import freeze

PREPROCESSING = model.Preprocessing(
    size_px=32, crop=0.875, mean=(0.5,) * 3, std=(0.5,) * 3, decode_version=pixels.VERSION
)
PHOTOS = [pixels.prescale(path.read_bytes(), edge_px=64) for path in photographs.installed()[:6]]


class Listed:
    """Samples in memory."""

    def __init__(self, contents: Sequence[bytes], classes: Sequence[tuple[int, ...]] = ()) -> None:
        self.contents = contents
        self.keys = [f"{number:064x}" for number in range(len(contents))]
        self.classes = classes or [(number % 3,) for number in range(len(contents))]

    def read(self, number: int) -> bytes:
        return self.contents[number]


def picks(*numbers: int, epoch: int = 0) -> list[Pick]:
    return [Pick(number, epoch) for number in numbers]


def pictures(
    found: samples.Samples, threads: int = 2, augment: Augment = Augment.NONE, outputs: int = 3
) -> Pictures:
    return Pictures(found, PREPROCESSING, outputs, seed=7, augment=augment, threads=threads)


def test_a_batch_has_the_picked_views_and_what_they_show() -> None:
    batch = pictures(Listed(PHOTOS, [(0,), (1, 2), (2,)] * 2)).load(picks(4, 0, 4))

    views = [model.view(PREPROCESSING, PHOTOS[number]) for number in (4, 0, 4)]
    assert batch.x.dtype == torch.uint8
    assert (batch.x.numpy() == np.stack(views)).all()
    assert batch.y_BK.tolist() == [[0, 0.5, 0.5], [1, 0, 0], [0, 0.5, 0.5]]
    assert batch.numbers_B.tolist() == [4, 0, 4]


@pytest.mark.parametrize("augment", [Augment.CROP, Augment.STRONG])
def test_threads_and_the_rest_of_the_batch_change_nothing(augment: Augment) -> None:
    one, many = (pictures(Listed(PHOTOS * 20), threads, augment) for threads in (1, 7))
    chosen = order.batch(7, 3, 50, 120)
    first = one.load(chosen)

    for _ in range(3):
        assert torch.equal(many.load(chosen).x, first.x)
    assert torch.equal(many.load(chosen[::-1]).x.flip(0), first.x)


def test_another_epoch_shows_another_part() -> None:
    source = pictures(Listed(PHOTOS), augment=Augment.CROP)

    one, other = (source.load(picks(0, epoch=epoch)).x for epoch in (0, 1))
    assert not torch.equal(one, other)


def test_corrupt_samples_are_left_out_and_counted_with_the_reason() -> None:
    source = pictures(Listed([*PHOTOS * 4, PHOTOS[0][:1500], b""]))
    batch = source.load(picks(24, *range(24), 25))

    assert batch.numbers_B.tolist() == list(range(24))
    assert len(batch.x) == len(batch.y_BK) == 24
    assert "cut short" in source.corrupt[24]
    assert "no bytes" in source.corrupt[25]


def test_too_many_corrupt_samples_end_it_in_a_line() -> None:
    source = pictures(Listed([*PHOTOS, b"no picture"]))

    with pytest.raises(TrainingFailed, match="1 of 7 samples cannot be read") as raised:
        source.load(picks(*range(7)))
    assert "\n" not in str(raised.value)


def test_a_take_down_counts_from_the_next_epoch_on(tmp_path: Path) -> None:
    folder = freeze(tmp_path)
    found = samples.opened(folder, "train", VOCABULARY)
    source = pictures(found, outputs=len(VOCABULARY))
    whole = picks(*range(len(found.keys)))
    crawled.exclude(folder, [found.keys[3]])

    assert 3 in source.load(whole).numbers_B
    later = [source.load([Pick(number, epoch) for number, _ in whole]) for epoch in (1, 1, 2)]
    assert [3 in batch.numbers_B for batch in later] == [False] * 3
    assert [len(batch.x) for batch in later] == [len(whole) - 1] * 3


def test_features_are_batched_without_those_that_are_missing() -> None:
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    features[2] = np.nan
    batch = Features(features, [(0,), (1,), (0,), (0, 1)], 2).load(picks(3, 2, 0))

    assert batch.x.tolist() == [[9, 10, 11], [0, 1, 2]]
    assert batch.y_BK.tolist() == [[0.5, 0.5], [1, 0]]
    assert batch.numbers_B.tolist() == [3, 0]


# -- ahead ----------------------------------------------------------------------------------------


class Slow:
    """Notes what it was asked; fails at 13."""

    def __init__(self, seconds: float = 0) -> None:
        self.asked: list[int] = []
        self._seconds = seconds

    def load(self, picks: Sequence[Pick]) -> Batch:
        self.asked.append(picks[0].number)
        time.sleep(self._seconds)
        if picks[0].number == 13:
            raise BadDataset("thirteen")
        numbers_B = np.array([pick.number for pick in picks])
        return Batch(torch.zeros(len(picks), 1), torch.zeros(len(picks), 1), numbers_B)


def test_batches_come_in_order_and_not_further_ahead_than_asked() -> None:
    source = Slow()
    found = batches(source, ([Pick(n, 0)] for n in range(10)), ahead=2)

    assert next(found).numbers_B.tolist() == [0]
    assert len(source.asked) <= 3
    assert [batch.numbers_B[0] for batch in found] == list(range(1, 10))


def test_what_fails_is_raised_in_its_place_and_ends_the_thread() -> None:
    before = threading.active_count()
    found = batches(Slow(), ([Pick(n, 0)] for n in range(10, 20)))

    assert [next(found).numbers_B[0] for _ in range(3)] == [10, 11, 12]
    with pytest.raises(BadDataset, match="thirteen"):
        next(found)
    assert threading.active_count() == before


def test_closing_ends_the_threads() -> None:
    def forever() -> Iterator[list[Pick]]:
        while True:
            yield picks(1)

    before = threading.active_count()
    found = batches(Slow(), forever())
    next(found)
    assert threading.active_count() > before
    found.close()

    assert threading.active_count() == before


def test_what_nobody_waits_for_any_more_is_not_made() -> None:
    source = Slow(0.02)
    found = batches(source, ([Pick(n, 0)] for n in range(14, 100)), ahead=50)
    next(found)
    found.close()

    assert len(source.asked) < 40


def test_a_sweep_has_every_sample_once() -> None:
    assert [len(part) for part in sweep(10, 4)] == [4, 4, 2]
    assert [pick for part in sweep(10, 4) for pick in part] == [Pick(n, 0) for n in range(10)]
    assert list(sweep(0, 4)) == []


def test_decoding_in_threads_leaves_the_process_as_it_was() -> None:
    before = warnings.filters[:]
    pictures(Listed(PHOTOS * 40), threads=8).load(picks(*range(240)))

    assert warnings.filters == before
