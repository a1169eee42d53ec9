"""The project's own corpus of difficult images, made by rule: the same cases on every run.

`valid()` are images that must decode, each with the size and the four colours that it must show;
`hostile()` are files that must soon end in a typed error or a picture, whatever they claim.
`python -m tests.corpus FOLDER` writes them all for people to look at.
"""

import functools
import io
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
from PIL import Image

from services.shared import errors, pixels
from tests import craft

Colour = tuple[int, ...]

# From left to right, from the top down: no two turns of this picture look the same.
COLOURS: tuple[Colour, ...] = ((200, 30, 40), (40, 180, 60), (50, 60, 210), (220, 200, 50))
GREYS = tuple((grey, grey, grey) for grey in (17, 85, 153, 238))
HALVES = ((255, 255, 255), (0, 0, 0), (0, 0, 0), (255, 255, 255))
WIDTH, HEIGHT = 61, 45  # odd, so that whoever rounds wrongly loses a row
EXACT, LOSSY = 1, 12

# How a picture is stored so that the orientation turns it upright.
UNTURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class Valid(NamedTuple):
    """An image that must decode to this size, with these colours in its quarters."""

    name: str
    content: bytes
    colours: tuple[Colour, ...] = COLOURS
    tolerance: int = EXACT
    width: int = WIDTH
    height: int = HEIGHT


class Hostile(NamedTuple):
    """A file that must fail with this error; with none given, it may also decode."""

    name: str
    content: bytes
    error: type[errors.ImageError] | None = None


def valid() -> Iterator[Valid]:
    """Every format in every mode, depth, orientation, colour space and habit that we promise."""
    for cases in (_orientations, _jpegs, _pngs, _webps, _gifs, _bmps, _tiffs, _avifs, _heifs):
        yield from cases()
    yield from _transparent()
    yield from _profiled()
    yield from _bad_metadata()


def hostile() -> Iterator[Hostile]:
    """Damaged files, bombs, liars, files that are two things at once, and other kinds of file."""
    for cases in (_damaged, _cut_late, _bombs, _too_large, _liars, _mazes, _others):
        yield from cases()


def everything() -> Iterator[Valid | Hostile]:
    """Both."""
    yield from valid()
    yield from hostile()


def picture(colours: tuple[Colour, ...] = COLOURS, mode: str = "RGB") -> Image.Image:
    """Four rectangles of plain colour."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for index, colour in enumerate(colours):
        left, top = index % 2 * (WIDTH // 2), index // 2 * (HEIGHT // 2)
        image.paste(colour, (left, top, WIDTH, HEIGHT))
    return image.convert(mode)


def samples(colours: tuple[Colour, ...] = COLOURS, channels: int = 3) -> craft.Samples:
    """The same as numbers of 16 bits, as yet up to 255."""
    return np.asarray(picture(colours))[..., :channels].astype(np.uint16)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@functools.cache
def noise(width: int = 96, height: int = 80) -> Image.Image:
    """A picture that no format makes much smaller."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def _orientations() -> Iterator[Valid]:
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {"compression": "tiff_lzw"},
        "AVIF": {"quality": 90},
        "HEIF": {"quality": 90},
    }
    for kind in pixels.FORMATS:
        for orientation in range(1, 9) if kind in options else ():
            stored = picture()
            if orientation in UNTURNED:
                stored = stored.transpose(UNTURNED[orientation])
            exif = craft.exif(orientation) if kind == "HEIF" else _pillow_exif(orientation)
            content = encoded(stored, kind, exif=exif, **options[kind])
            yield Valid(f"orientation-{orientation}.{kind.lower()}", content, tolerance=LOSSY)


