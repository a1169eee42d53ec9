"""What an atlas is made of: pictures with their emoji, and the posts that showed them.

A data set has both: its shards hold pictures, its manifest posts. A folder `emoji_name/*.jpg` has
pictures with emoji, a bare folder has pictures alone, whose emoji a model must guess. What was
taken down is left out, and counted.
"""

# S pictures, P posts, M mentions

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from services.shared import pixels, shards
from services.shared.errors import BadDataset, UnknownDataset
from services.shared.shards import SPLITS, readable
from services.shared.vocabulary import Vocabulary, inventory
from services.trainer import samples
from services.trainer.samples import SUFFIXES, Samples

MANIFEST = "manifest.parquet"
COLUMNS = ("key", "source", "uri", "author", "time", "segment", "emoji", "hashtags", "words")
ROWS = 10_000  # in memory at a time
MAX_PICTURES = 2_000_000
MAX_TERM = 64  # characters
COPIES = 3  # posts that say the same in one week are a campaign, if they say so much:
COPIED_TERMS = 4
WEEK_SECONDS = 7 * 86_400.0


class Place(NamedTuple):
    """Where a picture is read."""

    samples: Samples
    number: int
    split: str


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Pictures and posts, by number."""

    name: str
    kind: str
    """`data set`, `folder` of emoji's names, or `pictures`."""
    digest: str
    emoji: tuple[str, ...]
    keys: Sequence[str]
    """Of the pictures, each the sha256 of its original."""
    places: Sequence[Place]
    labels: Sequence[tuple[int, ...]]
    """Of the pictures: places in `emoji`."""
    posts: "Posts"
    removed: int
    """Pictures that were taken down since the data set was frozen."""

    def read(self, picture: int) -> bytes:
        """An encoded picture. Raises BadDataset if its file is broken."""
        place = self.places[picture]
        return place.samples.read(place.number)


@dataclass(frozen=True, kw_only=True)
class Posts:
    """Posts as columns; none where there are only pictures."""

    uri: Sequence[str]
    author: np.ndarray
    """(P,) whose posts stand and fall together: an author, or a campaign; a number of its own for
    a post of nobody known."""
    authors_known: bool
    seconds: np.ndarray
    """(P,) since 1970, NaN where unknown."""
    segment: Sequence[str]
    emoji: Sequence[tuple[int, ...]]
    terms: Sequence[tuple[str, ...]]
    """Words, and hashtags with their #, in small letters, each once."""
    pictures: Sequence[tuple[int, ...]]
    of_picture: Sequence[tuple[int, ...]]
    """For each picture, its posts."""

    def __len__(self) -> int:
        return len(self.uri)


def opened(path: Path) -> Corpus:
    """The corpus of a data set or folder.

    Raises:
        UnknownDataset: it is not there.
        BadDataset: it is broken, or has no picture.
    """
    if not path.is_dir():
        raise UnknownDataset(
            f"There is no data set or folder {path}. `emojinet dataset list` names data sets.",
            name=str(path),
        )
    if not samples.has_emoji(path):
        return _bare(path)
    known = samples.vocabulary(path)
    kept = {split: found for split, found in samples.everything(path, known)}
    places = [
        Place(found, number, split)
        for split, found in kept.items()
        for number in range(len(found.classes))
    ]
    is_version = (path / shards.DATASET).exists()
    if not places:
        raise BadDataset(
            f"{path} has no picture that is left: crawl more, and freeze anew.", path=str(path)
        )
    keys = [place.samples.keys[place.number] for place in places]
    labels = [place.samples.classes[place.number] for place in places]
    posts = _posts(path, known, keys, labels) if is_version else _no_posts(labels)
    return Corpus(
        name=path.resolve().name,
        kind="data set" if is_version else "folder",
        digest=samples.named(path),
        emoji=known.emoji,
        keys=keys,
        places=places,
        labels=labels,
        posts=posts,
        removed=len(shards.excluded(path)) if is_version else 0,
    )


# -- posts ----------------------------------------------------------------------------------------


class Post(NamedTuple):
    """One post."""

    uri: str
    author: str
    seconds: float
    segment: str
    emoji: tuple[int, ...]
    terms: tuple[str, ...]


def _posts(
    folder: Path, known: Vocabulary, keys: Sequence[str], labels: Sequence[tuple[int, ...]]
) -> Posts:
    """From the manifest: a row for each post of each picture becomes one for each post."""
    number_of = {key: number for number, key in enumerate(keys)}
    found: dict[tuple[str, str], tuple[Post, list[int]]] = {}
    path = folder / MANIFEST
    with readable(path):
        for row in _rows(path):
            picture = number_of.get(row["key"])
            if picture is None:  # taken down
                continue
            place = (row["source"] or "", row["uri"] or "")
            if place not in found:
                found[place] = (_post(row, known), [])
            pictures = found[place][1]
            if picture not in pictures:
                pictures.append(picture)
    entries = [entry for _, entry in sorted(found.items()) if entry[0].emoji]
    return columns([post for post, _ in entries], [tuple(p) for _, p in entries], len(labels))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS, columns=list(COLUMNS)):
            times = batch.column("time").cast("int64").to_pylist()
            rest = batch.drop_columns(["time"]).to_pylist()
            for row, time in zip(rest, times, strict=True):
                yield row | {"time": time}


