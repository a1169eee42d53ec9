"""Freezes what crawls have found into a data set: an immutable folder that is whole or not there.

The same finds, in whatever order, give the same bytes. Everything is staged beside its place and
renamed into it; only the list of what was taken down changes afterwards. `docs/formats.md` has the
format.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import datasheet, duplicates, keep, manifest, promises, splits
from services.crawler.datasheet import FunnelCount, Summary
from services.crawler.keep import Kept
from services.crawler.manifest import ManifestWriter, Row
from services.crawler.splits import Shares
from services.shared import faults, header, pixels, shards
from services.shared.errors import AlreadyExists, StorageFailed
from services.shared.shards import Output, Sample, ShardWriter, readable, writable
from services.shared.vocabulary import Vocabulary

SEED = b"emojinet splits 1"
"""One for all data sets: what a model was judged on, the next does not learn from."""
STAGED = ".staged-"
STAGE = "dataset"  # of the funnel
RENAME_EXCHANGE = 2
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)


class Find(NamedTuple):
    """A picture of a crawl, with all posts that show it."""

    sha256: bytes
    """Of its original bytes."""
    pdq: bytes
    quality: int
    width: int
    """Of the original."""
    height: int
    jpeg: Path
    """The prescaled file."""
    posts: Sequence[Kept]


class Frozen(NamedTuple):
    """What became of a data set's making."""

    digest: str
    samples: Mapping[str, int]
    """In each split."""


# -- making ---------------------------------------------------------------------------------------


def write(
    folder: Path,
    finds: Iterable[Find],
    *,
    vocabulary: Vocabulary,
    funnel: Sequence[FunnelCount],
    rules: pb.KeepRules,
    name: str,
    shares: Shares = Shares(),  # noqa: B008 - immutable
    seed: bytes = SEED,
) -> Frozen:
    """Freezes finds into a folder.

    Near-duplicates become one sample: the largest original's picture, with the emoji of all. Finds
    whose file is gone by then were taken down, and are left out.

    Raises:
        AlreadyExists: the folder is there.
        StorageFailed: the disk is full or failing; nothing is left behind.
    """
    if folder.exists():
        raise AlreadyExists(f"There is a data set {folder}; choose another name.", name=folder.name)
    with staging(folder) as staged:
        with _Spool(staged / "spool", vocabulary) as spool, _Writer(staged) as writer:
            spool.take(finds)
            planned = _planned(spool, shares, seed)
            for split, members in planned:
                with contextlib.suppress(FileNotFoundError):  # taken down since it was found
                    writer.add(*spool.sample(split, members))
            written = sum(writer.samples.values())
            merged = sum(len(members) for _, members in planned)
            counts = {
                "sample": written,
                "near_duplicate": merged - len(planned),
                "no_emoji_of_vocabulary": len(spool) - merged,
                "taken_down": len(planned) - written,
            }
            frozen = writer.finish(
                name=name,
                vocabulary=vocabulary,
                funnel=[*funnel, *((STAGE, outcome, count) for outcome, count in counts.items())],
                rules=_limits(rules),
            )
        faults.point("dataset-staged")
        os.rename(staged, folder)
        try:
            shards.sync(folder.parent)
        except OSError:  # it might not be there tomorrow
            os.rename(folder, staged)
            raise
    faults.point("dataset-named")
    return frozen