def _pillow_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _jpegs() -> Iterator[Valid]:
    usual = {"quality": 95}
    plain = encoded(picture(), "JPEG", **usual)
    variants: dict[str, dict[str, Any]] = {
        "420": {"subsampling": "4:2:0"},
        "422": {"subsampling": "4:2:2"},
        "444": {"subsampling": "4:4:4"},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 3},
        "rgb": {"keep_rgb": True},
    }
    for name, options in variants.items():
        content = encoded(picture(), "JPEG", **usual, **options)
        yield Valid(f"{name}.jpeg", content, tolerance=LOSSY)
    yield Valid("grey.jpeg", encoded(picture(GREYS, "L"), "JPEG", **usual), GREYS, LOSSY)
    yield Valid("cmyk.jpeg", encoded(_inks(), "JPEG", **usual), tolerance=LOSSY)
    yield Valid(
        "cmyk-progressive.jpeg",
        encoded(_inks(), "JPEG", progressive=True, **usual),
        tolerance=LOSSY,
    )
    yield Valid("ycck.jpeg", _ycck(), tolerance=LOSSY)
    views = encoded(picture(), "MPO", save_all=True, append_images=[picture(GREYS)], **usual)
    yield Valid("two-views.jpeg", views, tolerance=LOSSY)
    fat = b"".join(craft.segment(0xE5, bytes(65_000)) for _ in range(3))
    yield Valid("header-behind-195-kB.jpeg", plain[:2] + fat + plain[2:], tolerance=LOSSY)
    yield Valid("padded-markers.jpeg", plain[:2] + b"\xff" * 9 + plain[2:], tolerance=LOSSY)
    yield Valid("trailing-zip.jpeg", plain + _zip(), tolerance=LOSSY)
    adobe = plain[:2] + craft.segment(0xEE, b"Adobe\0") + plain[2:]
    yield Valid("short-adobe.jpeg", adobe, tolerance=LOSSY)
    progressive = encoded(picture(), "JPEG", progressive=True, **usual)
    thumbnails = craft.segment(0xE6, b"\xff\xda" * 500)
    content = progressive[:2] + thumbnails + progressive[2:]
    yield Valid("scans-in-metadata.jpeg", content, tolerance=LOSSY)
    yield Valid(
        "junk-between-segments.jpeg", plain[:-2] + b"\x12\x34" + plain[-2:], tolerance=LOSSY
    )


def _inks() -> Image.Image:
    """CMYK with as much black as there can be."""
    rgb = np.asarray(picture(), np.float32)
    light = rgb.max(axis=2, keepdims=True)
    inks = np.concatenate([255 * (1 - rgb / light), 255 - light], axis=2)
    return Image.fromarray(inks.round().astype(np.uint8), "CMYK")


def _ycck() -> bytes:
    """CMYK as Photoshop writes it: the colours as YCbCr, said by one byte of the Adobe segment."""
    cyan, magenta, yellow, black = _inks().split()
    colours = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    turned = [channel.point(lambda value: 255 - value) for channel in colours.split()]
    content = encoded(Image.merge("CMYK", (*turned, black)), "JPEG", quality=95, subsampling=0)
    at = content.index(b"Adobe") + 11
    return content[:at] + b"\x02" + content[at + 1 :]


def _pngs() -> Iterator[Valid]:
    rgb, grey = samples(), samples(GREYS, 1)
    for name, interlaced in (("", False), ("-interlaced", True)):
        for depth in (8, 16):
            deep = rgb * 257 if depth == 16 else rgb
            content = craft.png(deep, depth=depth, interlaced=interlaced)
            yield Valid(f"rgb-{depth}{name}.png", content)
        for depth in (4, 8, 16):
            scaled = grey * 257 if depth == 16 else grey >> 8 - depth
            content = craft.png(scaled, depth=depth, interlaced=interlaced)
            yield Valid(f"grey-{depth}{name}.png", content, GREYS)
        content = craft.png(samples(HALVES, 1) & 1, depth=1, interlaced=interlaced)
        yield Valid(f"bits{name}.png", content, HALVES)
    for bits in (2, 4, 8):
        palette = picture().quantize(4)
        yield Valid(f"palette-{bits}.png", encoded(palette, "PNG", bits=bits))
    turned = samples()[::-1, ::-1]
    late = craft.chunk(b"eXIf", craft.exif(3, ">"))
    yield Valid("orientation-behind-data.png", craft.png(turned, after=late))
    yield Valid("trailing-garbage.png", craft.png(rgb) + bytes(range(256)))
    frames = [picture(GREYS), picture(GREYS[::-1])]
    content = encoded(picture(), "PNG", save_all=True, append_images=frames)
    yield Valid("animated.png", content)


def _webps() -> Iterator[Valid]:
    yield Valid("lossless.webp", encoded(picture(), "WEBP", lossless=True))
    yield Valid("lossy.webp", encoded(picture(), "WEBP", quality=95), tolerance=3 * LOSSY)
    yield Valid("grey.webp", encoded(picture(GREYS, "L"), "WEBP", lossless=True), GREYS)
    frames = {"save_all": True, "append_images": [picture(GREYS)] * 3, "lossless": True}
    yield Valid("animated.webp", encoded(picture(), "WEBP", **frames))


