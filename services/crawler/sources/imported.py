"""The user's own posts: a table with one post a row, or a folder of pictures sorted by emoji.

A table is CSV or TSV with a header, JSONL, or Parquet; text is UTF-8. Of each row:

- `image` is an http(s) URL, or a path relative to the table's folder, or a JSON list of these;
- `labels` are emoji in any spelling, or their names apart by commas, or a JSON list of these;
- `time` is ISO 8601 (UTC where it names no zone), or seconds since 1970;
- `id` names the post; without one its name is a hash of picture, text and author.

In a folder each sub-folder is named by an emoji or its name ("🍕", "pizza", "slice-of-pizza"), at
whatever depth its pictures lie. Files of other kinds and hidden ones are no posts.
"""

import asyncio
import contextlib
import csv
import hashlib
import json
import math
import os
import re
import textwrap
import unicodedata
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from reprlib import repr as excerpt
from typing import Any, BinaryIO, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Event, Malformed, Page, Post, PostImage
from services.crawler.sources import Plan
from services.shared import vocabulary
from services.shared.errors import BadSource

PAGE_ROWS = 500
PAGE_CHARACTERS = 4 << 20  # of captions, so that a page of giant ones fits in memory, too
MAX_ROW_BYTES = 1 << 20
MAX_URL = 4096

# What a column may hold, and what else it may be called.
COLUMNS = {
    "image": ("image url", "image path", "img", "picture", "photo", "url", "path", "filename"),
    "text": ("caption", "message", "body"),
    "labels": ("label", "emoji", "emojis"),
    "author": ("author id", "user", "user id", "username"),
    "time": ("timestamp", "created at", "created time", "date"),
    "segment": ("brand", "country"),
    "id": ("post id", "uri"),
}
_PICTURE = re.compile(r"\.(jpe?g?|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])$", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)

_SHORTER = "has become shorter since it was last read: start another crawl"
_SEPARATOR = re.compile(r"[\s'\"\[\]]*[,;|\n\[\]]['\"\s]*")  # Python's lists, too

_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

Fields: TypeAlias = Mapping[str, Any]


class _Row(NamedTuple):
    where: str
    fields: Fields | str
    """By `COLUMNS`; or why there are none."""
    position: Sequence[int | str]
    """Behind it."""


class ImportedSource:
    """Posts from a file or folder of the user's own."""

    def __init__(self, settings: pb.ImportSource) -> None:
        if not settings.path:
            raise BadSource("`path` is empty, and should name a file or folder.")
        self._path = Path(settings.path)
        self._columns = dict(settings.columns)

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        pages = self._pages(cursor)
        while page := await asyncio.to_thread(next, pages, None):
            yield page

    def _pages(self, cursor: str) -> Iterator[Page]:
        row, events, characters = None, list[Event](), 0
        try:
            for row in self._rows(json.loads(cursor or "[]")):
                event = _event(row, self._path.parent)
                events.append(event)
                characters += len(event.text) if isinstance(event, Post) else 0
                if len(events) == PAGE_ROWS or characters > PAGE_CHARACTERS:
                    yield Page(events, json.dumps(row.position))
                    events, characters = [], 0
        except OSError as error:
            raise _bad(self._path, f"cannot be read: {error.strerror or error}") from None
        if events and row:
            yield Page(events, json.dumps(row.position))
        if not row and not cursor:
            raise _bad(self._path, "is empty: it should have at least one post")

    def _rows(self, position: list[Any]) -> Iterator[_Row]:
        if self._path.is_dir():
            return _folder(self._path, position)
        if not self._path.is_file():
            raise _bad(self._path, "is no file or folder where the crawler runs")
        match self._path.suffix.lower():
            case ".csv" | ".tsv":
                return _csv(self._path, self._columns, position)
            case ".jsonl" | ".ndjson":
                return _jsonl(self._path, self._columns, position)
            case ".parquet":
                return _parquet(self._path, self._columns, position)
        kinds = "a .csv, .tsv, .jsonl or .parquet file, or a folder of pictures"
        raise _bad(self._path, f"is of no known kind: it should be {kinds}")


