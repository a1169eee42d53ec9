"""The manifest of a data set: `manifest.parquet`, a row for each post of each sample.

Flat, so that a line of pandas or DuckDB answers most questions; what belongs to the sample is
repeated in each of its rows, which Parquet stores once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from services.crawler import keep
from services.crawler.keep import Kept
from services.shared import pixels
from services.shared.shards import Output, listed, readable

MANIFEST = "manifest.parquet"
ROWS = 10_000  # in memory at a time
YEAR_9999 = 253_370_764_800  # in seconds: the last that most programs can show
_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    {
        "key": pa.string(),  # the sample
        "split": _NAME,
        "shard": _NAME,
        "labels": pa.list_(pa.string()),  # emoji of all posts, in the vocabulary's order
        "stored_width": pa.int32(),
        "stored_height": pa.int32(),
        "pictures": pa.int32(),  # different files that were near-duplicates, this one included
        "source": _NAME,  # the post
        "uri": pa.string(),
        "author": pa.string(),  # keyed hash, in hexadecimal; null if unknown
        "time": pa.timestamp("us", "UTC"),
        "segment": _NAME,
        "emoji": pa.list_(pa.string()),  # the post's own
        "where": pa.list_(pa.string()),  # beside it, where each stood: text, hashtag, label
        "hashtags": pa.list_(pa.string()),
        "words": pa.list_(pa.string()),
        "sha256": pa.string(),  # the file that the post showed
        "pdq": pa.string(),
        "quality": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "rules_version": pa.int32(),
        "pixels_version": pa.int32(),
    }
)
Row = dict[str, Any]


def of_post(kept: Kept) -> Row:
    """The part of a row that tells of a post, as JSON could hold it."""
    return {
        "source": kept.source,
        "uri": kept.uri,
        "author": kept.author.hex() or None,
        "time": round(kept.time_seconds * 1e6) if 0 < kept.time_seconds < YEAR_9999 else None,
        "segment": kept.segment,
        "emoji": [mention.emoji for mention in kept.mentions],
        "where": [str(mention.where) for mention in kept.mentions],
        "hashtags": list(kept.hashtags),
        "words": list(kept.words),
        "rules_version": keep.VERSION,
        "pixels_version": pixels.VERSION,
    }


class ManifestWriter:
    """Writes rows in the order of the shards."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST
        self._output = Output(self._path)
        self._writer = pq.ParquetWriter(self._output, SCHEMA, compression="zstd")
        self._rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Adds the rows of a sample."""
        self._rows.extend(rows)
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()

    def abandon(self) -> None:
        """Lets go of the file, however little of it could be written."""
        with suppress(Exception):  # Arrow wants to write an end
            self._writer.close()
        self._output.raw.close()

    def close(self) -> Mapping[str, Any]:
        """Completes the file; returns what `dataset.json` says of it."""
        self._flush()
        with self._output:
            self._writer.close()
        return listed(self._path, self._output)


def samples(folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """Each sample's key with its rows, in the order of the shards.

    Raises:
        BadDataset: the manifest is missing or broken.
    """
    for key, rows in groupby(_rows(folder), key=lambda row: row["key"]):
        yield key, list(rows)


def _rows(folder: Path) -> Iterator[Row]:
    path = folder / MANIFEST
    with readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS):
            # As numbers: Python's own times end in the year 9999, and lack zones without tzdata.
            place = batch.schema.get_field_index("time")
            yield from batch.set_column(
                place, "time", batch.column(place).cast(pa.int64())
            ).to_pylist()


def column(folder: Path, *names: str) -> pa.Table:
    """Some columns of all rows. Raises as `samples`."""
    path = folder / MANIFEST
    with readable(path), pq.ParquetFile(path) as file:
        return file.read(columns=list(names))


def members(folder: Path) -> Iterator[tuple[bytes, str]]:
    """The sha256 of each file in the data set, with the key of its sample. Raises as `samples`."""
    table = column(folder, "sha256", "key").group_by(["sha256", "key"]).aggregate([])
    for sha256, key in zip(table["sha256"], table["key"], strict=True):
        yield bytes.fromhex(sha256.as_py()), key.as_py()


def known(folder: Path, keys: Sequence[str]) -> set[str]:
    """Those of the keys that are samples of the data set. Raises as `samples`."""
    keys_of_all = column(folder, "key")["key"]
    found = keys_of_all.filter(pc.is_in(keys_of_all, value_set=pa.array(keys, pa.string())))
    return set(found.to_pylist())