def _gifs() -> Iterator[Valid]:
    palette = picture().quantize(4)
    yield Valid("interlaced.gif", encoded(palette, "GIF", interlace=1))
    yield Valid("plain.gif", encoded(palette, "GIF", interlace=0))
    yield Valid("trailing-html.gif", encoded(palette, "GIF") + b"<script>alert(1)</script>")
    frames = [picture(GREYS).quantize(4)] * 3
    yield Valid("animated.gif", encoded(palette, "GIF", save_all=True, append_images=frames))
    small = samples(GREYS, 1)[..., 0] // 2
    shown = tuple((red - red % 2, 255 - red // 2, 64) for red, _, _ in GREYS)
    yield Valid("frame-beyond-screen.gif", craft.gif(small, (9, 9)), shown)


def _bmps() -> Iterator[Valid]:
    for mode in ("RGB", "RGBA", "P"):
        image = picture().quantize(4) if mode == "P" else picture(mode=mode)
        yield Valid(f"{mode.lower()}.bmp", encoded(image, "BMP"))
    yield Valid("grey.bmp", encoded(picture(GREYS, "L"), "BMP"), GREYS)
    yield Valid("bits.bmp", encoded(picture(HALVES, "1"), "BMP"), HALVES)
    stored = encoded(picture().transpose(UNTURNED[4]), "BMP")
    rows = [row[:, ::-1].tobytes().ljust(184, b"\0") for row in np.asarray(picture())[::-1]]
    core = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, WIDTH, HEIGHT, 1, 24)
    yield Valid("os2.bmp", core + b"".join(rows))
    yield Valid("top-down.bmp", stored[:22] + struct.pack("<i", -HEIGHT) + stored[26:])
    left, right = WIDTH // 2, WIDTH - WIDTH // 2
    palette = b"".join(bytes([*colour[::-1], 0]) for colour in COLOURS)
    for bits, index in ((8, 1), (4, 0x11)):  # a row in two runs, those of the lower half first
        rows = [bytes([left, first * index, right, (first + 1) * index, 0, 0]) for first in (2, 0)]
        codes = rows[0] * (HEIGHT - HEIGHT // 2) + rows[1] * (HEIGHT // 2) + b"\0\1"
        content = craft.bmp(codes, palette, (WIDTH, HEIGHT), bits=bits)
        yield Valid(f"run-length-{bits}.bmp", content)


def _tiffs() -> Iterator[Valid]:
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"):
        content = encoded(picture(), "TIFF", compression=compression)
        yield Valid(f"{compression}.tiff", content)
    for mode in ("RGBA", "CMYK", "LAB"):
        image = _inks() if mode == "CMYK" else picture(mode=mode)
        # Pillow's own profile for LAB has the time in it.
        content = encoded(image, "TIFF", compression="tiff_lzw", icc_profile=None)
        yield Valid(f"{mode.lower()}.tiff", content, tolerance=4)
    jpeg = encoded(picture(mode="YCbCr"), "TIFF", compression="jpeg", quality=95)
    yield Valid("jpeg.tiff", jpeg, tolerance=LOSSY)
    yield Valid("palette.tiff", encoded(picture().quantize(4), "TIFF"))
    yield Valid("big.tiff", encoded(picture(), "TIFF", big_tiff=True))
    halves = picture(HALVES, "1")
    yield Valid("fax.tiff", encoded(halves, "TIFF", compression="group4"), HALVES)
    pages = [picture(GREYS)] * 2
    yield Valid("pages.tiff", encoded(picture(), "TIFF", save_all=True, append_images=pages))
    yield from _deep_tiffs()


def _deep_tiffs() -> Iterator[Valid]:
    rgb, grey = samples() * 257, samples(GREYS, 1) * 257
    for order, name in (("<", "little"), (">", "big")):
        yield Valid(f"rgb-16-{name}.tiff", craft.tiff(rgb, 2, depth=16, order=order))
        yield Valid(f"grey-16-{name}.tiff", craft.tiff(grey, 1, depth=16, order=order), GREYS)
    yield Valid("rgb-16-bigtiff.tiff", craft.tiff(rgb, 2, depth=16, order="<", big=True))
    yield Valid("grey-12.tiff", craft.tiff(grey >> 4, 1, depth=12, order="<"), GREYS)
    negative = craft.tiff(0xFFFF - grey, 0, depth=16, order="<")
    yield Valid("grey-16-negative.tiff", negative, GREYS)
    numbers = np.asarray(picture(GREYS, "L"))
    deep: dict[str, np.ndarray[Any, Any]] = {
        "integers-16": numbers.astype(np.int32) * 257,
        "floats-1": numbers.astype(np.float32) / 255,
        "floats-255": numbers.astype(np.float32),
    }
    for name, values in deep.items():
        yield Valid(f"{name}.tiff", encoded(Image.fromarray(values), "TIFF"), GREYS)
    stretched = (np.float32(numbers) - 17) * 1e6 - 5
    shown = tuple((grey, grey, grey) for grey in (0, 78, 157, 255))
    yield Valid("floats-any.tiff", encoded(Image.fromarray(stretched), "TIFF"), shown)


def _avifs() -> Iterator[Valid]:
    yield Valid("grey.avif", encoded(picture(GREYS, "L"), "AVIF", quality=90), GREYS, LOSSY)
    content = encoded(picture(), "AVIF", subsampling="4:4:4", quality=90)
    yield Valid("444.avif", content, tolerance=LOSSY)
    frames = {"save_all": True, "append_images": [picture(GREYS)] * 2, "quality": 90}
    yield Valid("animated.avif", encoded(picture(), "AVIF", **frames), tolerance=LOSSY)


def _heifs() -> Iterator[Valid]:
    """HEIC says how it lies by `irot` and `imir`, beside which EXIF only repeats it."""
    yield Valid("grey.heif", encoded(picture(GREYS, "L"), "HEIF", quality=90), GREYS, LOSSY)
    deep = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), (samples() * 257).tobytes())
    file = io.BytesIO()
    deep.save(file, quality=90)
    yield Valid("10-bit.heif", file.getvalue(), tolerance=LOSSY)
    lying = encoded(picture().transpose(UNTURNED[6]), "HEIF", quality=90, exif=craft.exif(6))
    yield Valid("irot-only.heif", lying.replace(craft.exif(6), craft.exif(1)), tolerance=LOSSY)
    upright = encoded(picture(), "HEIF", quality=90, exif=craft.exif(1))
    yield Valid("exif-only.heif", upright.replace(craft.exif(1), craft.exif(6)), tolerance=LOSSY)


