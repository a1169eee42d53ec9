"""Data sets in the forms that other programs read, and pictures prescaled without any data set."""

import asyncio
import contextlib
import csv
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import Progress

from services.crawler import dataset, manifest, prescaled
from services.shared import header, pixels, shards
from services.shared.cores import cores
from services.shared.decoders import Decoders
from services.shared.errors import (
    AlreadyExists,
    EmojinetError,
    FileNotFound,
    ImageError,
    MalformedRequest,
    NotReady,
    StorageFailed,
)
from services.shared.queue import Priority, QueueMetrics

INDEX = ("key", "split", "shard", "labels", "stored_width", "stored_height", "pictures")
MARK = ".prescaled.json"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
PATIENCE_SECONDS = 3600.0
MAP_BYTES = 1 << 26  # of an empty LMDB


# -- data sets ------------------------------------------------------------------------------------


def folders(source: Path, out: Path) -> None:
    """Writes `split/emoji_name/KEY.jpg`, as torchvision's ImageFolder reads it.

    A picture with several emoji is in the folder of each, as one file with several names. Emoji
    without a picture in a split have no folder there.

    Raises as all exports:
        AlreadyExists: `out` is there.
        BadDataset: the data set is broken.
        StorageFailed: the disk is full or failing; nothing is left behind.
    """
    with _new(out) as staged:
        staged.mkdir()
        for split in shards.SPLITS:
            for sample in shards.read_samples(source, split):
                first, *others = (
                    staged / split / shards.folder_name(emoji) for emoji in sample.emoji
                )
                file = first / f"{sample.key}.jpg"
                first.mkdir(parents=True, exist_ok=True)
                file.write_bytes(sample.jpeg)
                for other in others:
                    other.mkdir(parents=True, exist_ok=True)
                    _link(file, other / file.name)


@contextlib.contextmanager
def _new(out: Path) -> Iterator[Path]:
    """A file or folder that is there once it is complete."""
    if out.exists():
        raise AlreadyExists(f"There is {out} already; choose another name.", name=str(out))
    with dataset.staging(out) as staged:
        yield staged / out.name
        os.rename(staged / out.name, out)


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copyfile(file, name)


def to_lmdb(source: Path, out: Path) -> None:
    """Writes one LMDB for each split, with `KEY.jpg` and `KEY.json` as in the shards.

    Raises:
        NotReady: the package `lmdb` is not installed.
    """
    try:
        import lmdb
    except ImportError:
        raise NotReady("LMDB needs a package: pip install lmdb") from None
    with _new(out) as staged:
        staged.mkdir()
        for split in shards.SPLITS:
            size = sum(path.stat().st_size for path in source.glob(f"{shards.SHARDS}/{split}-*"))
            path = staged / split
            try:
                with (
                    lmdb.open(str(path), map_size=2 * size + MAP_BYTES) as environment,
                    environment.begin(write=True) as transaction,
                ):
                    for sample in shards.read_samples(source, split):
                        label = json.dumps({"emoji": sample.emoji}, ensure_ascii=False)
                        transaction.put(f"{sample.key}.jpg".encode(), sample.jpeg)
                        transaction.put(f"{sample.key}.json".encode(), label.encode())
            except lmdb.Error as error:
                raise StorageFailed(f"{path} cannot be written: {error}.", path=str(path)) from None


def to_csv(source: Path, out: Path) -> None:
    """Writes a line for each sample: where it is, and its emoji, parted by blanks."""
    with _new(out) as staged, staged.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(INDEX)
        for row in _index(source):
            writer.writerow(
                " ".join(value) if isinstance(value, list) else value for value in row.values()
            )


