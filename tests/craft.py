"""Image files as Pillow would not write them, for `tests.corpus`."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
TIFF_KINDS = {"H": 3, "I": 4, "Q": 16}
WHITE_XYZ = (0.9642, 1.0, 0.8249)  # D50, as all profiles have it
RED_XYZ, GREEN_XYZ, BLUE_XYZ = (  # of sRGB
    (0.4361, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7139),
)

Samples = npt.NDArray[np.integer[Any]]


def exif(orientation: int, order: str = "<", code: str = "H") -> bytes:
    """The least EXIF that holds an orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, TIFF_KINDS[code], 1)
    entry += struct.pack(order + code, orientation).ljust(4, b"\0")
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: Samples, *before: bytes, depth: int = 8, interlaced: bool = False, after: bytes = b""
) -> bytes:
    """A PNG of `samples` (H, W, 1..4), with whole chunks before and after its data."""
    height, width, channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    rows = [b"\0" + row for part in passes if part.size for row in packed(part, depth)]
    return png_of(
        struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced),
        *before,
        chunk(b"IDAT", zlib.compress(b"".join(rows), 9)),
        after,
    )


def png_of(header: bytes, *chunks: bytes) -> bytes:
    """A PNG of these chunks between IHDR and IEND."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def packed(samples: Samples, depth: int) -> list[bytes]:
    """The rows of `samples` (H, W, C), each of its numbers in `depth` bits."""
    octets = samples.astype(">u2")[..., np.newaxis].view(np.uint8)
    bits = np.unpackbits(octets, axis=-1)[..., 16 - depth :]
    return [row.tobytes() for row in np.packbits(bits.reshape(len(samples), -1), axis=1)]


def tiff(
    samples: Samples, photometric: int, *, depth: int = 8, order: str = ">", big: bool = False
) -> bytes:
    """An uncompressed TIFF of `samples` (H, W, C) in one strip, with its directory at the end."""
    height, width, channels = samples.shape
    data = b"".join(packed(samples, depth))
    if order == "<" and depth == 16:
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    offset, count = ("Q", "Q") if big else ("I", "H")
    mark = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    mark += struct.pack(order + "HH", 8, 0) if big else b""
    start = len(mark) + struct.calcsize(order + offset)
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [depth] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: (offset, [start]),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
    }
    directory, more = tiff_directory(tags, order, big, start + len(data))
    at = struct.pack(order + offset, start + len(data) + len(more))
    return mark + at + data + more + struct.pack(order + count, len(tags)) + directory


def tiff_directory(
    tags: dict[int, tuple[str, list[int]]], order: str, big: bool, at: int
) -> tuple[bytes, bytes]:
    """The entries for `tags`, and what does not fit into them, which is to begin at `at`."""
    offset = "Q" if big else "I"
    entries, more = b"", b""
    for tag, (code, values) in tags.items():
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > struct.calcsize(offset):
            value, more = struct.pack(order + offset, at + len(more)), more + value
        entry = struct.pack(f"{order}HH{offset}", tag, TIFF_KINDS[code], len(values))
        entries += entry + value.ljust(struct.calcsize(offset), b"\0")
    return entries + bytes(8), more


def bmp(codes: bytes, palette: bytes, size: tuple[int, int], *, bits: int = 8) -> bytes:
    """A BMP in run-length encoding, of 8 bits or of 4."""
    start = 54 + len(palette)
    facts = (40, *size, 1, bits, {8: 1, 4: 2}[bits], len(codes), 1, 1, len(palette) // 4, 0)
    head = struct.pack("<2sIHHI", b"BM", start + len(codes), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", *facts) + palette + codes


def icc(*primaries: Sequence[float], gamma: float = 2.2) -> bytes:
    """A colour profile: the XYZ of red, green and blue, or of nothing for grey; one curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"ours\0" + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": _xyz(WHITE_XYZ),
    }
    if not primaries:
        tags[b"kTRC"] = curve
    for channel, primary in zip((b"r", b"g", b"b"), primaries, strict=False):
        tags |= {channel + b"XYZ": _xyz(primary), channel + b"TRC": curve}
    at, table, bodies = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(bodies), len(body))
        bodies += body
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(
        ">I4xI4s4s4s12x4s", at + len(bodies), 0x02100000, b"mntr", space, b"XYZ ", b"acsp"
    )
    return (head.ljust(68, b"\0") + _xyz(WHITE_XYZ)[8:]).ljust(128, b"\0") + table + bodies


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def gif(samples: Samples, screen: tuple[int, int], at: tuple[int, int] = (0, 0)) -> bytes:
    """A GIF of `samples` (H, W) below 128, placed on a larger screen, in codes of 8 bits."""
    height, width = samples.shape
    palette = bytes(value for index in range(128) for value in (index * 2, 255 - index, 64))
    # After every 126 codes the table is cleared, so that codes never grow beyond 8 bits.
    codes = [
        code
        for part in range(0, samples.size, 126)
        for code in (128, *samples.flat[part : part + 126])
    ]
    data = bytes(codes) + b"\x81"
    blocks = b"".join(
        bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)
    )
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *screen, 0xF6, 0, 0)
        + palette
        + b","
        + struct.pack("<HHHHB", *at, width, height, 0)
        + b"\x07"
        + blocks
        + b"\0;"
    )