def _transparent() -> Iterator[Valid]:
    """The first quarter clear, so white; the second half clear, so half white; the rest solid."""
    alpha = picture(((0,) * 3, (128,) * 3, (255,) * 3, (255,) * 3), "L")
    clear, half = (255, 255, 255), tuple(255 - (255 - value) * 128 // 255 for value in COLOURS[1])
    shown = (clear, half, *COLOURS[2:])
    image = picture(mode="RGBA")
    image.putalpha(alpha)
    for kind, options, tolerance in (
        ("PNG", {}, 2),
        ("WEBP", {"lossless": True}, 2),
        ("TIFF", {}, 2),
        ("AVIF", {"quality": 95}, LOSSY),
        ("HEIF", {"quality": 95}, LOSSY),
    ):
        yield Valid(f"alpha.{kind.lower()}", encoded(image, kind, **options), shown, tolerance)
    grey = Image.merge("LA", (picture(GREYS, "L"), alpha))
    half_grey = (255 - (255 - GREYS[1][0]) * 128 // 255,) * 3
    yield Valid("grey-alpha.png", encoded(grey, "PNG"), (clear, half_grey, *GREYS[2:]), 2)
    deep = np.dstack([samples(), np.asarray(alpha)]) * np.uint16(257)
    yield Valid("alpha-16.png", craft.png(deep, depth=16), shown, 2)
    palette = picture().quantize(4)
    first = palette.getpixel((0, 0))
    shown = (clear, *COLOURS[1:])
    yield Valid("palette-clear.png", encoded(palette, "PNG", transparency=first), shown)
    yield Valid("palette-clear.gif", encoded(palette, "GIF", transparency=first), shown)
    levels = bytes(0 if index == first else 255 for index in range(4))
    yield Valid("palette-levels.png", encoded(palette, "PNG", transparency=levels), shown)
    key = craft.chunk(b"tRNS", struct.pack(">3H", *COLOURS[0]))
    yield Valid("colour-key.png", craft.png(samples(), key), shown)


def _profiled() -> Iterator[Valid]:
    """A profile that names red green must show green where the file says red."""
    swapped = craft.icc(craft.GREEN_XYZ, craft.RED_XYZ, craft.BLUE_XYZ)
    shown = tuple((green, red, blue) for red, green, blue in COLOURS)
    for kind, options in (
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
    ):
        content = encoded(picture(), kind, icc_profile=swapped, **options)
        yield Valid(f"swapped.{kind.lower()}", content, shown, LOSSY)
    srgb = craft.icc(craft.RED_XYZ, craft.GREEN_XYZ, craft.BLUE_XYZ)
    yield Valid("gamma-2.2.png", encoded(picture(), "PNG", icc_profile=srgb), tolerance=8)
    lighter = tuple((grey, grey, grey) for grey in (72, 156, 203, 248))
    content = encoded(picture(GREYS, "L"), "PNG", icc_profile=craft.icc(gamma=1))
    yield Valid("linear-grey.png", content, lighter, 2)
    palette = encoded(picture().quantize(4), "PNG", icc_profile=swapped)
    yield Valid("swapped-palette.png", palette, shown, LOSSY)
    for name, broken in {
        "garbage": b"garbage" * 99,
        "grey": craft.icc(),
        "cut": swapped[:200],
    }.items():
        content = encoded(picture(), "PNG", icc_profile=broken)
        yield Valid(f"profile-{name}.png", content)


def _bad_metadata() -> Iterator[Valid]:
    """None of this may fail the image that carries it, nor turn it."""
    exif, camera = craft.exif(1), Image.Exif()
    camera[0x010F] = "a camera of no make"
    for name, broken in {
        "orientation-0": craft.exif(0),
        "orientation-9": craft.exif(9),
        "orientation-65535": craft.exif(65535),
        "no-tiff": b"garbage!" * 9,
        "cut": craft.exif(6)[:11],
        "far": exif[:4] + struct.pack("<I", 2**31) + exif[8:],
        "loop": exif[:-4] + struct.pack("<I", 8),
        "empty": b"",
        "many-tags": exif[:8] + b"\xff\xff" + exif[10:],
    }.items():
        jpeg = encoded(picture(), "JPEG", quality=95)
        marked = jpeg[:2] + craft.segment(0xE1, b"Exif\0\0" + broken) + jpeg[2:]
        yield Valid(f"exif-{name}.jpeg", marked, tolerance=LOSSY)
        yield Valid(f"exif-{name}.png", craft.png(samples(), craft.chunk(b"eXIf", broken)))
        content = encoded(picture(), "AVIF", quality=90, exif=camera)
        at = content.index(b"MM\0*")
        content = content[:at] + broken[:46].ljust(46, b"\0") + content[at + 46 :]
        yield Valid(f"exif-{name}.avif", content, tolerance=LOSSY)
    text = b"Raw profile type exif\0\nexif\n      20\nnot hexadecimal\n"
    yield Valid("exif-as-text.png", craft.png(samples(), craft.chunk(b"tEXt", text)))
    wrong = craft.chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
    yield Valid("checksum-of-text.png", craft.png(samples(), wrong))
    short = encoded(picture(), "JPEG", quality=95)
    at = short.index(b"JFIF") - 4
    short = short[:at] + craft.segment(0xE0, b"JFIF\0\1") + short[at + 18 :]
    yield Valid("short-jfif.jpeg", short, tolerance=LOSSY)
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        heads = {b"zTXt": b"bomb\0\0", b"iTXt": b"bomb\0\1\0\0\0", b"iCCP": b"bomb\0\0"}
        bomb = craft.chunk(kind, heads[kind] + zlib.compress(bytes(20_000_000), 9))
        name = kind.decode().lower()
        yield Valid(f"{name}-bomb.png", craft.png(samples(), bomb))
        yield Valid(f"{name}-bomb-behind-data.png", craft.png(samples(), after=bomb))


def _damaged() -> Iterator[Hostile]:
    """Every format cut short at many places, with bits flipped, and with a run overwritten."""
    chance = random.Random(0)
    for kind in pixels.FORMATS:
        whole = encoded(noise(), kind, **({"quality": 90} if kind in ("JPEG", "AVIF") else {}))
        name = kind.lower()
        for share in (0.02, 0.1, 0.5, 0.9):
            cut = whole[: int(len(whole) * share)]
            yield Hostile(f"cut-{share}.{name}", cut, errors.UndecodableImage)
        for index in range(12):
            flipped = bytearray(whole)
            for _ in range(1 + index % 3):
                flipped[chance.randrange(len(whole) >> index % 4 * 3)] ^= 1 << chance.randrange(8)
            yield Hostile(f"flipped-{index}.{name}", bytes(flipped))
        at = chance.randrange(len(whole))
        yield Hostile(f"overwritten.{name}", whole[:at] + chance.randbytes(99) + whole[at + 99 :])


def _cut_late() -> Iterator[Hostile]:
    """JPEGs that a lenient decoder would show in part."""
    error = errors.UndecodableImage
    jpeg = encoded(noise(), "JPEG", quality=90)
    yield Hostile("cut-and-ended.jpeg", jpeg[: len(jpeg) // 2] + b"\xff\xd9", error)
    yield Hostile("no-end-mark.jpeg", jpeg[:-2], error)
    progressive = encoded(noise(), "JPEG", progressive=True)
    yield Hostile("cut-between-scans.jpeg", progressive[: progressive.rindex(b"\xff\xc4")], error)


def _bombs() -> Iterator[Hostile]:
    """Few bytes that ask for much work or memory."""
    refused = errors.DecodeLimit
    scan = craft.segment(0xDA, bytes([1, 1, 0, 0, 0, 0]))
    for name, scans, error in (("bomb", 3000, refused), ("most", pixels.MAX_SCANS - 20, None)):
        yield Hostile(f"scan-{name}.jpeg", _huge_jpeg(scan * scans, progressive=True), error)
    scan = b"".join(craft.segment(0xDA, bytes([1, index, 0, 0, 63, 0])) for index in (1, 2, 3))
    sequential = _huge_jpeg(scan * 1000)
    first, last = sequential.index(b"\xff\xda"), sequential.index(scan)
    sequential = sequential[:first] + sequential[last:]
    yield Hostile("scan-bomb-sequential.jpeg", sequential, refused)
    yield Hostile("scan-bomb-refined.jpeg", refined_jpeg(scans=80), refused)
    plain = encoded(noise(), "JPEG", progressive=True)
    hidden = craft.segment(0xFE, b"\xff\xda" * 200) + craft.segment(0xFE, b"") * 1_000_000
    yield Hostile("markers.jpeg", plain[:-2] + hidden + plain[-2:], refused)
    yield Hostile("comments.jpeg", b"\xff\xd8" + craft.segment(0xFE, b"") * 2_000_000)
    yield Hostile("padding.jpeg", b"\xff\xd8" + b"\xff" * 8_000_000)
    texts = craft.chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(900_000), 9)) * 500
    yield Hostile("500-texts.png", craft.png(samples(), texts))
    chunks = craft.chunk(b"noNe", b"") * 200_000
    yield Hostile("chunks.png", craft.png(samples(), chunks), refused)
    profiles = craft.chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(1_000_000), 9)) * 2000
    yield Hostile("2000-profiles.png", craft.png(samples(), profiles))
    yield Hostile("strips.tiff", strips(200_000), refused)
    palette, ends = bytes(64), b"\1\0\0\0" * 8000
    yield Hostile("run-length-bomb.bmp", craft.bmp(ends, palette, (8000, 8000)), refused)
    runs = b"\xff\1" * 260_000
    yield Hostile("run-length-4-bomb.bmp", craft.bmp(runs, palette, (8000, 8000), bits=4), refused)
    nothing = b"\xff\1" * 4_000_000  # runs that begin behind the end of the row
    yield Hostile("run-length-stuck.bmp", craft.bmp(nothing, palette, (10, 10), bits=4), refused)
    strip = encoded(Image.new("L", (1_000_000, 1)), "PNG")
    yield Hostile("strip.png", strip)


