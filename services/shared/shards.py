"""A data set's folder as its readers see it: shards, what is excluded from them, what it says.

    dataset.json            name, samples in each split, sha256 of every other file, digest
    shards/train-000000.tar WebDataset: KEY.jpg and KEY.json, about a thousand samples each
    excluded.txt            samples taken down since; the only file that changes

KEY is the sha256 of the sample's original bytes. What readers and writers share is here, and
nothing of the crawler.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from services.shared import vocabulary
from services.shared.errors import BadDataset, StorageFailed

FORMAT = 1
DATASET, EXCLUDED, SHARDS = "dataset.json", "excluded.txt", "shards"
SPLITS = ("train", "validation", "test")
SHARD_SAMPLES = 1000
SHARD_BYTES = 100 << 20
KEY = re.compile(r"[0-9a-f]{64}")
SEAL = "# sha256 of the lines above: "


class Sample(NamedTuple):
    """A picture with its emoji."""

    key: str
    jpeg: bytes
    emoji: list[str]


class Stored(NamedTuple):
    """A sample as it lies in a shard."""

    shard: str
    sample: Sample
    classes: list[int]


class Place(NamedTuple):
    """Where a sample lies, to read it by itself."""

    shard: str
    offset: int
    """Of its picture's first byte."""
    bytes: int
    key: str
    emoji: list[str]


# -- reading --------------------------------------------------------------------------------------


def read_samples(folder: Path, split: str) -> Iterator[Sample]:
    """The samples of a split, in the order of their keys, which is by chance; none excluded.

    Raises:
        BadDataset: a file is missing or broken.
    """
    gone = excluded(folder)
    for stored in read_shards(folder, split):
        if stored.sample.key not in gone:
            yield stored.sample


def read_shards(folder: Path, split: str) -> Iterator[Stored]:
    """All samples of a split, those excluded too. Raises as `read_samples`."""
    for name, tar, member, key, label in _members(folder, split):
        with readable(folder / name):
            sample = Sample(key, _content(tar, member), label["emoji"])
            stored = Stored(name, sample, label["classes"])
        yield stored


def read_places(folder: Path, split: str) -> Iterator[Place]:
    """Where all samples of a split lie, those excluded too. Raises as `read_samples`.

    Of the pictures themselves nothing is read.
    """
    for name, _, member, key, label in _members(folder, split):
        with readable(folder / name):
            place = Place(name, member.offset_data, member.size, key, label["emoji"])
        yield place


def _members(
    folder: Path, split: str
) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo, str, dict[str, Any]]]:
    """Shard, its tar, member, key and label of each picture."""
    names = [name for name in facts(folder)["files"] if name.startswith(f"{SHARDS}/{split}-")]
    for name in sorted(names):
        with readable(folder / name), tarfile.open(folder / name, "r:") as tar:
            while member := tar.next():
                key, about = _key(member, ".jpg"), tar.next()
                if about is None or key != _key(about, ".json"):
                    raise ValueError(f"{member.name} has no JSON behind it")
                label = json.loads(_content(tar, about))
                yield name, tar, member, key, label


def _key(member: tarfile.TarInfo, suffix: str) -> str:
    if not member.isreg() or not member.name.endswith(suffix):
        raise ValueError(f"a {suffix} should be where {member.name} is")
    return member.name.removesuffix(suffix)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is regular
    return file.read()


def facts(folder: Path) -> dict[str, Any]:
    """What `dataset.json` says.

    Raises:
        BadDataset: it is missing or altered.
    """
    path = folder / DATASET
    with readable(path):
        content = path.read_bytes()
        said: dict[str, Any] = json.loads(content)
        if said["format"] != FORMAT or content != sealed(said):
            raise ValueError("its digest is not that of what it says")
        return said