def to_parquet(source: Path, out: Path) -> None:
    """Writes what `to_csv` writes, with the emoji as a list."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    schema = pyarrow.schema([manifest.SCHEMA.field(name) for name in INDEX])
    with _new(out) as staged, pyarrow.parquet.ParquetWriter(staged, schema) as writer:
        for rows in _batches(_index(source), manifest.ROWS):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _index(source: Path) -> Iterator[dict[str, Any]]:
    gone = shards.excluded(source)
    for key, rows in manifest.samples(source):
        if key not in gone:
            yield {name: rows[0][name] for name in INDEX}


def _batches(rows: Iterable[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == count:
            yield batch
            batch = []
    yield batch


# -- any folder of pictures -----------------------------------------------------------------------


def prescale_folder(
    source: Path,
    out: Path,
    *,
    edge_px: int = prescaled.EDGE_PX,
    console: Console | None = None,
) -> int:
    """Prescales all pictures of a folder, with all cores, into a folder of the same structure.

    What the article did with mogrify and xargs. A picture that is no JPEG gets `.jpg` behind its
    name; files that are no pictures are passed over. Pictures that are there already and not older
    than their originals are not done again.

    Returns:
        The exit status: 1 if there were pictures that could not be read, which are listed.

    Raises:
        FileNotFound: there is no such folder.
        MalformedRequest: `out` is within `source`, or the other way, or has pictures of another
            size.
        StorageFailed: the disk is full or failing; what is done stays, whole.
    """
    source, out = source.resolve(), out.resolve()
    if not source.is_dir():
        raise FileNotFound(f"There is no folder {source}.")
    if source == out or source in out.parents or out in source.parents:
        raise MalformedRequest(
            "Prescaled pictures need a folder apart from their originals.", field="output"
        )
    _mark(out, edge_px)
    console = console or Console(stderr=True)
    failures = asyncio.run(_prescale_all(source, out, edge_px, console))
    for path, why in sorted(failures):
        console.print(f"{path}: {why}", style="red", highlight=False, markup=False)
    return 1 if failures else 0


def _mark(out: Path, edge_px: int) -> None:
    """Notes what is in the folder: to go on with another size would mix them."""
    mark = out / MARK
    said = json.dumps({"edge_px": edge_px, "pixels_version": pixels.VERSION})
    with shards.writable(out):
        out.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            _put(mark, said.encode())
        elif mark.read_text() != said:
            raise MalformedRequest(
                f"{out} has pictures that were prescaled otherwise ({mark.read_text()}); "
                "choose another folder.",
                field="output",
            )


async def _prescale_all(
    source: Path, out: Path, edge_px: int, console: Console
) -> list[tuple[str, str]]:
    """Those that failed, with the reason."""
    slots = cores()
    failures: list[tuple[str, str]] = []
    todo = [path for path in sorted(source.rglob("*")) if _is_picture(path)]
    left = iter(todo)
    decoders = Decoders(slots, "services.crawler.prescaler", f"--edge-px={edge_px}")
    await decoders.start()
    decoders.open(QueueMetrics(CollectorRegistry()))

    async def work() -> None:
        for path in left:  # shared: each takes the next
            name = path.relative_to(source)
            try:
                await _prescale(decoders, path, _target(out / name))
            except ImageError as error:
                failures.append((str(name), str(error)))
            except OSError as error:  # of the original
                failures.append((str(name), f"It cannot be read: {error.strerror}."))
            bar.advance(task)

    try:
        with Progress(console=console) as bar:
            task = bar.add_task("prescaling", total=len(todo))
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * slots):
                    group.create_task(work())
    except* EmojinetError as errors:
        raise errors.exceptions[0] from None
    finally:
        await decoders.close()
    return failures


def _is_picture(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    with contextlib.suppress(OSError), path.open("rb") as file:
        return header.sniff(file.read(512)) in pixels.FORMATS
    return False


def _target(path: Path) -> Path:
    """Where the JPEG goes: two originals never go to one."""
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    return path if is_jpeg else path.with_name(f"{path.name}.jpg")


async def _prescale(decoders: Decoders, path: Path, target: Path) -> None:
    if _is_done(path, target):
        return
    with path.open("rb") as file:
        content = file.read(pixels.MAX_BYTES + 1)  # one too many is enough to refuse it
    served = await decoders.decode(
        content,
        cost_seconds=decoders.check(content),
        priority=Priority.BULK,
        deadline=time.monotonic() + PATIENCE_SECONDS,
    )
    with shards.writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(target, prescaled.unpack(served.reply).jpeg)


def _is_done(path: Path, target: Path) -> bool:
    if not target.is_file():
        return False
    done = target.stat()
    return done.st_size > 0 and done.st_mtime_ns >= path.stat().st_mtime_ns


def _put(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    staged = path.with_name(f".{path.name}.tmp")
    try:
        staged.write_bytes(content)
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
