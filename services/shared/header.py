"""Kind and size of an image, read from untrusted bytes inside the server's own process.

Admission must know what an image will cost before anything decodes it. So nothing here
decompresses or allocates, and no loop follows more than MAX_HOPS links: at most 64 KiB are looked
at, wherever in the file they lie. (The first 64 KiB alone would miss the size of TIFFs, whose
directory often comes last, and of JPEGs with a large colour profile.)
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_HOPS = 256  # segments, tags or boxes; honest files have a few dozen
MAX_STRIPS = 20_000  # Pillow takes 5 us for each, and honest files have no more than rows

# Ours first, as Pillow names them; then what people send by mistake, to be told apart by name.
MAGICS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\x1aE\xdf\xa3", "Matroska"),
    (b"OggS", "Ogg"),
)
TEXTS = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<?xml", "XML"))
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)

START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
METADATA = frozenset((0xE1, 0xE2, 0xEE))  # Exif, colour profiles, Adobe's own kinds of colour
PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
START_OF_SCAN, END_OF_IMAGE, PADDING = 0xDA, 0xD9, 0xFF

GIF_PALETTE, GIF_EXTENSION, GIF_FRAME = 0x80, 0x21, 0x2C
BMP_CORE_BYTES, BMP_RUN_LENGTH = 12, (1, 2)
TIFF_WIDTH, TIFF_HEIGHT, TIFF_STRIPS, TIFF_TILES = 256, 257, 273, 324
TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


class Header(NamedTuple):
    """What a file says of itself; nobody has checked it."""

    format: str
    width: int
    """As stored: the file's orientation may still turn it."""
    height: int
    slow: bool = False
    """Takes many times as long as others: a JPEG of several scans of the whole picture, a BMP in
    run-length encoding, which Pillow decodes in Python, or a TIFF of more than MAX_STRIPS."""


def sniff(content: bytes) -> str:
    """The kind of file by its first bytes, decodable here or not; empty when unknown.

    >>> sniff(b"GIF89a..."), sniff(b"%PDF-1.7"), sniff(b"hello")
    ('GIF', 'PDF', '')
    """
    for magic, name in MAGICS:
        if content.startswith(magic):
            return name
    if content.startswith(b"BM") and content[15:18] == bytes(3):  # two letters prove nothing
        return "BMP"
    if content.startswith(b"RIFF"):
        return "WEBP" if content[8:12] == b"WEBP" else "RIFF"
    if content[4:8] == b"ftyp":
        return _brand(content)
    text = content[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    name = next((name for magic, name in TEXTS if text.startswith(magic)), "")
    return "SVG" if name == "XML" and b"<svg" in text else name


def read(content: bytes) -> Header | None:
    r"""The header, or None where it is unknown: assume the worst then. Never raises.

    >>> read(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + bytes([0, 0, 1, 64, 0, 0, 0, 240]))
    Header(format='PNG', width=320, height=240, slow=False)
    """
    kind = sniff(content)
    reader = READERS.get(kind)
    if reader is None:
        return None
    try:
        header = reader(content)
    except (struct.error, OverflowError):  # it ends early, or points behind its end
        return None
    return header if header is not None and header.width > 0 < header.height else None


def _brand(content: bytes) -> str:
    """Which of the many kinds of file with `ftyp` boxes: the first brand that we know."""
    end = min(int.from_bytes(content[:4], "big"), 16 + 4 * 16)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, end, 4))]
    if brands[0] in (b"mif1", b"msf1") and b"avif" in brands:
        return "AVIF"  # the major brand says only "an image"
    return next((BRANDS[brand] for brand in brands if brand in BRANDS), "MP4")


