"""The pictures of a split by number, wherever they lie: a data set version, or a folder.

Opening reads where each picture lies and which emoji it has, and no picture: a million samples in
shards take about a minute and 100 MB. Reading is one `pread`, from any thread.
"""

# N samples

import difflib
import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, overload

from services.shared import pixels, shards
from services.shared.cores import cores
from services.shared.errors import BadDataset, UnknownDataset
from services.shared.shards import SPLITS, readable
from services.shared.vocabulary import Vocabulary, canonical, inventory

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
OPEN_SHARDS = 64
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.1  # of a folder that has no splits
KEY_BYTES = 32


class Samples(Protocol):
    """The pictures of one split, by number."""

    @property
    def keys(self) -> Sequence[str]:
        """The sha256 of each original, in the data set's order."""

    @property
    def classes(self) -> Sequence[tuple[int, ...]]:
        """Which emoji of the vocabulary each has, at least one."""

    def read(self, number: int) -> bytes:
        """An encoded picture. Raises BadDataset if its file is broken."""


class Keys(Sequence[str]):
    """The keys of many samples, in 32 bytes each."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def append(self, key: str) -> None:
        """Adds a key; raises ValueError unless it is a sha256."""
        if not shards.KEY.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is no sha256")
        self._bytes += bytes.fromhex(key)

    def __len__(self) -> int:
        return len(self._bytes) // KEY_BYTES

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        start = range(len(self))[number] * KEY_BYTES
        return self._bytes[start : start + KEY_BYTES].hex()


class Shards:
    """The samples of a split of a data set version."""

    def __init__(self, folder: Path, split: str, vocabulary: Vocabulary) -> None:
        self.keys, self.classes = Keys(), list[tuple[int, ...]]()
        self._folder, self._names = folder, list[str]()
        self._shards, self._offsets, self._sizes = array("I"), array("Q"), array("I")
        self._open = lru_cache(OPEN_SHARDS)(_Open)
        self._excluded_stat = _stat(folder / shards.EXCLUDED)
        gone, classes = shards.excluded(folder), _Classes(vocabulary)
        for place in shards.read_places(folder, split):
            if place.key in gone or not (own := classes.of(place.emoji)):
                continue
            if not self._names or place.shard != self._names[-1]:
                self._names.append(place.shard)
            with readable(folder / place.shard):
                self.keys.append(place.key)
            self.classes.append(own)
            self._shards.append(len(self._names) - 1)
            self._offsets.append(place.offset)
            self._sizes.append(place.bytes)

    def read(self, number: int) -> bytes:
        path, size = self._folder / self._names[self._shards[number]], self._sizes[number]
        with readable(path):
            file = self._open(path)  # held: what no cache holds is closed when nobody does
            content = os.pread(file.descriptor, size, self._offsets[number])
            if len(content) < size:
                raise ValueError("it ends within a sample")
            return content

    def taken_down(self) -> frozenset[str] | None:
        """The keys excluded by now; None if nothing changed since this was asked or opened."""
        stat = _stat(self._folder / shards.EXCLUDED)
        if stat == self._excluded_stat:
            return None
        self._excluded_stat = stat
        return shards.excluded(self._folder)


class Files:
    """The samples of a split of a folder."""

    def __init__(self, entries: Iterable["Entry"], vocabulary: Vocabulary) -> None:
        self.keys, self.classes = Keys(), list[tuple[int, ...]]()
        self._paths, classes = list[str](), _Classes(vocabulary)
        for entry in entries:
            if own := classes.of(entry.emoji):
                self.keys.append(entry.key)
                self.classes.append(own)
                self._paths.append(entry.path)

    def read(self, number: int) -> bytes:
        path = Path(self._paths[number])
        with readable(path):
            # As plain as can be: a file object takes a twentieth of the time of decoding.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                size = os.fstat(descriptor).st_size
                # One byte too many is enough to refuse it.
                return os.read(descriptor, min(size, pixels.MAX_BYTES + 1))
            finally:
                os.close(descriptor)


class Entry(NamedTuple):
    """A picture of a folder."""

    key: str
    split: str
    path: str
    emoji: tuple[str, ...]


def opened(dataset: Path, split: str, vocabulary: Vocabulary) -> Samples:
    """The samples of a split that have emoji of the vocabulary, but for those excluded.

    Args:
        dataset: a version; or a folder `split/emoji_name/*.jpg`, as versions are exported to; or
            one `emoji_name/*.jpg`, whose pictures then are split by their digest.

    Raises:
        UnknownDataset: it is not there.
        BadDataset: it is broken, or too little of it is there.
    """
    if split not in SPLITS:
        raise ValueError(f"{split!r} is none of {', '.join(SPLITS)}")
    found: Shards | Files
    if _is_version(dataset):
        found = Shards(dataset, split, vocabulary)
    else:
        found = Files((one for one in _entries(dataset) if one.split == split), vocabulary)
    if not found.classes:
        raise BadDataset(
            f"The split {split!r} of {dataset} has no samples with emoji of the vocabulary. "
            "Freeze it with a larger share, or take another data set.",
            path=str(dataset),
        )
    return found


def everything(dataset: Path, vocabulary: Vocabulary) -> Iterator[tuple[str, Samples]]:
    """Every split with its samples, however few. Raises as `opened`."""
    if _is_version(dataset):
        yield from ((split, Shards(dataset, split, vocabulary)) for split in SPLITS)
        return
    entries = _entries(dataset)
    for split in SPLITS:
        yield split, Files((one for one in entries if one.split == split), vocabulary)


def has_emoji(dataset: Path) -> bool:
    """Whether this is a data set, or a folder with folders named after emoji."""
    if _is_version(dataset):
        return True
    with readable(dataset):
        roots = [dataset, *(path for path in _folders(dataset) if path.name in SPLITS)]
        names = [path.name for root in roots for path in _folders(root)]
    return any(name in _names() or canonical(name) for name in names)


def vocabulary(dataset: Path) -> Vocabulary:
    """The emoji of a data set: a version's own; a folder's by how often they are trained.

    Raises:
        UnknownDataset, BadDataset: as `opened` does.
    """
    if _is_version(dataset):
        path = dataset / "vocabulary.json"
        with readable(path):
            return Vocabulary.from_json(path.read_bytes())
    counts: Counter[str] = Counter()
    for entry in _entries(dataset):
        for emoji in entry.emoji:
            counts[emoji] += entry.split == "train"
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    with readable(dataset):
        return Vocabulary(tuple(emoji for emoji, _ in ranked), tuple(n for _, n in ranked))


def verify(dataset: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The digest of a data set, all of whose bytes are what `dataset.json` says.

    A folder's is made of the names of its pictures, which say nothing of their bytes.

    Args:
        progress: is told how many bytes are checked, of how many.

    Raises:
        UnknownDataset: it is not there.
        BadDataset: a file is missing or altered; says which, and what to do.
    """
    if not _is_version(dataset):
        return named(dataset)
    said = shards.facts(dataset)
    with readable(dataset / shards.DATASET):
        listed = [(name, facts["bytes"], facts["sha256"]) for name, facts in said["files"].items()]
        done, total = 0, sum(size for _, size, _ in listed)
    shards.excluded(dataset)
    with ThreadPoolExecutor(cores()) as pool:
        checks = pool.map(lambda file: _check(dataset / file[0], *file[1:]), listed)
        for _, (_, size, _) in zip(checks, listed, strict=True):
            done += size
            progress(done, total)
    return str(said["digest"])


