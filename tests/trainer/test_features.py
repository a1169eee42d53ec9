import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.shared.errors import StorageFailed, TrainingFailed
from services.trainer import features

BLOCKS = [np.full((n, 3), n, np.float32) for n in (4, 4, 2)]


class Compute:
    """Counts how often it was asked."""

    def __init__(self, blocks: list[np.ndarray] = BLOCKS) -> None:
        self.blocks, self.times = blocks, 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.times += 1
        yield from self.blocks


def test_features_are_computed_once_and_mapped(tmp_path: Path) -> None:
    compute = Compute()

    for _ in range(2):
        kept = features.cached(tmp_path / "features", "key", compute, 10)

        assert isinstance(kept, np.memmap)
        assert kept.dtype == np.float32
        assert (kept == np.concatenate(BLOCKS)).all()
    assert compute.times == 1
    assert os.listdir(tmp_path / "features") == ["key.npy"]


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00v\x00{"])
def test_damaged_ones_are_computed_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.npy").write_bytes(content)

    kept = features.cached(tmp_path, "key", Compute(), 10)

    assert (kept == np.concatenate(BLOCKS)).all()


def test_a_file_cut_short_is_computed_anew(tmp_path: Path) -> None:
    features.cached(tmp_path, "key", Compute(), 10)
    os.truncate(tmp_path / "key.npy", 150)
    compute = Compute()

    assert (features.cached(tmp_path, "key", compute, 10) == np.concatenate(BLOCKS)).all()
    assert compute.times == 1


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield BLOCKS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.cached(tmp_path, "key", failing, 10)
    for blocks, what in (
        (BLOCKS[:2], "8 samples, not of 10"),
        ([*BLOCKS, np.ones((1, 2), np.float32)], "wide"),
    ):
        with pytest.raises(TrainingFailed, match=what):
            features.cached(tmp_path, "key", Compute(blocks), 10)

    assert os.listdir(tmp_path) == []


def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "features").write_bytes(b"in the way")

    with pytest.raises(StorageFailed, match="features"):
        features.cached(tmp_path / "features", "key", Compute(), 10)