def _bad(path: Path, what: str) -> BadSource:
    return BadSource(f"{path} {what}.", path=str(path))


class _Lines:
    """The lines of a table, from which one can go on at any row."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.go_to(0, 0)

    def go_to(self, offset: int, number: int) -> None:
        """Goes to the byte where a row begins, behind so many lines."""
        if offset > os.fstat(self._file.fileno()).st_size:
            raise _bad(self._path, _SHORTER)
        self._file.seek(offset)
        self._number = number

    def begin_row(self) -> None:
        self.row = self._number + 1
        self._left = MAX_ROW_BYTES

    def give_up_row(self) -> None:
        """Goes on behind the row's first line, however many lines it seemed to have."""
        self.go_to(*self._second)

    @property
    def position(self) -> tuple[int, int]:
        return self._file.tell(), self._number

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = piece = self._file.readline(self._left + 1)
        if not line:
            raise StopIteration
        while len(line) > self._left and piece and not piece.endswith(b"\n"):
            piece = self._file.readline(1 << 16)
        self._number += 1
        if self._number == self.row:
            self._second = self.position
        if len(line) > self._left:
            raise ValueError(f"it has more than {MAX_ROW_BYTES} bytes")
        self._left -= len(line)
        # Bytes that are no UTF-8 harm only their own field, and only if it is one of ours.
        text = line.decode(errors="surrogateescape")
        return text.removeprefix("\ufeff") if self._number == 1 else text


def _csv(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[_Row]:
    csv.field_size_limit(MAX_ROW_BYTES)
    with path.open("rb") as file:
        tabs = path.suffix.lower() == ".tsv"
        first = "\t" if tabs else file.readline(MAX_ROW_BYTES).decode("latin-1")
        delimiter = max(",;\t", key=first.count)
        lines = _Lines(path, file)
        header = _csv_row(lines, delimiter)
        if header is None:
            return
        if isinstance(header, str):
            raise _bad(path, f"has no header: {header}")
        chosen = {key: header.index(name) for key, name in _choose(path, header, mapped).items()}
        if position:
            lines.go_to(*position)
        while (row := _csv_row(lines, delimiter)) is not None:
            fields: Fields | str
            if isinstance(row, str):
                fields = row
            elif len(row) == len(header):
                fields = {key: row[index] for key, index in chosen.items()}
            else:
                fields = f"it has {len(row)} fields, and the header {len(header)}"
            if row:
                yield _Row(f"{path.name} line {lines.row}", fields, lines.position)


def _csv_row(lines: _Lines, delimiter: str) -> list[str] | str | None:
    """The fields of the next row, or why it has none; None at the end."""
    lines.begin_row()
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True), None)
    except (csv.Error, ValueError) as error:
        lines.give_up_row()  # lest a quote that is never closed swallow all that follows
        return f"it is no row of CSV: {error}"


