"""Pictures for benchmarks, made from the photographs that packages ship, by seed.

`python -m tests.photographs FOLDER --size 640x480 --count 16` writes them. Each is a photograph
tiled in mirrored copies or enlarged to the size, with a sensor's noise, as JPEG of quality 85 to
90: what phones send, as far as size in pixels and in bytes goes. They are for timing, not for
judging what a model knows.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps

from services.shared import photographs, pixels

NOISE = 3.0  # standard deviation of a small sensor's noise in daylight, of 255


def make(
    width: int, height: int, count: int, seed: int = 1, *, most_bytes: float = math.inf
) -> list[bytes]:
    """So many JPEGs of this size; the same seed gives the same pictures.

    Args:
        most_bytes: has a picture that is larger taken in better light: with less noise.
    """
    draw = np.random.default_rng(seed)
    sources = [Image.fromarray(pixels.decode(p.read_bytes())) for p in photographs.installed()]
    return [_jpeg(sources[n % len(sources)], width, height, draw, most_bytes) for n in range(count)]


def _jpeg(
    source: Image.Image, width: int, height: int, draw: np.random.Generator, most_bytes: float
) -> bytes:
    if draw.random() < 0.5:
        source = ImageOps.mirror(source)
    enlarged = ImageOps.fit(source, (width, height), centering=tuple(draw.random(2)))
    half = ImageOps.fit(source, (width // 2 + 1, height // 2 + 1))
    scene = np.asarray(enlarged if draw.random() < 0.5 else _tiled(half, width, height), np.float32)
    noise = draw.normal(0, NOISE, scene.shape)
    quality = int(draw.integers(85, 91))
    for share in (1, 0.75, 0.5, 0.25, 0):
        noisy = (scene + share * noise).clip(0, 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=quality)
        if file.tell() <= most_bytes:
            break
    return file.getvalue()


def _tiled(tile: Image.Image, width: int, height: int) -> Image.Image:
    """Four copies that mirror each other, so that no edge shows."""
    left = np.concatenate([np.asarray(tile), np.asarray(ImageOps.flip(tile))])
    whole = np.concatenate([left, left[:, ::-1]], axis=1)
    return Image.fromarray(whole[:height, :width])


def main(
    folder: Path,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "640x480",
    count: Annotated[int, typer.Option(min=1)] = 16,
    seed: int = 1,
) -> None:
    """Writes pictures for benchmarks into a folder."""
    width, height = (int(edge) for edge in size.split("x"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, jpeg in enumerate(make(width, height, count, seed)):
        (folder / f"{size}-{number:03}.jpg").write_bytes(jpeg)


if __name__ == "__main__":
    typer.run(main)