def _huge_jpeg(scans: bytes, *, progressive: bool = False) -> bytes:
    """64 megapixels in a file of a few hundred bytes, and scans that repeat nothing."""
    content = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=progressive)
    at = content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return (
        content[:at] + struct.pack(">HH", 8000, 8000) + content[at + 4 : -2] + scans + b"\xff\xd9"
    )


def refined_jpeg(scans: int) -> bytes:
    """Each scan of 70 bytes adds nothing to any coefficient of 64 megapixels, one by one."""
    empty = int(("0" + "1" * 14) * 32, 2)  # "nothing in the next 32,767 blocks", 32 times
    codes = empty.to_bytes(60, "big").replace(b"\xff", b"\xff\0")
    table = craft.segment(0xC4, bytes([0x10, 1, *bytes(15), 0xE0]))
    scan = craft.segment(0xDA, bytes([1, 1, 0, 1, 63, 0x10])) + codes
    return _huge_jpeg(table + scan * scans, progressive=True)


def strips(count: int) -> bytes:
    """A TIFF one pixel wide, of so many strips that lie in one place."""
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [1]),
        257: ("I", [count]),
        258: ("H", [8]),
        259: ("H", [1]),
        262: ("H", [1]),
        273: ("H", [8] * count),
        278: ("I", [1]),
    }
    directory, more = craft.tiff_directory(tags, "<", False, 8 + 2 + 12 * len(tags) + 8)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + more


