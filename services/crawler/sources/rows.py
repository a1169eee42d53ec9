"""The rows of a user's own table, or of a folder of pictures, and where to go on behind each."""

import csv
import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from reprlib import repr as excerpt
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from services.shared.errors import BadSource

BATCH_ROWS = 500  # of a table's, that are looked at for its columns, or read at a time
MAX_ROW_BYTES = 1 << 20

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
_SHORTER = "has become shorter since it was last read: start another crawl"
_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

Fields: TypeAlias = Mapping[str, Any]


class Row(NamedTuple):
    """What one row says."""

    where: str
    fields: Fields | str
    """By `COLUMNS`; or why there are none."""
    position: Sequence[int | str]
    """Behind it."""


def read(path: Path, mapped: Mapping[str, str], position: list[Any]) -> Iterator[Row]:
    """Those behind a position, or all of them.

    Args:
        mapped: by `COLUMNS`, what a column is called where its name does not tell.
        position: that of the last row that was read before, or nothing.

    Raises:
        BadSource: there is no such file or folder, or it is not what it should be.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return _folder(path, position)
    if not path.is_file():
        raise bad(path, "is no file or folder where the crawler runs")
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _csv(path, mapped, position)
        case ".jsonl" | ".ndjson":
            return _jsonl(path, mapped, position)
        case ".parquet":
            return _parquet(path, mapped, position)
    kinds = "a .csv, .tsv, .jsonl or .parquet file, or a folder of pictures"
    raise bad(path, f"is of no known kind: it should be {kinds}")


def bad(path: Path, what: str) -> BadSource:
    """The error of a table or folder as a whole."""
    return BadSource(f"{path} {what}.", path=str(path))


class _Lines:
    """The lines of a table, from which one can go on at any row."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.go_to(0, 0)

    def go_to(self, offset: int, number: int) -> None:
        """Goes to the byte where a row begins, behind so many lines."""
        if offset > os.fstat(self._file.fileno()).st_size:
            raise bad(self._path, _SHORTER)
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


def _csv(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[Row]:
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
            raise bad(path, f"has no header: {header}")
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
                yield Row(f"{path.name} line {lines.row}", fields, lines.position)


def _csv_row(lines: _Lines, delimiter: str) -> list[str] | str | None:
    """The fields of the next row, or why it has none; None at the end."""
    lines.begin_row()
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True), None)
    except (csv.Error, ValueError) as error:
        lines.give_up_row()  # lest a quote that is never closed swallow all that follows
        return f"it is no row of CSV: {error}"


def _jsonl(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = _Lines(path, file)
        first = islice(_objects(lines), BATCH_ROWS)
        names = {name: None for found in first if isinstance(found, dict) for name in found}
        if lines.position == (0, 0):
            return
        chosen = _choose(path, names, mapped)
        lines.go_to(*position or (0, 0))
        for found in _objects(lines):
            if isinstance(found, dict):
                found = {key: found.get(name) for key, name in chosen.items()}
            yield Row(f"{path.name} line {lines.row}", found, lines.position)


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


def _parquet(path: Path, mapped: Mapping[str, str], position: Sequence[int]) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    (start,), number = position or (0,), 0
    try:
        # With a buffer it reads as it goes, without one a whole column of a row group at once.
        with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as table:
            if start > table.metadata.num_rows:
                raise bad(path, _SHORTER)
            chosen = _choose(path, table.schema_arrow.names, mapped)
            for group in range(table.num_row_groups):
                if number + (rows := table.metadata.row_group(group).num_rows) <= start:
                    number += rows
                    continue
                names = list(chosen.values())
                for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
                    if number + batch.num_rows <= start:
                        number += batch.num_rows
                        continue
                    for fields in _records(batch, chosen):
                        number += 1
                        if number > start:
                            yield Row(f"{path.name} row {number}", fields, (number,))
    except pyarrow.ArrowException as error:
        raise bad(path, f"is no Parquet, or damaged: {error}") from None


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


def _folder(folder: Path, after: list[str]) -> Iterator[Row]:
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
            yield Row(where, fields, parts)


def _choose(path: Path, names: Iterable[str], mapped: Mapping[str, str]) -> dict[str, str]:
    """Which column is what: as mapped, else by its name, else by another name for it."""
    names = list(names)
    there = f"its columns are {textwrap.shorten(', '.join(names) or 'none', 500)}"
    if unknown := mapped.keys() - COLUMNS.keys():
        holds = ", ".join(COLUMNS)
        raise bad(path, f"has no column that can be mapped as {min(unknown)!r}: {holds} can")
    chosen: dict[str, str] = {}
    for key, others in COLUMNS.items():
        if key in mapped:
            found = [name for name in names if name == mapped[key]]
            if not found:
                raise bad(path, f"has no column {mapped[key]!r} for {key!r}: {there}")
        else:
            free = [name for name in names if name not in mapped.values()]
            found = [name for name in free if plain(name) == key]
            found = found or [name for name in free if plain(name) in others]
        if len(found) > 1:
            raise bad(path, f"has several columns that may be {key!r}: map one of {found}")
        chosen.update((key, name) for name in found)
    if "image" not in chosen or not chosen.keys() & {"text", "labels"}:
        raise bad(path, f"needs a column 'image', and 'text' or 'labels' or both: {there}")
    return chosen


def plain(name: str) -> str:
    """A name with neither case nor punctuation.

    >>> plain(":Slice-of_pizza:")
    'slice of pizza'
    """
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