def named(dataset: Path) -> str:
    """The digest of a data set, nothing of which is checked. Raises as `verify`."""
    if _is_version(dataset):
        return str(shards.facts(dataset)["digest"])
    digest = hashlib.sha256()
    for entry in _entries(dataset):
        digest.update(f"{entry.key} {entry.split} {' '.join(entry.emoji)}\n".encode())
    return digest.hexdigest()


def digest(samples: Samples) -> str:
    """Names the pictures of a split in their order: what features of them are kept under."""
    return hashlib.sha256("\n".join(samples.keys).encode()).hexdigest()


def _check(path: Path, size: int, sha256: str) -> None:
    with readable(path), path.open("rb") as file:
        if (found := os.fstat(file.fileno()).st_size) != size:
            raise ValueError(f"it has {found} bytes, not the {size} that dataset.json lists")
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError("its bytes are not those that dataset.json lists")


def _stat(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is replaced."""
    try:
        found = path.stat()
    except OSError:  # reading it will say so
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class _Open:
    """An open file, closed when nobody reads it any more: not while another thread still does."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _Classes:
    """Classes of emoji, each combination once in memory."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary, self._known = vocabulary, dict[tuple[str, ...], tuple[int, ...]]()

    def of(self, emoji: Iterable[str]) -> tuple[int, ...]:
        """The places of those that the vocabulary has, in order."""
        spelled = tuple(emoji)
        if spelled not in self._known:
            found = {self._vocabulary.index(one) for one in spelled} - {None}
            self._known[spelled] = tuple(sorted(index for index in found if index is not None))
        return self._known[spelled]


# -- folders --------------------------------------------------------------------------------------


def _is_version(dataset: Path) -> bool:
    if not os.path.isdir(dataset):
        raise UnknownDataset(
            f"There is no data set {dataset}. Name the folder of one that was frozen or exported.",
            name=str(dataset),
        )
    if (dataset / shards.DATASET).exists():
        return True
    if (dataset / shards.SHARDS).exists():
        raise BadDataset(
            f"{dataset} has shards and no {shards.DATASET}: it was not frozen to the end, or "
            "copied in part. Freeze it anew, or copy all of it.",
            path=str(dataset),
        )
    return False


def _entries(dataset: Path) -> list[Entry]:
    """The pictures of a folder by their keys, one with all emoji whose folders it is in."""
    with readable(dataset):
        parts = {path.name for path in _folders(dataset)} & set(SPLITS)
        roots = [(split, dataset / split) for split in SPLITS if split in parts]
        found: dict[tuple[str, str], tuple[str, set[str]]] = {}
        for split, root in roots or [("", dataset)]:
            for folder in _folders(root):
                emoji = _emoji_named(folder)
                for path in _pictures(folder):
                    key = _key(path)
                    slot = split or _split(key)
                    found.setdefault((key, slot), (str(path), set()))[1].add(emoji)
    if not found:
        raise BadDataset(
            f"{dataset} has neither {shards.DATASET} nor folders of pictures named after emoji, "
            "such as red_heart/1.jpg. Name a data set version, or such a folder.",
            path=str(dataset),
        )
    return [
        Entry(key, split, path, tuple(sorted(emoji)))
        for (key, split), (path, emoji) in sorted(found.items())
    ]


def _folders(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield path


def _key(path: Path) -> str:
    """A picture's name if that is its original's digest, as in exports; else its own digest."""
    if shards.KEY.fullmatch(path.stem):
        return path.stem
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(key: str) -> str:
    chance = int(key[:8], 16) / 2**32
    if chance < TEST_SHARE:
        return "test"
    return "validation" if chance < TEST_SHARE + VALIDATION_SHARE else "train"


def _emoji_named(folder: Path) -> str:
    """The emoji that a folder is named after, in English or by itself."""
    names = _names()
    emoji = names.get(folder.name) or canonical(folder.name)
    if emoji:
        return emoji
    try:
        return Vocabulary((folder.name,), (0,)).emoji[0]  # of a later inventory
    except ValueError:
        close = difflib.get_close_matches(folder.name, names, 1)
        raise BadDataset(
            f"The folder {folder} is named after no emoji"
            + (f"; is it {close[0]}? " if close else ". ")
            + "Name it in English, such as red_heart, or by the emoji itself.",
            path=str(folder),
        ) from None


@lru_cache(1)
def _names() -> dict[str, str]:
    return {shards.folder_name(emoji.text): emoji.text for emoji in inventory()}