def _huge_webp(width: int, height: int) -> bytes:
    """32 bytes: a picture of one colour needs no data at all."""
    content = encoded(Image.new("RGB", (9, 9)), "WEBP", lossless=True)
    bits = int.from_bytes(content[21:25], "little") >> 28 << 28 | (height - 1) << 14 | width - 1
    return content[:21] + bits.to_bytes(4, "little") + content[25:]


def _too_large() -> Iterator[Hostile]:
    error = errors.ImageTooLarge
    jpeg = encoded(noise(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield Hostile("65500.jpeg", jpeg[:at] + b"\xff\xdc\xff\xdc" + jpeg[at + 4 :], error)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    yield Hostile("60000.png", craft.png_of(header, craft.chunk(b"IDAT", b"")), error)
    yield Hostile("12000.webp", _huge_webp(12_000, 12_000), error)
    yield Hostile("16384.webp", _huge_webp(16_384, 16_384), error)
    yield Hostile("65535.gif", craft.gif(samples(GREYS, 1)[..., 0] // 2, (65_535, 65_535)), error)
    bmp = encoded(noise(), "BMP")
    yield Hostile("2147483647.bmp", bmp[:18] + b"\xff\xff\xff\x7f" * 2 + bmp[26:], error)
    tiff = craft.tiff(samples(), 2).replace(struct.pack(">I", WIDTH), struct.pack(">I", 2**31))
    yield Hostile("2147483648.tiff", tiff, error)
    strip = craft.png_of(struct.pack(">IIBBBBB", 64_000_001, 1, 1, 0, 0, 0, 0))
    yield Hostile("64000001-strip.png", strip, error)
    yield Hostile("11-mb.bmp", encoded(Image.new("RGB", (2000, 1900)), "BMP"), error)


def _liars() -> Iterator[Hostile]:
    """Files that say two things about their size; the first is small enough."""
    huge = craft.chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 1, 0, 0, 0, 0))
    yield Hostile("two-headers.png", craft.png(samples(), huge), errors.ImageTooLarge)
    sizes = [struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0) for edge in (8, 8000)]
    data = craft.chunk(b"IDAT", zlib.compress(bytes(8001 * 8000), 9))
    grown = craft.png_of(sizes[0], craft.chunk(b"IHDR", sizes[1]), data)
    yield Hostile("grown.png", grown, errors.UndecodableImage)
    gif = craft.gif(samples(GREYS, 1)[..., 0] // 2, (9, 9))
    at = gif.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT)) + 5
    beyond = gif[:at] + struct.pack("<HH", 65_535, 65_535) + gif[at + 4 :]
    yield Hostile("frame-far-beyond-screen.gif", beyond, errors.ImageTooLarge)
    for name, claim in (("small", (8, 8)), ("large", (7_000, 7_000))):
        avif = encoded(noise(), "AVIF", quality=50)
        at = avif.index(b"ispe") + 8
        yield Hostile(f"{name}-ispe.avif", avif[:at] + struct.pack(">II", *claim) + avif[at + 8 :])
    webp = encoded(noise().convert("RGBA"), "WEBP", lossless=True, exif=craft.exif(1))
    at = webp.index(b"VP8X") + 12
    yield Hostile("canvas.webp", webp[:at] + bytes(6) + webp[at + 6 :])
    tiff = encoded(picture(), "TIFF", compression="tiff_lzw")
    tile = tiff.replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 322, 4, 1))
    yield Hostile("tile.tiff", tile)