def _jsonl(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[_Row]:
    with path.open("rb") as file:
        lines = _Lines(path, file)
        first = islice(_objects(lines), PAGE_ROWS)
        names = {name: None for found in first if isinstance(found, dict) for name in found}
        if lines.position == (0, 0):
            return
        chosen = _choose(path, names, mapped)
        lines.go_to(*position or (0, 0))
        for found in _objects(lines):
            if isinstance(found, dict):
                found = {key: found.get(name) for key, name in chosen.items()}
            yield _Row(f"{path.name} line {lines.row}", found, lines.position)


def _objects(lines: _Lines) -> Iterator[dict[str, Any] | str]:
    """The objects of the lines, or why a line has none."""
    while True:
        lines.begin_row()
        try:
            line = next(lines, None)
            if line is None:
                return
            if not line.strip():
                continue
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"it is no JSON: {str(error).replace(': line 1', ' at')}"
        else:
            yield found if isinstance(found, dict) else f"{excerpt(found)} is no JSON object"


def _parquet(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[_Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    (start,), number = position or (0,), 0
    try:
        # With a buffer it reads as it goes, without one a whole column of a row group at once.
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as table:
            if start > table.metadata.num_rows:
                raise _bad(path, _SHORTER)
            chosen = _choose(path, table.schema_arrow.names, mapped)
            for group in range(table.num_row_groups):
                if number + (rows := table.metadata.row_group(group).num_rows) <= start:
                    number += rows
                    continue
                names = list(chosen.values())
                for batch in table.iter_batches(PAGE_ROWS, row_groups=[group], columns=names):
                    if number + batch.num_rows <= start:
                        number += batch.num_rows
                        continue
                    for fields in _records(batch, chosen):
                        number += 1
                        if number > start:
                            yield _Row(f"{path.name} row {number}", fields, (number,))
    except pyarrow.ArrowException as error:
        raise _bad(path, f"is no Parquet, or damaged: {error}") from None


def _records(batch: Any, chosen: Mapping[str, str]) -> Iterator[Fields | str]:
    """The rows of a batch of Parquet, or why one has none."""
    import pyarrow
    import pyarrow.compute as compute  # type: ignore[import-untyped]

    columns = {key: batch.column(name) for key, name in chosen.items()}
    time = columns.get("time")
    if time is not None and pyarrow.types.is_date(time.type):
        time = time.cast(pyarrow.timestamp("s"), safe=False)
    if time is not None and pyarrow.types.is_timestamp(time.type):
        # Seconds, since Python has no nanoseconds, and not every year.
        ticks = time.cast(pyarrow.int64()).cast(pyarrow.float64(), safe=False)
        columns["time"] = compute.divide(ticks, _TICKS[time.type.unit])
    for number in range(batch.num_rows):
        try:
            yield {key: column[number].as_py() for key, column in columns.items()}
        except (ValueError, OverflowError) as error:
            yield f"it is unreadable: {error}"


def _folder(folder: Path, after: list[str]) -> Iterator[_Row]:
    """The pictures in the order of their paths, of which `after` has the parts."""
    ahead: list[tuple[list[str], bool]] = [([], True)]
    while ahead:
        parts, is_folder = ahead.pop()
        path = folder.joinpath(*parts)
        if is_folder:
            with os.scandir(path) as entries:
                found = [
                    ([*parts, entry.name], entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if not entry.name.startswith(".")
                ]
            # A folder on the way to `after` still has what is behind it, and no more.
            ahead += sorted(
                (
                    (at, branch)
                    for at, branch in found
                    if at > after or (branch and at == after[: len(at)])
                ),
                reverse=True,
            )
        elif _PICTURE.search(path.name):
            fields: Fields | str = {"image": path.absolute().as_uri(), "labels": [parts[0]]}
            if len(parts) == 1:
                fields = "it lies in no sub-folder that is named by an emoji"
            where = "/".join(parts).encode(errors="backslashreplace").decode()
            yield _Row(where, fields, parts)


def _choose(path: Path, names: Iterable[str], mapped: Mapping[str, str]) -> dict[str, str]:
    """Which column is what: as mapped, else by its name, else by another name for it."""
    names = list(names)
    there = f"its columns are {textwrap.shorten(', '.join(names) or 'none', 500)}"
    if unknown := mapped.keys() - COLUMNS.keys():
        holds = ", ".join(COLUMNS)
        raise _bad(path, f"has no column that can be mapped as {min(unknown)!r}: {holds} can")
    chosen: dict[str, str] = {}
    for key, others in COLUMNS.items():
        if key in mapped:
            found = [name for name in names if name == mapped[key]]
            if not found:
                raise _bad(path, f"has no column {mapped[key]!r} for {key!r}: {there}")
        else:
            free = [name for name in names if name not in mapped.values()]
            found = [name for name in free if _plain(name) == key]
            found = found or [name for name in free if _plain(name) in others]
        if len(found) > 1:
            raise _bad(path, f"has several columns that may be {key!r}: map one of {found}")
        chosen.update((key, name) for name in found)
    if "image" not in chosen or not chosen.keys() & {"text", "labels"}:
        raise _bad(path, f"needs a column 'image', and 'text' or 'labels' or both: {there}")
    return chosen


def _plain(name: str) -> str:
    """A name with neither case nor punctuation.

    >>> _plain(":Slice-of_pizza:")
    'slice of pizza'
    """
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def _event(row: _Row, folder: Path) -> Event:
    if isinstance(row.fields, str):
        return Malformed(row.where, row.fields)
    try:
        return _post(row.fields, folder)
    except ValueError as error:
        return Malformed(row.where, str(error))


def _post(fields: Fields, folder: Path) -> Post:
    urls = [_url(image, folder) for image in _texts("image", fields.get("image"))]
    if not urls:
        raise ValueError("it has no image")
    text, author, segment, name = (
        _text(key, fields.get(key)) for key in ("text", "author", "segment", "id")
    )
    content = "\0".join([*urls, text, author]).encode()
    return Post(
        uri=name or hashlib.sha256(content).hexdigest()[:32],
        text=text,
        images=[PostImage(url) for url in urls],
        author=author,
        time_seconds=_seconds(_text("time", fields.get("time"))),
        segment=segment,
        labels=_labels(_texts("labels", fields.get("labels"))),
    )


def _text(key: str, value: object) -> str:
    if value is None or value != value:  # NaN stands for what is missing
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"its {key} is {excerpt(value)}, and should be text")
    text = str(value).strip()
    if len(text) > MAX_ROW_BYTES:
        raise ValueError(f"its {key} has more than {MAX_ROW_BYTES} characters")
    if "\0" in text:
        raise ValueError(f"its {key} has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"its {key} is not UTF-8, from character {error.start} on") from None
    return text


def _texts(key: str, value: object) -> list[str]:
    """The texts of a list, of a JSON list, or of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    found = value if isinstance(value, list) else [value]
    return [text for each in found if (text := _text(key, each))]


def _url(image: str, folder: Path) -> str:
    if len(image) > MAX_URL:
        raise ValueError(f"its image has an address of more than {MAX_URL} characters")
    if image.lower().startswith(("http://", "https://")):
        if not urlsplit(image).hostname:
            raise ValueError(f"its image {excerpt(image)} is on no host")
        return image
    if image.startswith("file:///"):
        return image
    if _OTHER_SCHEME.match(image):
        raise ValueError(f"its image {excerpt(image)} should be an http(s) URL or a path")
    return Path(os.path.abspath(folder / image)).as_uri()


def _seconds(time: str) -> float:
    """Since 1970.

    >>> _seconds("2015-09-05T01:59:03Z"), _seconds("20150905"), _seconds("1441418343.5")
    (1441418343.0, 1441411200.0, 1441418343.5)
    """
    if not time:
        return 0.0
    seconds = math.nan
    try:
        moment = datetime.fromisoformat(time)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        with contextlib.suppress(ValueError):
            seconds = float(time)
    if not 0 <= seconds < 2**32:
        raise ValueError(f"its time {excerpt(time)} should be ISO 8601, or seconds since 1970")
    return seconds


def _labels(texts: Iterable[str]) -> list[str]:
    """The emoji in labels. What is none matters only where nothing else is one."""
    parts = [part for text in texts for part in _SEPARATOR.split(text) if part]
    found = [emoji for part in parts for emoji in _emoji(part)]
    if parts and not found:
        raise ValueError(f"{excerpt(', '.join(parts))} is no emoji of the inventory, nor its name")
    return list(dict.fromkeys(found))


def _emoji(label: str) -> list[str]:
    called = _names().get(_plain(label))
    return vocabulary.find(label, hashtag=True) or ([called] if called else [])


@cache
def _names() -> dict[str, str]:
    """Emoji by what CLDR calls them, or else by what Unicode calls their only character."""
    characters = {text.rstrip("\ufe0f"): text for text, *_ in vocabulary.inventory()}
    unicode = {_plain(unicodedata.name(c)): text for c, text in characters.items() if len(c) == 1}
    return unicode | {_plain(name): text for text, name, *_ in vocabulary.inventory()}
