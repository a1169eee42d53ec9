"""The project's own corpus of difficult images, made by rule: the same bytes on every run.

`valid()` are images that must decode, each with the size and the four colours it must show;
`hostile()` are files that must end in a typed error, or in a picture, soon and in little memory.
`python -m tests.corpus FOLDER` writes both for people to look at.
"""

import io
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from services.shared import errors, pixels

Colour = tuple[int, int, int]
Pieces = tuple[Colour, Colour, Colour, Colour]

# From left to right, from the top down: no two turns of this look the same.
COLOURS: Pieces = ((200, 30, 40), (40, 180, 60), (50, 60, 210), (220, 200, 50))
GREYS: Pieces = tuple((grey,) * 3 for grey in (20, 90, 160, 235))  # type: ignore[assignment]
WHITE, GREY = (255, 255, 255), (128, 128, 128)
WIDTH, HEIGHT = 61, 45  # odd, so that whoever rounds wrongly loses a row
LOSSLESS, LOSSY = 1, 12

# What turns a stored picture upright is undone by this.
UNTURN = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class Valid(NamedTuple):
    """An image that must decode to this size, with these four colours in its quarters."""

    name: str
    content: bytes
    colours: Pieces = COLOURS
    tolerance: int = LOSSLESS
    width: int = WIDTH
    height: int = HEIGHT


class Hostile(NamedTuple):
    """A file that must fail with one of these errors; with none given, it may also decode."""

    name: str
    content: bytes
    expected: tuple[type[errors.ImageError], ...] = ()


def valid() -> Iterator[Valid]:
    """Every format in every mode, orientation, depth, colour space and habit that we support."""
    for cases in (_orientations, _jpegs, _pngs, _webps, _gifs, _bmps, _tiffs, _avifs, _profiles):
        yield from cases()
    yield from _bad_metadata()


def hostile(seed: int = 0) -> Iterator[Hostile]:
    """Damaged files, bombs, files that are two things at once, and files of other kinds."""
    yield from _damaged(random.Random(seed))
    for cases in (_bombs, _too_large, _liars, _others):
        yield from cases()


def quarters(colours: Pieces = COLOURS, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    """Four rectangles of plain colour."""
    width, height = size or (WIDTH, HEIGHT)
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(colours):
        left, top = index % 2 * (width // 2), index // 2 * (height // 2)
        image.paste(colour, (left, top, width, height))
    return image.convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The file that Pillow would write."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """The least EXIF that holds an orientation."""
    value = struct.pack(order + {3: "HH", 4: "I"}[kind], *((orientation, 0) if kind == 3 else (orientation,)))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG as Pillow would not write it; `rows` with their filter bytes, `more` before the data."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    parts = chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def tiff(tags: dict[int, tuple[str, list[int]]], data: bytes, order: str = "<", big: bool = False) -> bytes:
    """A TIFF as Pillow would not write it: one strip, before the directory."""
    offset, count, entry_bytes = ("Q", "Q", 8) if big else ("I", "H", 4)
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    mark += struct.pack(order + "HH", 8, 0) if big else b""
    start = len(mark) + struct.calcsize(order + offset)
    tags = tags | {273: (offset, [start]), 279: ("I", [len(data)])}
    data += b"\0" * (len(data) % 2)
    entries, heap, heap_at = b"", b"", start + len(data)
    for tag, (code, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > entry_bytes:
            heap, packed = heap + packed, struct.pack(order + offset, heap_at + len(heap))
        kind = {"H": 3, "I": 4, "Q": 16}[code]
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + packed.ljust(entry_bytes, b"\0")
    directory = struct.pack(order + count, len(tags)) + entries + bytes(entry_bytes)
    return mark + struct.pack(order + offset, heap_at + len(heap)) + data + heap + directory


def profile(columns: list[tuple[float, float, float]], gamma: float, space: bytes = b"RGB ") -> bytes:
    """A colour profile: where its primaries lie (XYZ, D50), and the curve all channels share."""
    fixed = lambda *values: struct.pack(">%di" % len(values), *(round(v * 65536) for v in values))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = (0.9642, 1.0, 0.8249)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*white), b"cprt": b"text\0\0\0\0CC0\0"}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"ours\0" + bytes(78)
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    for channel, column in zip((b"r", b"g", b"b"), columns, strict=False):
        tags[channel + b"XYZ"], tags[channel + b"TRC"] = b"XYZ \0\0\0\0" + fixed(*column), curve
    at, table, heap = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(heap), len(body))
        heap += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(heap), b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(*white)
    return head.ljust(128, b"\0") + table + heap
