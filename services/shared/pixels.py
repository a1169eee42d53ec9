"""The one way from an encoded image to pixels, for crawler, trainer and inference alike.

A model must see in service what it saw in training, so whoever decodes does it here; datasets and
models store VERSION. What arrives is untrusted. Its limits are checked before anything is decoded,
yet a decoder may still hang, crash or exhaust memory: call this in a worker process that can be
killed, one image at a time.
"""

# H W pixels, 3 RGB

import contextlib
import importlib
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)

# Named here, the plugins are registered; Image.open would else load all fifty of them.
from PIL import (
    AvifImagePlugin,
    Image,
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from services.shared import colour, errors, header

VERSION = 2  # of the way itself: raise it when the pixels of any image change
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_BYTES = 10 * 2**20
MAX_PIXELS = 64_000_000
MAX_SCANS = 100  # libjpeg-turbo's own fuzzers stop here; an honest progressive JPEG has about ten
MAX_SCANNED_PIXELS = 1_500_000_000  # in all scans: 0.6 s for each thousand million
MAX_MARKERS = 1000  # tables come between scans
MAX_CHUNKS = 20_000  # of a PNG: Pillow takes 2 us for each
MAX_RUN_LENGTH = 2**21  # pixels, and bytes, of a BMP in run-length encoding: 0.9 s
MAX_JPEG_EDGE_PX = 65_500

with contextlib.suppress(ImportError):
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
    FORMATS += ("HEIF",)  # the extra is installed
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # workers share the cores, and each thread takes memory

JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
ADOBE_BYTES = 16
DECODER_BYTES_PER_PIXEL = 8  # of a WebP's two canvases, or a progressive JPEG's coefficients
SCALES = (8, 4, 2)  # those that libjpeg-turbo is fast at
STRIP_PX = 2**20
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = {TURNS[5], TURNS[6], TURNS[7], TURNS[8]}

BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """A decoded image, and how large it was before it was scaled."""

    pixels_HW3: Pixels
    width: int
    """Of the upright original."""
    height: int


class Box(NamedTuple):
    """The edges of a part of an image, as fractions of its width and height from the top left."""

    left: float
    top: float
    right: float
    bottom: float


def decode(content: bytes, *, edge_px: int = 256) -> Pixels:
    """The image as (H, W, 3) RGB: upright, in sRGB, over white where it is transparent.

    A JPEG is scaled while it is decoded, by the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter
    edge stays at least `edge_px`. Of an animation, the first frame counts. Broken metadata never
    fails an image; one that is cut short does, since nobody should learn from half a picture.

    Raises:
        ImageError: one of its kinds, with a message for whoever sent the image.
    """
    return picture(content, edge_px=edge_px).pixels_HW3


def picture(content: bytes, *, edge_px: int = 256) -> Picture:
    """As `decode`, with the size of the original."""
    found = admit(content)
    kind = found.format
    if kind == "JPEG" and (pixels_HW3 := _simple_jpeg(content, found, edge_px)) is not None:
        return Picture(pixels_HW3, found.width, found.height)
    with _failures_named(found):
        image = _opened(content, found)
        turn, profile = _turn(image), image.info.get("icc_profile")
        width, height = image.size[::-1] if turn in QUARTER_TURNS else image.size
        if kind == "JPEG":
            pixels_HW3 = _decoded_jpeg(image, content, edge_px)
            if pixels_HW3 is not None:
                if turn is None and profile is None:  # nearly always
                    return Picture(pixels_HW3, width, height)
                image = Image.fromarray(pixels_HW3)
        image = colour.in_srgb(image, profile)
        if turn is not None:
            image = image.transpose(turn)
        return Picture(_array(image), width, height)


def crop(pixels_HW3: Pixels, *, size_px: int = 224, fraction: float = 0.875) -> tuple[Pixels, Box]:
    """The centre as (size_px, size_px, 3), and which part of the image it shows.

    Equals resizing the shorter edge to `size_px / fraction` and cutting out the middle, as
    torchvision does it (bicubic, antialiased), but computes only the middle.
    """
    height, width = pixels_HW3.shape[:2]
    edge_px = round(size_px / fraction)
    shorter = min(width, height)
    left, right = _middle(edge_px * width // shorter, size_px)
    top, bottom = _middle(edge_px * height // shorter, size_px)
    box = Box(left, top, right, bottom)
    if shorter == edge_px:  # as prescaled pictures are: the filter would change nothing
        x, y = round(left * width), round(top * height)
        return pixels_HW3[y : y + size_px, x : x + size_px].copy(), box
    # Only what the filter looks at: all of a large picture would be copied, and half of it used.
    first_x, end_x = _window(left * width, right * width, size_px, width)
    first_y, end_y = _window(top * height, bottom * height, size_px, height)
    x, y = left * width - first_x, top * height - first_y
    part = CropBox(
        x,
        y,
        min(right * width, end_x) - first_x - x,
        min(bottom * height, end_y) - first_y - y,
    )
    window_HW3 = pixels_HW3[first_y:end_y, first_x:end_x]
    return resized(window_HW3, size_px, size_px, part), box


def prescale(content: bytes, *, edge_px: int = 256, quality: int = 90) -> bytes:
    """The image as JPEG with a shorter edge of at most `edge_px`, upright, in sRGB, no metadata."""
    return jpeg(scaled(content, edge_px=edge_px).pixels_HW3, quality=quality)


def scaled(content: bytes, *, edge_px: int = 256) -> Picture:
    """As `picture`, with a shorter edge of at most `edge_px`.

    Scaled as `crop` scales, so that a model sees in it what it would see in the original.
    """
    found = picture(content, edge_px=edge_px)
    height, width = found.pixels_HW3.shape[:2]
    shorter = min(width, height)
    if shorter <= edge_px:
        return found
    size = (edge_px * width // shorter, edge_px * height // shorter)
    return found._replace(pixels_HW3=resized(found.pixels_HW3, *size))


def resized(pixels_HW3: Pixels, width: int, height: int, part: CropBox | None = None) -> Pixels:
    """As Pillow resizes with its bicubic filter, within 5 of 255, in a seventh of the time.

    Args:
        part: to make the result of, in pixels; the rest counts where the filter looks beyond it.
    """
    source = ImageData(*pixels_HW3.shape[1::-1], PixelType.U8x3, pixels_HW3.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    Resizer().resize(source, target, ResizeOptions(BICUBIC, crop_box=part))
    # Copied: the target's own bytes cannot be written to.
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3).copy()


def jpeg(pixels_HW3: Pixels, *, quality: int = 90) -> bytes:
    """The pixels as JPEG; a strip more than 65,500 pixels long is cut off at both ends."""
    left, top = (max(0, (edge - MAX_JPEG_EDGE_PX) // 2) for edge in pixels_HW3.shape[1::-1])
    pixels_HW3 = pixels_HW3[top : top + MAX_JPEG_EDGE_PX, left : left + MAX_JPEG_EDGE_PX]
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels_HW3), quality=quality)
    return encoded


def admit(content: bytes) -> header.Header:
    """What the first bytes say of an image that may be decoded; a size of 0 is unknown.

    Cheap enough for a server's own process.

    Raises:
        ImageError: it is none of ours, or goes over a limit.
    """
    if not content:
        raise errors.EmptyImage("The image has no bytes; send a whole file.")
    if len(content) > MAX_BYTES:
        raise errors.ImageTooLarge(
            f"The image has {len(content):,} bytes; at most {MAX_BYTES:,} are allowed.",
            limit=str(MAX_BYTES),
            bytes=str(len(content)),
        )
    kind = header.sniff(content)
    if kind not in FORMATS:
        raise _not_ours(kind)
    found = header.read(content) or header.Header(kind, 0, 0)
    if found.width * found.height > MAX_PIXELS:
        raise _too_many_pixels(found.width * found.height)
    if kind in ("JPEG", "TIFF") and not found.width:  # Pillow would read millions of parts singly
        raise errors.UndecodableImage(f"The {kind} has no header; send it whole.", format=kind)
    if why := _excess(found, content):
        raise errors.DecodeLimit(why)
    return found


def _excess(found: header.Header, content: bytes) -> str:
    """What would keep a decoder busy for longer than an honest image does; mostly nothing."""
    if found.format == "PNG" and _has_too_many_chunks(content):
        return f"The PNG has more than {MAX_CHUNKS:,} chunks; save it anew, without metadata."
    if not found.slow:
        return ""
    if found.format == "TIFF":
        return f"The TIFF has more than {header.MAX_STRIPS:,} strips or tiles; save it with fewer."
    area = found.width * found.height
    if found.format == "BMP":
        return (
            f"The BMP is run-length encoded and has more than {MAX_RUN_LENGTH:,} pixels or bytes; "
            "save it without that encoding."
            if max(area, len(content)) > MAX_RUN_LENGTH
            else ""
        )
    scans = min(MAX_SCANS, MAX_SCANNED_PIXELS // area)
    if _has_more_scans(content, scans):
        return f"The JPEG has more than {scans} scans; save it as a baseline JPEG."
    return ""


def _not_ours(kind: str) -> errors.ImageError:
    wanted = ", ".join(FORMATS[:-1]) + " or " + FORMATS[-1]
    if kind:
        lacks = ", for which emojinet[heic] would have to be installed here" * (kind == "HEIF")
        return errors.UnsupportedFormat(
            f"This is a {kind} file{lacks}; send {wanted}.", format=kind
        )
    return errors.UndecodableImage(
        f"These bytes are no image known here; send {wanted}.", format=""
    )


def _too_many_pixels(count: int) -> errors.ImageTooLarge:
    return errors.ImageTooLarge(
        f"The image has {count:,} pixels; at most {MAX_PIXELS:,} are allowed.",
        limit=str(MAX_PIXELS),
        pixels=str(count),
    )


def _has_too_many_chunks(content: bytes) -> bool:
    at = 8
    for _ in range(MAX_CHUNKS):
        at += 12 + int.from_bytes(content[at : at + 4], "big")
        if at >= len(content):
            return False
    return True


def _has_more_scans(content: bytes, most: int) -> bool:
    """Whether a JPEG goes over the picture more often than that.

    Each scan may cost as much as the whole picture and takes ten bytes: 2 MB can keep a decoder
    busy for minutes. In compressed data 0xff is followed by a zero, so counting marks is enough
    unless thumbnails in the metadata have some, too.
    """
    if content.count(b"\xff\xda") <= most:
        return False
    at, scans = 2, 0
    for _ in range(MAX_MARKERS):
        match = JPEG_MARKER.search(content, at)
        if match is None or match[1] == b"\xd9":
            return scans > most
        scans += match[1] == b"\xda"
        at = match.end() + int.from_bytes(content[match.end() : match.end() + 2], "big")
    return True


class _SetUp:
    """Pillow with our limit, and without warnings, while any thread decodes.

    Both belong to the whole process: were each thread to put back what it found, the last would
    put back what another had set.
    """

    def __init__(self) -> None:
        self._lock, self._decoding, self._before = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._decoding:
                self._before.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                self._before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                # Pillow refuses twice what it is told: a header may be unknown to us, or say two
                # things.
                Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
            self._decoding += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._decoding -= 1
            if not self._decoding:
                self._before.close()


SET_UP = _SetUp()


@contextlib.contextmanager
def _failures_named(found: header.Header) -> Iterator[None]:
    """Turns whatever a decoder raises into an error for whoever sent the image."""
    try:
        with SET_UP:
            yield
    except errors.ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(int(re.findall(r"\d+", str(error))[0])) from error
    except Exception as error:  # decoders raise any type
        kind = found.format
        if _is_lack_of_memory(error, found.width * found.height):
            raise errors.DecodeLimit(
                f"Decoding the {kind} took more memory than an image may; send a smaller one."
            ) from error
        raise errors.UndecodableImage(
            f"The {kind} is broken or cut short{_cause(error)}; send it whole.", format=kind
        ) from error


def _is_lack_of_memory(error: Exception, pixels: int) -> bool:
    """Whether memory ran out; libwebp and libjpeg do not say, so we ask for what they needed."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return True
    try:
        np.empty(pixels * DECODER_BYTES_PER_PIXEL, np.uint8)  # touched by nobody, so it is free
    except MemoryError:
        return True
    return False


def _cause(error: Exception) -> str:
    """What the decoder said, unless it speaks of addresses, paths or Python."""
    text = str(error)
    return f" ({text})" if re.fullmatch(r"[\w ,.:'()-]{1,100}", text) else ""


def _opened(content: bytes, found: header.Header) -> Image.Image:
    """The image with its pixels, except those of a JPEG."""
    if found.format == "PNG" and content.count(b"iCCP") > 1:
        content = _bare_png(content)  # each could unpack to a megabyte
    try:
        return _loaded(content, found)
    except (errors.ImageError, MemoryError):
        raise
    except Exception:
        if found.format not in BARE:
            raise
        return _loaded(BARE[found.format](content), found)


def _loaded(content: bytes, found: header.Header) -> Image.Image:
    image = Image.open(BytesIO(content), formats=(found.format,))
    if image.width * image.height > (found.width * found.height or MAX_PIXELS):
        raise errors.UndecodableImage(
            f"The {found.format} says two things about its size; save it anew.",
            format=found.format,
        )
    if found.format != "JPEG":
        image.load()
    return image


def _bare_jpeg(content: bytes) -> bytes:
    """Without APP segments, but for the one that tells how its colours are stored."""
    bare, at = [content[:2]], 2
    while content[at : at + 1] == b"\xff" and (marker := content[at + 1 : at + 2]) != b"\xda":
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if not b"\xe0" <= marker <= b"\xef" or (marker == b"\xee" and end - at >= ADOBE_BYTES):
            bare.append(content[at:end])
        at = end
    return b"".join([*bare, content[at:]])


def _bare_png(content: bytes) -> bytes:
    bare, at = [content[:8]], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] in PNG_PIXELS:
            bare.append(content[at:end])
        at = end
    return b"".join(bare)


def _bare_avif(content: bytes) -> bytes:
    return content.replace(b"Exif", b"none")  # an item of a type that nobody knows


# The same pictures without what may be a bomb or garbage in them. Other formats' readers do not
# look into metadata before we ask.
BARE: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": _bare_jpeg,
    "PNG": _bare_png,
    "AVIF": _bare_avif,
}


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright; nothing where its metadata is absent or broken."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow's readers of metadata raise any type
        return None


def _decoded_jpeg(image: Image.Image, content: bytes, edge_px: int) -> Pixels | None:
    """The pixels of a usual JPEG; None for others, which Pillow is then set to scale.

    simplejpeg is the faster of the two, but knows neither inks nor which errors are harmless.
    """
    width, height = image.size
    scale = _scale(width, height, edge_px)
    if image.mode == "RGB":
        try:
            return _simply(content, width, height, scale)
        except ValueError as error:
            if "premature end" in str(error).lower():  # Pillow may show half a picture
                raise
    image.draft(None, (width // scale, height // scale))
    return None


def _simple_jpeg(content: bytes, found: header.Header, edge_px: int) -> Pixels | None:
    """The pixels of a JPEG of which nothing else need be known; None if the long way must tell.

    To open it with Pillow takes a tenth of the time that a prescaled picture takes in all.
    """
    width, height = found.width, found.height
    if found.slow or not header.is_bare(content):
        return None
    try:
        if simplejpeg.decode_jpeg_header(content)[:2] == (height, width):
            return _simply(content, width, height, _scale(width, height, edge_px))
    except ValueError:
        pass
    return None


def _scale(width: int, height: int, edge_px: int) -> int:
    return next((s for s in SCALES if -(-min(width, height) // s) >= edge_px), 1)


def _simply(content: bytes, width: int, height: int, scale: int) -> Pixels:
    least = {"min_width": -(-width // scale), "min_height": -(-height // scale)}
    pixels_HW3: Pixels = simplejpeg.decode_jpeg(content, **least)
    return pixels_HW3


def _array(image: Image.Image) -> Pixels:
    """The pixels as a writable array, in strips: at once, Pillow needs three times the memory."""
    pixels_HW3 = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, STRIP_PX // image.width)
    for top in range(0, image.height, rows):
        end = min(top + rows, image.height)
        pixels_HW3[top:end] = np.asarray(image.crop((0, top, image.width, end)))
    return pixels_HW3


def _middle(edge_px: int, size_px: int) -> tuple[float, float]:
    """Where `size_px` in the middle of an edge begin and end, as fractions of it."""
    first = round((edge_px - size_px) / 2)
    return first / edge_px, (first + size_px) / edge_px


def _window(start: float, stop: float, size_px: int, limit: int) -> tuple[int, int]:
    """The pixels that the bicubic filter looks at to make `size_px` from `start` to `stop`.

    Small windows also keep Pillow exact: it takes a box in 32-bit floats.
    """
    margin = 2 * max(1.0, (stop - start) / size_px) + 1
    return max(0, math.floor(start - margin)), min(limit, math.ceil(stop + margin))