def _jpeg(content: bytes) -> Header | None:
    width, height, components, slow = 0, 0, 0, False
    for marker, at, first in _segments(content):
        if marker in START_OF_FRAME:
            height, width, components = struct.unpack_from(">HHB", content, at + 5)
            slow = marker in PROGRESSIVE
        elif marker == START_OF_SCAN:
            return Header("JPEG", width, height, slow or first < components)
    return None


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Of the parts of a JPEG up to its pixels the marker, the place, and the first byte."""
    at = 2
    for _ in range(MAX_HOPS):
        prefix, marker, length, first = struct.unpack_from(">BBHB", content, at)
        if prefix != PADDING or marker == END_OF_IMAGE:
            return
        yield marker, at, first
        at += 1 if marker == PADDING else 2 + length


def is_bare(content: bytes) -> bool:
    """Whether a JPEG that can be read has three colours, and nothing to turn or recolour it."""
    for marker, _, first in _segments(content):
        if marker in METADATA:
            return False
        if marker == START_OF_SCAN:
            return first == 3
    return False


def _png(content: bytes) -> Header | None:
    if content[12:16] != b"IHDR":
        return None
    return Header("PNG", *struct.unpack_from(">II", content, 16))


def _webp(content: bytes) -> Header | None:
    chunk = content[12:16]
    if chunk == b"VP8X":
        wide, low, tall, high = struct.unpack_from("<HBHB", content, 24)
        return Header("WEBP", (wide | low << 16) + 1, (tall | high << 16) + 1)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    return None


def _gif(content: bytes) -> Header | None:
    """The screen, or what its first frame makes of it, since a frame may lie beyond the screen."""
    screen_width, screen_height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & GIF_PALETTE else 0)
    in_extension = False  # a chain of blocks up to an empty one
    for _ in range(MAX_HOPS):
        (byte,) = struct.unpack_from("B", content, at)
        if in_extension:
            in_extension = byte != 0
            at += 1 + byte
        elif byte == GIF_FRAME:
            left, top, width, height = struct.unpack_from("<HHHH", content, at + 1)
            return Header("GIF", max(screen_width, left + width), max(screen_height, top + height))
        else:
            in_extension = byte == GIF_EXTENSION
            at += 1 + in_extension
    return None


def _bmp(content: bytes) -> Header | None:
    (header_bytes,) = struct.unpack_from("<I", content, 14)
    if header_bytes == BMP_CORE_BYTES:
        return Header("BMP", *struct.unpack_from("<HH", content, 18))
    width, height, compression = struct.unpack_from("<ii4xI", content, 18)
    slow = compression in BMP_RUN_LENGTH
    return Header("BMP", width, abs(height), slow)  # negative: rows from the top down


def _tiff(content: bytes) -> Header | None:
    order = "<" if content.startswith(b"II") else ">"
    if b"+" in content[2:4]:  # BigTIFF
        start, count, entry, entry_bytes = 8, "Q", "HHQ", 20
    else:
        start, count, entry, entry_bytes = 4, "H", "HHI", 12
    (at,) = struct.unpack_from(order + ("Q" if count == "Q" else "I"), content, start)
    (entries,) = struct.unpack_from(order + count, content, at)
    at += struct.calcsize(order + count)
    size, slow = {TIFF_WIDTH: 0, TIFF_HEIGHT: 0}, False
    for _ in range(entries if entries <= MAX_HOPS else 0):  # who else may say more further on
        tag, kind, length = struct.unpack_from(order + entry, content, at)
        slow |= tag in (TIFF_STRIPS, TIFF_TILES) and length > MAX_STRIPS
        if tag in size and kind in TIFF_INTEGERS:
            value_at = at + struct.calcsize(order + entry)
            (size[tag],) = struct.unpack_from(order + TIFF_INTEGERS[kind], content, value_at)
        at += entry_bytes
    return Header("TIFF", size[TIFF_WIDTH], size[TIFF_HEIGHT], slow)


def _isobmff(content: bytes) -> Header | None:
    """The largest of the sizes it lists: others are thumbnails, tiles and alpha planes."""
    inside = (0, len(content))
    for kind, version_bytes in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        found = [body for name, *body in _boxes(content, *inside) if name == kind][:1]
        if not found:
            return None
        inside = (found[0][0] + version_bytes, found[0][1])
    sizes = [
        struct.unpack_from(">II", content, start + 4)
        for name, start, _ in _boxes(content, *inside)
        if name == b"ispe"
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return Header(sniff(content), width, height)


def _boxes(content: bytes, at: int, end: int) -> list[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each box between `at` and `end`."""
    boxes: list[tuple[bytes, int, int]] = []
    while at + 8 <= end and len(boxes) < MAX_HOPS:
        size, kind = struct.unpack_from(">I4s", content, at)
        body = at + 8
        if size == 1:  # too large for four bytes
            (size,) = struct.unpack_from(">Q", content, body)
            body += 8
        elif size == 0:  # up to the end
            size = end - at
        boxes.append((kind, body, at + size))
        at += size
    return boxes


READERS: dict[str, Callable[[bytes], Header | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "AVIF": _isobmff,
    "HEIF": _isobmff,
}