def _mazes() -> Iterator[Hostile]:
    """Structures that lead in circles, nowhere, or everywhere."""
    head = struct.pack("<2sHI", b"II", 42, 8)
    entry = struct.pack("<HHII", 1000, 1, 9_000_000, 8)
    many = b"".join(struct.pack("<H", 1000 + index) + entry[2:] for index in range(20_000))
    flood = head + struct.pack("<H", 20_000) + many + bytes(4)
    yield Hostile("tag-flood.tiff", flood.ljust(9_100_000, b"\0"))
    big = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, 2**63)
    yield Hostile("endless-directory.tiff", big + bytes(1000), errors.UndecodableImage)
    few, late = (struct.pack("<HHIHH", tag, 3, 1, 9, 0) for tag in (256, 257)), many[: 12 * 300]
    hidden = head + struct.pack("<H", 302) + b"".join(few) + late + bytes(4)
    yield Hostile("300-tags.tiff", hidden, errors.UndecodableImage)
    looped = craft.tiff(samples(), 2)
    yield Hostile("looped-directory.tiff", looped[:-4] + looped[4:8])
    box = struct.pack(">I4s", 8, b"meta")
    ftyp = struct.pack(">I4s4sI4s", 20, b"ftyp", b"avif", 0, b"avif")
    yield Hostile("boxes.avif", ftyp + box * 500_000, errors.UndecodableImage)
    nested = b"".join(struct.pack(">I4s", 2**30, b"meta") for _ in range(100_000))
    yield Hostile("nested.avif", ftyp + nested, errors.UndecodableImage)


