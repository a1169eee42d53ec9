"""Features computed once and kept: a head then learns from thousands of samples a second."""

# N samples, F features

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from services.shared.errors import TrainingFailed
from services.shared.shards import Output, sync, writable


def cached(
    folder: Path, key: str, compute: Callable[[], Iterable[np.ndarray]], rows: int
) -> np.ndarray:
    """Features (N, F) of floats, mapped from the file `key` of the folder, computed if need be.

    Written whole or not at all: what was begun and not finished is begun anew.

    Args:
        key: names all that they depend on: pictures, weights, view.
        compute: gives them in blocks (n, F), N rows in all.
        rows: N.

    Raises:
        StorageFailed: the disk is full or failing.
        TrainingFailed: the blocks do not make N rows.
    """
    path = folder / f"{key}.npy"
    kept = _mapped(path, rows)
    if kept is None:
        _write(path, compute(), rows)
        kept = _mapped(path, rows)
        assert kept is not None
    return kept


def _mapped(path: Path, rows: int) -> np.ndarray | None:
    """What the file holds, unless it is absent or damaged."""
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = found.ndim == 2 and len(found) == rows and found.dtype in (np.float16, np.float32)
    return found if fits else None


def _write(path: Path, blocks: Iterable[np.ndarray], rows: int) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with writable(staged):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # By writes, not through a map: on a full disk, a map ends the process.
            with Output(staged) as file:
                _write_blocks(file, blocks, rows)
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _write_blocks(file: Output, blocks: Iterable[np.ndarray], rows: int) -> None:
    left = iter(blocks)
    first = next(left, np.empty((0, 0), np.float32))
    kind = np.lib.format.dtype_to_descr(first.dtype)
    facts = {"descr": kind, "fortran_order": False, "shape": (rows, first.shape[1])}
    np.lib.format.write_array_header_1_0(file, facts)
    done = 0
    for block in itertools.chain([first], left):
        if block.shape[1] != first.shape[1]:
            raise TrainingFailed(f"Features are {block.shape[1]} wide, after {first.shape[1]}.")
        file.write(np.ascontiguousarray(block, first.dtype).tobytes())
        done += len(block)
    if done != rows:
        raise TrainingFailed(f"There are features of {done} samples, not of {rows}.")
