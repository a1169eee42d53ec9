"""Squares that teach the starter: photographs varied, drawings on backdrops, and nothing at all.

All are (edge, edge, 3) of bytes, and every random choice comes from the generator that is handed
in, so that a recipe's squares are the same on every machine.
"""

import io
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from services.shared import model, pixels
from services.shared.starter import PREPROCESSING

EDGE = PREPROCESSING.size_px
DECODED_PX = 320  # more than a square needs, so that a part of a photograph is still sharp
BICUBIC = Image.Resampling.BICUBIC

Square = np.ndarray
Random = np.random.Generator


def photo(content: bytes, count: int, random: Random) -> Iterator[Square]:
    """The square that is served, then parts of the photograph, turned, recoloured and coarsened."""
    yield model.view(PREPROCESSING, content)
    picture = Image.fromarray(pixels.decode(content, edge_px=DECODED_PX))
    picture.thumbnail((2 * DECODED_PX, 2 * DECODED_PX))
    for _ in range(count - 1):
        yield _varied(picture, random)


def _varied(picture: Image.Image, random: Random) -> Square:
    part = _part(picture, random.uniform(0.35, 1), random.uniform(-0.3, 0.3), random)
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.3:
        mean = np.asarray(part).mean((0, 1)).astype(int).tolist()
        part = part.rotate(random.uniform(-20, 20), BICUBIC, fillcolor=tuple(mean))
    if random.random() < 0.25:  # dishes and faces often come as thumbnails
        part = part.resize((int(random.integers(56, 112)),) * 2, BICUBIC)
    part = part.resize((EDGE, EDGE), BICUBIC)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        part = enhance(part).enhance(random.uniform(0.75, 1.3))
    if random.random() < 0.1:
        part = part.convert("L").convert("RGB")
    return np.asarray(part)


def _part(picture: Image.Image, share: float, stretch: float, random: Random) -> Image.Image:
    """A part of this share of the picture, of about its shape."""
    width = min(picture.width, round(picture.width * (share * np.exp(stretch)) ** 0.5))
    height = min(picture.height, round(picture.height * (share / np.exp(stretch)) ** 0.5))
    left = int(random.integers(picture.width - width + 1))
    top = int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def drawing(
    path: Path, count: int, random: Random, backdrops: list[bytes] | None = None
) -> Iterator[Square]:
    """The drawing on white, then of other sizes, on plain colours or parts of the backdrops."""
    drawn = Image.open(path).convert("RGBA")
    yield _placed(drawn, Image.new("RGB", (EDGE, EDGE), "white"), 0.8, (0.5, 0.5))
    for _ in range(count - 1):
        turned = drawn.rotate(random.uniform(-20, 20) * (random.random() < 0.3), BICUBIC, True)
        where = tuple(random.uniform(0.1, 0.9, 2).tolist())
        backdrop = _backdrop(random, backdrops)
        yield _placed(turned, backdrop, random.uniform(0.4, 0.96), where)


def _placed(
    drawn: Image.Image, backdrop: Image.Image, size: float, where: tuple[float, ...]
) -> Square:
    scale = size * EDGE / max(drawn.size)
    drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)), BICUBIC)
    left, top = (round((EDGE - edge) * at) for edge, at in zip(drawn.size, where, strict=True))
    backdrop.paste(drawn, (left, top), drawn)
    return np.asarray(backdrop)


def _backdrop(random: Random, photos: list[bytes] | None) -> Image.Image:
    if photos and random.random() < 0.6:
        picture = Image.open(io.BytesIO(photos[int(random.integers(len(photos)))])).convert("RGB")
        return _part(picture, random.uniform(0.2, 0.8), 0, random).resize((EDGE, EDGE), BICUBIC)
    if random.random() < 0.5:
        return Image.new("RGB", (EDGE, EDGE), "white")
    return Image.new("RGB", (EDGE, EDGE), tuple(random.integers(0, 256, 3).tolist()))