def _others() -> Iterator[Hostile]:
    """Files of other kinds, some under the name of an image."""
    chance = random.Random(1)
    jpeg = encoded(noise(), "JPEG")
    isobmff = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"mp41")
    for name, content in {
        "photo-in.pdf": b"%PDF-1.7\n1 0 obj\n" + jpeg,
        "photo-in.zip": _zip(),
        "photo.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "declared.svg": b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg></svg>",
        "page.html": b"\n <!DOCTYPE html><title>404</title>",
        "wrong-extension.jpeg": b"<HTML><body>Not found</body></html>",
        "film.mp4": isobmff + struct.pack(">I4s", 8, b"moov"),
        "icon.ico": encoded(noise(), "ICO", sizes=[(32, 32)]),
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "layers.psd": b"8BPS\0\1" + bytes(40),
        "sound.wav": b"RIFF\x24\0\0\0WAVEfmt ",
        "new.jxl": b"\xff\x0a" + bytes(40),
    }.items():
        yield Hostile(name, content, errors.UnsupportedFormat)
    for name, content in {
        "nul.jpeg": bytes(1000),
        "random.png": chance.randbytes(5000),
        "text.gif": b"GIF8 is how it should begin",
        "one-byte.jpeg": b"\xff",
        "magic-only.jpeg": b"\xff\xd8\xff",
        "magic-only.png": b"\x89PNG\r\n\x1a\n",
        "magic-only.bmp": b"BM",
        "text.bmp": b"BMW drivers of the world, unite",
        "magic-only.webp": b"RIFF\0\0\0\0WEBP",
    }.items():
        yield Hostile(name, content, errors.UndecodableImage)
    yield Hostile("empty.jpeg", b"", errors.EmptyImage)
    yield Hostile("zip-in-front.jpeg", _zip() + jpeg, errors.UnsupportedFormat)
    script = craft.segment(0xFE, b"<script>alert(1)</script><?php system('id') ?>")
    yield Hostile("script.jpeg", jpeg[:2] + script + jpeg[2:])


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photo.txt"), "no photo")
    return file.getvalue()


def large() -> Iterator[tuple[str, bytes]]:
    """64 megapixels, the most that we promise, in the modes that take the most memory."""
    for mode, kind, options in (
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGBA", "PNG", {"compress_level": 1}),
        ("F", "TIFF", {"compression": "zstd"}),
    ):
        content = encoded(Image.new(mode, (8000, 8000)), kind, **options)
        yield f"{mode}-{'-'.join(options)}.{kind.lower()}", content
    yield "rgb.webp", _huge_webp(8000, 8000)


def main(folder: str) -> None:
    """Writes the corpus into a folder."""
    for case in everything():
        path = Path(folder, type(case).__name__.lower(), case.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.content)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
