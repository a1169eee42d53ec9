"""Decoding as textbooks do it: all of the picture, by Pillow, then scaled, then cut."""

from io import BytesIO

import numpy as np
from PIL import Image


def textbook(content: bytes, *, size_px: int = 224, fraction: float = 0.875) -> np.ndarray:
    """The square in the middle, (size_px, size_px, 3)."""
    return cut(Image.open(BytesIO(content)), size_px, fraction)


def cut(picture: Image.Image, size_px: int, fraction: float) -> np.ndarray:
    """The shorter edge scaled to `size_px / fraction`, and the middle of that."""
    image, edge_px = picture.convert("RGB"), round(size_px / fraction)
    shorter = min(image.size)
    width, height = (edge_px * edge // shorter for edge in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return np.asarray(image.crop((left, top, left + size_px, top + size_px)))