def nothing(random: Random) -> Iterator[Square]:
    """For ever: blanks, noise, slopes, clouds, stripes, checks, blobs, scribbles and pages."""
    kinds = (_blank, _noise, _gradient, _clouds, _stripes, _checks, _blobs, _scribbles, _page)
    while True:
        for make in kinds:
            square = make(random)
            if random.random() < 0.3:
                square = square + random.normal(0, random.uniform(2, 25), square.shape)
            yield square.clip(0, 255).astype(np.uint8)


def _mixed(share_HW: np.ndarray, random: Random) -> Square:
    """Two colours, the second in this share."""
    first, second = random.integers(0, 256, (2, 3))
    return first + share_HW[..., None] * (second - first)


def _slope(random: Random) -> np.ndarray:
    """Heights from 0 to 1 on a plane that leans some way."""
    rows, columns = np.mgrid[0:EDGE, 0:EDGE]
    angle = random.uniform(0, 2 * np.pi)
    slope: np.ndarray = rows * np.sin(angle) + columns * np.cos(angle)
    return (slope - slope.min()) / np.ptp(slope)


def _blank(random: Random) -> Square:
    return _mixed(np.zeros((EDGE, EDGE)), random)


def _noise(random: Random) -> Square:
    channels = 3 if random.random() < 0.7 else 1
    shape = (EDGE, EDGE, channels)
    return random.normal(random.uniform(60, 190), random.uniform(10, 90), shape) * np.ones(3)


def _gradient(random: Random) -> Square:
    return _mixed(_slope(random), random)


def _clouds(random: Random) -> Square:
    """Noise of many sizes, the large ones stronger."""
    clouds = np.zeros((EDGE, EDGE))
    for octave in range(int(random.integers(1, 4)), 8):
        cells = random.random((2**octave, 2**octave)).astype(np.float32)
        clouds += np.asarray(Image.fromarray(cells).resize((EDGE, EDGE), BICUBIC)) / 1.7**octave
    return _mixed((clouds - clouds.min()) / np.ptp(clouds), random)


def _stripes(random: Random) -> Square:
    waves = np.sin(_slope(random) * random.uniform(10, 300))
    return _mixed((waves > random.uniform(-0.5, 0.5)).astype(float), random)


def _checks(random: Random) -> Square:
    rows, columns = np.mgrid[0:EDGE, 0:EDGE] * int(random.integers(3, 40)) // EDGE
    return _mixed(((rows + columns) % 2).astype(float), random)


def _blobs(random: Random) -> Square:
    picture = Image.fromarray(_blank(random).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(2, 60))):
        left, top, size = random.integers((-30, -30, 3), (EDGE, EDGE, 70)).tolist()
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.ellipse((left, top, left + size, top + size), fill=colour)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 10))), float)


def _scribbles(random: Random) -> Square:
    picture = Image.fromarray(_blank(random).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(1, 4))):
        points = [(x, y) for x, y in random.uniform(0, EDGE, (int(random.integers(4, 50)), 2))]
        ink = tuple(random.integers(0, 256, 3).tolist())
        draw.line(points, fill=ink, width=int(random.integers(1, 6)))
    return np.asarray(picture, float)


def _page(random: Random) -> Square:
    picture = Image.new("RGB", (2 * EDGE, 2 * EDGE), tuple(random.integers(215, 256, 3).tolist()))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=int(random.integers(9, 26)))
    top = 10.0
    while top < picture.height:
        letters = random.choice([*string.ascii_lowercase, " ", " "], 60)
        ink = tuple(random.integers(0, 90, 3).tolist())
        draw.text((int(random.integers(0, 40)), top), "".join(letters), fill=ink, font=font)
        top += font.size * random.uniform(1.2, 2)  # type: ignore[union-attr]
    picture = picture.rotate(random.uniform(-8, 8), BICUBIC, fillcolor="white")
    return np.asarray(picture.resize((EDGE, EDGE), BICUBIC), float)