def sealed(said: dict[str, Any]) -> bytes:
    """`dataset.json` with its digest, which covers all that it says, and so all files."""
    rest = {key: value for key, value in said.items() if key != "digest"}
    digest = hashlib.sha256(_json(rest)).hexdigest()
    return _json(rest | {"digest": digest})


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever reading a file of a data set raises into a BadDataset that names it."""
    try:
        yield
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadDataset(
            f"{path} is missing, incomplete or altered: {why}. Restore it, or freeze anew.",
            path=str(path),
        ) from error


# -- taking down ----------------------------------------------------------------------------------


def excluded(folder: Path) -> frozenset[str]:
    """The keys of samples that were taken down.

    Raises:
        BadDataset: the list is missing or altered.
    """
    path = folder / EXCLUDED
    with readable(path):
        content = path.read_bytes().decode()
        keys = frozenset(line for line in content.splitlines() if KEY.fullmatch(line))
        if content != _exclusion(keys):
            raise ValueError("its last line is not the digest of the others")
        return keys


def write_excluded(folder: Path, keys: Iterable[str]) -> None:
    """Replaces the list of samples taken down, at once. Raises StorageFailed."""
    replace(folder / EXCLUDED, _exclusion(keys).encode())


def _exclusion(keys: Iterable[str]) -> str:
    lines = "".join(f"{key}\n" for key in sorted(keys))
    return f"{lines}{SEAL}{hashlib.sha256(lines.encode()).hexdigest()}\n"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one at a time change the data sets beside this one, across processes."""
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def folder_name(emoji: str) -> str:
    """An emoji's English name as a file's: `red_heart`, `flag_Italy`, `keycap_*`."""
    return re.sub(r"[^\w#*]+", "_", vocabulary.name(emoji))


# -- writing --------------------------------------------------------------------------------------


class Output(io.BufferedWriter):
    """A new file that knows its digest, and is on the disk once it is closed."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256()
        self._path = path
        with writable(path):
            super().__init__(io.FileIO(path, "wb"), 1 << 20)

    def write(self, content: Any) -> int:
        self.digest.update(content)
        with writable(self._path):
            return super().write(content)

    def close(self) -> None:
        if not self.closed:
            try:
                with writable(self._path):
                    self.flush()
                    os.fsync(self.fileno())
            finally:
                self.raw.close()


class ShardWriter:
    """Writes samples into one shard after the other; the same samples make the same bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._split, self._number, self._samples = folder, "", 0, 0
        self.output: Output | None = None
        """Of the shard at hand."""
        self._tar: tarfile.TarFile
        self.files: dict[str, dict[str, Any]] = {}
        """Of the shards that are complete."""

    def add(self, split: str, sample: Sample, classes: list[int]) -> str:
        """Adds a sample and returns its shard; all of a split come together."""
        if split != self._split:
            self.close()
            self._split, self._number = split, 0
        elif self.output and (self._samples == SHARD_SAMPLES or self._tar.offset > SHARD_BYTES):
            self.close()
            self._number += 1
        if self.output is None:
            self.name = f"{SHARDS}/{split}-{self._number:06}.tar"
            self.output, self._samples = Output(self._folder / self.name), 0
            self._tar = tarfile.TarFile(fileobj=self.output, mode="w", format=tarfile.USTAR_FORMAT)
        label = {"classes": classes, "emoji": sample.emoji}
        self._add(f"{sample.key}.jpg", sample.jpeg)
        self._add(f"{sample.key}.json", json.dumps(label, ensure_ascii=False).encode())
        self._samples += 1
        return self.name

    def _add(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)  # of nobody, of 1970: no wall clock in a data set
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def close(self) -> None:
        """Completes the shard at hand."""
        if self.output is not None:
            output, self.output = self.output, None
            with output:
                self._tar.close()
            self.files[self.name] = listed(self._folder / self.name, output)


def listed(path: Path, output: Output) -> dict[str, Any]:
    """What `dataset.json` says of a file."""
    return {"bytes": path.stat().st_size, "sha256": output.digest.hexdigest()}


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns a full or failing disk into StorageFailed, which names what could not be written."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StorageFailed(
            f"{where} cannot be written or read: {error.strerror}. Free space, or mend the disk.",
            path=str(where),
        ) from error


def replace(path: Path, content: bytes) -> None:
    """Has a file's new content in its place, and on the disk, at once. Raises StorageFailed."""
    staged = path.with_name(f".{path.name}")
    with writable(staged):
        try:
            with Output(staged) as file:
                file.write(content)
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Has a folder's changes on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
