"""What a data set promises of its files and samples, and whether it keeps it."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from services.crawler import duplicates, manifest
from services.crawler.manifest import Row
from services.shared import header, shards
from services.shared.errors import BadDataset
from services.shared.shards import Stored, readable


def verify(folder: Path) -> None:
    """Checks every byte of a data set, and that it keeps its promises.

    Raises:
        BadDataset: it does not; names the file.
    """
    said = shards.facts(folder)
    gone = shards.excluded(folder)
    for name, listed in said["files"].items():
        with readable(folder / name):
            _check_file(folder / name, listed)
    found = {f"{shards.SHARDS}/{name}" for name in os.listdir(folder / shards.SHARDS)}
    if strays := found - said["files"].keys():
        raise _bad(folder / min(strays), "dataset.json does not list it")
    promises = _Promises(folder)
    for split, stored, rows in together(folder):
        promises.add(split, stored, rows)
    promises.keep(said["samples"], gone)


def _check_file(path: Path, listed: Mapping[str, Any]) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != listed["sha256"]:
            raise ValueError("its bytes are not those that dataset.json lists")


def together(folder: Path) -> Iterator[tuple[str, Stored, list[Row]]]:
    """The split of each sample, as its shard has it, and its rows."""
    stored = (
        (split, stored) for split in shards.SPLITS for stored in shards.read_shards(folder, split)
    )
    path = folder / manifest.MANIFEST
    for in_shard, in_manifest in zip_longest(stored, manifest.samples(folder)):
        if in_shard is None or in_manifest is None or in_shard[1].sample.key != in_manifest[0]:
            raise _bad(path, "it has other samples than the shards, or in another order")
        yield *in_shard, in_manifest[1]


class _Promises:
    """What a data set promises of its samples, gathered and checked."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / manifest.MANIFEST
        self._counts: Counter[str] = Counter()
        self._authors: dict[str, str] = {}  # -> split
        self._looks: dict[str, tuple[str, int, str]] = {}  # sha256 -> hash, quality, split
        self._keys: set[str] = set()

    def add(self, split: str, stored: Stored, rows: list[Row]) -> None:
        sample = stored.sample
        self._counts[split] += 1
        self._keys.add(sample.key)
        claimed = header.read(sample.jpeg)
        expected = (split, stored.shard, sample.emoji)
        for row in rows:
            size = row["stored_width"], row["stored_height"]
            if (row["split"], row["shard"], row["labels"]) != expected or (
                claimed is None or size != (claimed.width, claimed.height)
            ):
                raise _bad(self._path, f"{sample.key} is another in {stored.shard}")
            author = row["author"]
            if author and self._authors.setdefault(author, split) != split:
                raise _bad(self._path, f"the author {author} is in two splits")
            self._looks[row["sha256"]] = row["pdq"], row["quality"], split

    def keep(self, samples: Mapping[str, int], excluded: frozenset[str]) -> None:
        if self._counts != Counter(samples):
            raise _bad(self._path, "its splits have other sizes than dataset.json says")
        if strangers := excluded - self._keys:
            raise _bad(self._path.with_name(shards.EXCLUDED), f"no sample is {min(strangers)}")
        pdqs, qualities, names = (
            zip(*self._looks.values(), strict=True) if self._looks else ((),) * 3
        )
        hashes_N32 = np.frombuffer(bytes.fromhex("".join(pdqs)), np.uint8).reshape(-1, 32)
        of_cluster: dict[int, str] = {}
        for cluster, split in zip(
            duplicates.clusters(hashes_N32, qualities).tolist(), names, strict=True
        ):
            if of_cluster.setdefault(cluster, split) != split:
                raise _bad(self._path, f"near-duplicates are in {split} and {of_cluster[cluster]}")


def _bad(path: Path, why: str) -> BadDataset:
    return BadDataset(f"{path} is altered: {why}. Restore it, or freeze anew.", path=str(path))