def sweep(datasets: Path) -> None:
    """Removes what a process that died has left among data sets."""
    for path in datasets.glob(f"{STAGED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _limits(rules: pb.KeepRules) -> dict[str, int]:
    return {
        "max_hashtags": rules.max_hashtags or keep.MAX_HASHTAGS,
        "images_per_emoji": rules.images_per_emoji or keep.IMAGES_PER_EMOJI,
        "images_per_author": rules.images_per_author or keep.IMAGES_PER_AUTHOR,
    }


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder beside the place of another, gone at the end unless it was renamed."""
    staged = folder.with_name(STAGED + folder.name)
    with writable(staged):
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


class _Spool:
    """Finds in the order they come: their posts in a file, the rest, for a million, in memory."""

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        self._path, self._vocabulary = path, vocabulary
        self._file = path.open("w+b")
        self._starts = array("Q")
        self._known: dict[bytes, bytes] = {}  # authors, each once in memory
        self.sha256: list[bytes] = []
        self.pdq, self.quality, self.area = bytearray(), array("B"), array("Q")
        self.authors: list[tuple[bytes, ...]] = []
        self.classes: list[tuple[int, ...]] = []

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()

    def __len__(self) -> int:
        return len(self.sha256)

    def take(self, finds: Iterable[Find]) -> None:
        for find in finds:
            self.sha256.append(find.sha256)
            self.pdq += find.pdq
            self.quality.append(find.quality)
            self.area.append(find.width * find.height)
            authors = {post.author for post in find.posts if post.author}
            self.authors.append(tuple(self._known.setdefault(name, name) for name in authors))
            self.classes.append(tuple(self._classes(find.posts)))
            self._starts.append(self._file.tell())
            picture = {
                "sha256": find.sha256.hex(),
                "pdq": find.pdq.hex(),
                "quality": find.quality,
                "width": find.width,
                "height": find.height,
            }
            rows = [manifest.of_post(post) | picture for post in find.posts]
            self._file.write(json.dumps([str(find.jpeg), rows]).encode() + b"\n")
        self._file.flush()

    def _classes(self, posts: Sequence[Kept]) -> set[int]:
        emoji = {mention.emoji for post in posts for mention in post.mentions}
        return {index for form in emoji if (index := self._vocabulary.index(form)) is not None}

    def sample(self, split: str, members: list[int]) -> tuple[str, Sample, list[int], list[Row]]:
        """A sample of finds that are near-duplicates, the one to show first, with its rows."""
        paths, of_find = zip(*(self._read(index) for index in members), strict=True)
        jpeg = _read(paths[0])
        classes = sorted({one for index in members for one in self.classes[index]})
        labels = [self._vocabulary.emoji[one] for one in classes]
        stored = header.read(jpeg)
        if stored is None:
            raise StorageFailed(f"{paths[0]} is no JPEG; fetch it anew.", path=str(paths[0]))
        sample = Sample(self.sha256[members[0]].hex(), jpeg, labels)
        of_sample = {
            "key": sample.key,
            "split": split,
            "labels": labels,
            "stored_width": stored.width,
            "stored_height": stored.height,
            "pictures": len(members),
        }
        rows = {
            (row["source"], row["uri"], row["sha256"]): row | of_sample
            for rows in of_find
            for row in rows
        }
        return split, sample, classes, [row for _, row in sorted(rows.items())]

    def _read(self, index: int) -> tuple[Path, list[Row]]:
        self._file.seek(self._starts[index])
        path, rows = json.loads(self._file.readline())
        return Path(path), rows


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror}. Mend the disk."
        raise StorageFailed(why, path=str(path)) from error


def _planned(spool: _Spool, shares: Shares, seed: bytes) -> list[tuple[str, list[int]]]:
    """The split of each sample and its finds, the one to show first; in the order of the shards."""
    order = sorted(range(len(spool)), key=lambda index: (spool.sha256[index], -spool.area[index]))
    hashes_N32 = np.frombuffer(bytes(spool.pdq), np.uint8).reshape(-1, 32)[order]
    cluster_N = duplicates.clusters(hashes_N32, np.array(spool.quality)[order]).tolist()
    together: dict[int, list[int]] = defaultdict(list)
    for place, index in enumerate(order):
        if place and spool.sha256[index] == spool.sha256[order[place - 1]]:
            cluster_N[place] = cluster_N[place - 1]  # the same bytes, however little they show
        together[cluster_N[place]].append(index)
    samples = [
        sorted(members, key=lambda index: (-spool.area[index], spool.sha256[index]))
        for members in together.values()
        if any(spool.classes[index] for index in members)
    ]
    samples.sort(key=lambda members: spool.sha256[members[0]])
    found = splits.assign(
        [spool.sha256[members[0]] for members in samples],
        [{name for index in members for name in spool.authors[index]} for members in samples],
        [{one for index in members for one in spool.classes[index]} for members in samples],
        shares=shares,
        seed=seed,
    )
    return sorted(
        zip(found, samples, strict=True), key=lambda planned: shards.SPLITS.index(planned[0])
    )


class _Writer:
    """Writes a data set's files from samples in the order of the shards."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._summary = folder, Summary()
        (folder / shards.SHARDS).mkdir()
        self.samples: Mapping[str, int] = self._summary.samples
        """How many each split has so far."""
        self._shards, self._manifest = ShardWriter(folder), ManifestWriter(folder)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manifest.abandon()
        if self._shards.output:
            self._shards.output.raw.close()

    def add(self, split: str, sample: Sample, classes: list[int], rows: list[Row]) -> None:
        shard = self._shards.add(split, sample, classes)
        self._manifest.add([row | {"shard": shard} for row in rows])
        self._summary.add(split, rows)

    def finish(
        self,
        *,
        name: str,
        vocabulary: Vocabulary,
        funnel: Sequence[FunnelCount],
        rules: Mapping[str, int],
    ) -> Frozen:
        """Writes all files but the shards."""
        self._shards.close()
        files: dict[str, Any] = self._shards.files | {manifest.MANIFEST: self._manifest.close()}
        counts = tuple(self._summary.labels[emoji] for emoji in vocabulary.emoji)
        stages = [dict(zip(("stage", "outcome", "count"), count, strict=True)) for count in funnel]
        sheet = datasheet.text(name, self._summary, vocabulary, funnel, rules)
        for file, content in (
            ("vocabulary.json", Vocabulary(vocabulary.emoji, counts).to_json()),
            ("funnel.json", json.dumps(stages, indent=1) + "\n"),
            ("datasheet.md", sheet),
        ):
            files[file] = self._put(file, content.encode())
        said = shards.sealed(
            {
                "format": shards.FORMAT,
                "name": name,
                "samples": self.samples,
                "rules": dict(rules),
                "rules_version": keep.VERSION,
                "pixels_version": pixels.VERSION,
                "files": files,
            }
        )
        self._put(shards.DATASET, said)
        datasheet.plot(self._folder / "skew.png", counts)
        shards.write_excluded(self._folder, ())
        for path in (self._folder / shards.SHARDS, self._folder):
            shards.sync(path)
        return Frozen(json.loads(said)["digest"], self.samples)

    def _put(self, file: str, content: bytes) -> dict[str, Any]:
        with Output(self._folder / file) as output:
            output.write(content)
        return shards.listed(self._folder / file, output)


# -- taking down ----------------------------------------------------------------------------------


def exclude(folder: Path, keys: Iterable[str]) -> int:
    """Excludes samples at once; returns how many of them were not yet.

    What is not in the data set, or no longer, needs no excluding.

    Raises:
        BadDataset: the data set is broken.
        StorageFailed: the disk is full or failing; the list is as it was.
    """
    if not folder.exists():
        return 0
    with writable(folder), shards.locked(folder):
        before = shards.excluded(folder)
        new = manifest.known(folder, sorted(set(keys) - before))
        if new:
            shards.write_excluded(folder, before | new)
        return len(new)


def compact(folder: Path) -> Frozen:
    """Rewrites a data set without what was excluded from it; its digest is another then.

    At every instant there is a complete data set in the folder.

    Raises:
        BadDataset: the data set is broken.
        StorageFailed: the disk is full or failing; the data set is as it was.
    """
    gone, said = shards.excluded(folder), shards.facts(folder)
    if not gone:
        return Frozen(said["digest"], said["samples"])
    with staging(folder) as staged:
        with _Writer(staged) as writer:
            for split, stored, rows in promises.together(folder):
                if stored.sample.key not in gone:
                    writer.add(split, stored.sample, stored.classes, rows)
            with readable(folder):
                vocabulary = Vocabulary.from_json((folder / "vocabulary.json").read_bytes())
                funnel = json.loads((folder / "funnel.json").read_bytes())
            frozen = writer.finish(
                name=said["name"],
                vocabulary=vocabulary,
                funnel=_without(len(gone), funnel),
                rules=said["rules"],
            )
        with shards.locked(folder):
            shards.write_excluded(staged, shards.excluded(folder) - gone)  # taken down meanwhile
            _exchange(staged, folder)
            shards.sync(folder.parent)
    return frozen


def _without(gone: int, stages: Sequence[Mapping[str, Any]]) -> list[FunnelCount]:
    """A data set's funnel with samples taken down: each sample is in one of its counts."""
    counts = {(stage["stage"], stage["outcome"]): stage["count"] for stage in stages}
    counts[STAGE, "sample"] -= gone
    counts[STAGE, "taken_down"] = counts.get((STAGE, "taken_down"), 0) + gone
    return [(*names, count) for names, count in counts.items()]


def _exchange(one: Path, other: Path) -> None:
    """Swaps two folders in one step."""
    names = os.fsencode(one), os.fsencode(other)
    if LIBC.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE):
        number = ctypes.get_errno()
        why = os.strerror(number)
        if number in (errno.EINVAL, errno.ENOSYS):
            why = "this file system cannot swap folders; use a local one"
        raise OSError(number, why, str(other))