def _post(row: dict[str, Any], known: Vocabulary) -> Post:
    own = {known.index(form) for form in row["emoji"] or ()} - {None}
    tags = [f"#{tag.lower()[:MAX_TERM]}" for tag in row["hashtags"] or () if tag]
    words = [word.lower()[:MAX_TERM] for word in row["words"] or () if word]
    return Post(
        uri=row["uri"] or "",
        author=row["author"] or "",
        seconds=float("nan") if row["time"] is None else row["time"] / 1e6,
        segment=row["segment"] or "",
        emoji=tuple(sorted(index for index in own if index is not None)),
        terms=tuple(dict.fromkeys(tags + words)),
    )


def columns(posts: list[Post], pictures: list[tuple[int, ...]], count: int) -> Posts:
    """Posts as columns, with the pictures that each shows, of so many."""
    of_picture: list[list[int]] = [[] for _ in range(count)]
    for number, shown in enumerate(pictures):
        for picture in shown:
            of_picture[picture].append(number)
    return Posts(
        uri=[post.uri for post in posts],
        author=_standing_together(posts),
        authors_known=any(post.author for post in posts),
        seconds=np.array([post.seconds for post in posts], float),
        segment=[post.segment for post in posts],
        emoji=[post.emoji for post in posts],
        terms=[post.terms for post in posts],
        pictures=pictures,
        of_picture=[tuple(numbers) for numbers in of_picture],
    )


def _standing_together(posts: list[Post]) -> np.ndarray:
    """A number for each author; one for all who post the very same words in the same week."""
    copies: dict[tuple[int, tuple[str, ...]], set[int]] = {}
    for number, post in enumerate(posts):
        if len(post.terms) >= COPIED_TERMS and np.isfinite(post.seconds):
            week = int(post.seconds // WEEK_SECONDS)
            copies.setdefault((week, post.terms), set()).add(number)
    names: dict[object, int] = {}
    who: list[object] = [post.author or number for number, post in enumerate(posts)]
    for campaign, numbers in copies.items():
        if len(numbers) >= COPIES:
            for number in numbers:
                who[number] = campaign
    return np.array([names.setdefault(one, len(names)) for one in who], np.int64)


def _no_posts(labels: Sequence[tuple[int, ...]]) -> Posts:
    """Pictures alone: each stands for a post that says nothing, of an author of its own."""
    posts = [Post("", "", float("nan"), "", own, ()) for own in labels]
    return columns(posts, [(number,) for number in range(len(labels))], len(labels))


# -- a bare folder --------------------------------------------------------------------------------


class Loose:
    """The pictures of a folder and those below it; nobody says which emoji they have."""

    def __init__(self, folder: Path) -> None:
        paths: dict[str, Path] = {}
        with readable(folder):
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    with path.open("rb") as file:
                        paths.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
        self.keys: Sequence[str] = sorted(paths)
        self.classes: Sequence[tuple[int, ...]] = [()] * len(paths)
        self._paths = [paths[key] for key in self.keys]

    def read(self, number: int) -> bytes:
        """An encoded picture. Raises BadDataset if it cannot be read."""
        with readable(self._paths[number]), self._paths[number].open("rb") as file:
            return file.read(pixels.MAX_BYTES + 1)  # one too many is enough to refuse it


def _bare(folder: Path) -> Corpus:
    found = Loose(folder)
    if not found.keys:
        raise BadDataset(
            f"{folder} has no pictures: name a data set, or a folder with pictures in it.",
            path=str(folder),
        )
    labels: list[tuple[int, ...]] = [()] * len(found.keys)
    return Corpus(
        name=folder.resolve().name,
        kind="pictures",
        digest=hashlib.sha256("\n".join(found.keys).encode()).hexdigest(),
        emoji=tuple(one.text for one in inventory()),
        keys=found.keys,
        places=[Place(found, number, SPLITS[-1]) for number in range(len(labels))],
        labels=labels,
        posts=_no_posts([]),
        removed=0,
    )


def guessed(corpus: Corpus, labels: Sequence[tuple[int, ...]]) -> Corpus:
    """The corpus with the emoji that a model sees in its pictures."""
    facts = {name: getattr(corpus, name) for name in corpus.__dataclass_fields__}
    return Corpus(**facts | {"labels": labels, "posts": _no_posts(labels)})
