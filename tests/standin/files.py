"""A picture in the odd forms in which files of pictures come, good and bad."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as Pillow

from tests import craft

HTML = (
    b"<!doctype html><html><title>Sorry</title><body><h1>This content isn't available</h1></html>"
)
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
)


def opened(content: bytes) -> Pillow.Image:
    return Pillow.open(BytesIO(content))


def saved(picture: Pillow.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def cmyk(content: bytes) -> bytes:
    return saved(opened(content).convert("CMYK"), "JPEG", quality=90)


def grey(content: bytes) -> bytes:
    return saved(opened(content).convert("L"), "JPEG", quality=90)


def progressive(content: bytes) -> bytes:
    return saved(opened(content), "JPEG", quality=90, progressive=True)


def rotated(content: bytes) -> bytes:
    """Lying on its side, with an EXIF orientation that puts it upright, and a place in it."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    picture = opened(content).transpose(Pillow.Transpose.ROTATE_90)
    return saved(picture, "JPEG", quality=90, exif=exif)


def png_16_bit(content: bytes) -> bytes:
    samples = np.asarray(opened(content), np.uint16)[::2, ::2] * np.uint16(257)
    return craft.png(samples, depth=16)


def png_alpha(content: bytes) -> bytes:
    picture = opened(content).convert("RGBA")
    picture.putalpha(Pillow.linear_gradient("L").resize(picture.size))
    return saved(picture, "PNG", compress_level=1)


def palette(content: bytes) -> bytes:
    return saved(opened(content).convert("P"), "PNG")


def animation(content: bytes) -> bytes:
    """A GIF whose first frame is the picture."""
    first = opened(content).convert("P")
    others = [first.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM), first.rotate(90)]
    return saved(first, "GIF", save_all=True, append_images=others, duration=100, loop=0)


def webp(content: bytes) -> bytes:
    return saved(opened(content), "WEBP", quality=90)


def webp_animation(content: bytes) -> bytes:
    first = opened(content)
    others = [first.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM)]
    return saved(first, "WEBP", save_all=True, append_images=others, duration=100)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """With noise in the middle of its data."""
    middle = len(content) // 2
    return content[:middle] + bytes(range(255, 191, -1)) + content[middle + 64 :]


def pixel(_: bytes = b"") -> bytes:
    """The smallest GIF, as trackers and placeholders are."""
    return saved(Pillow.new("P", (1, 1)), "GIF")


def placeholder(_: bytes = b"") -> bytes:
    """A grey square that stands in for all that is gone."""
    return saved(Pillow.new("RGB", (320, 320), (210, 210, 210)), "JPEG")


def png_bomb(_: bytes = b"") -> bytes:
    """30000x30000 pixels that its header tells of, in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return craft.png_of(header, craft.chunk(b"IDAT", zlib.compress(bytes(90_001), 9)))


def jpeg_bomb(content: bytes) -> bytes:
    """A good JPEG whose header was made to say 30000x30000."""
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", 30_000, 30_000) + content[at + 9 :]


def long_strip(_: bytes = b"") -> bytes:
    """A picture of 1x20000 pixels."""
    return saved(Pillow.new("RGB", (1, 20_000), (9, 99, 199)), "PNG")


def noise(_: bytes = b"") -> bytes:
    return np.random.default_rng(7).bytes(20_000)


def with_tail(content: bytes) -> bytes:
    """A good JPEG with an archive behind it."""
    return content + b"PK\x05\x06" + bytes(18)
