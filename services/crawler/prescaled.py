"""What is made of a picture as it arrives: a small JPEG, and how it looks, from one decoding."""

import struct
from typing import NamedTuple

import numpy as np
import pdqhash  # type: ignore[import-untyped]
from PIL import Image

from services.shared import pixels

REPLY = struct.Struct("<II32sB")  # width, height, perceptual hash, its quality; then the JPEG
EDGE_PX = 256
HASHED_EDGE_PX = 64  # the size that PDQ itself scales to


class Prescaled(NamedTuple):
    """A picture, ready for training, and what is known of its original."""

    width: int
    """Of the upright original."""
    height: int
    pdq: bytes
    quality: int
    """Of the hash, from 0 to 100: what is flat has little for it to hold on to."""
    jpeg: bytes


def prescaled(content: bytes, *, edge_px: int = EDGE_PX) -> Prescaled:
    """Decodes a picture and scales it to a shorter edge of `edge_px`.

    Call it where it may hang or crash, as `pixels` says.

    Raises:
        ImageError: one of its kinds, with a message for whoever sent the image.
    """
    picture = pixels.scaled(content, edge_px=edge_px)
    pdq, quality = look(picture.pixels_HW3)
    return Prescaled(picture.width, picture.height, pdq, quality, pixels.jpeg(picture.pixels_HW3))


def look(pixels_HW3: pixels.Pixels) -> tuple[bytes, int]:
    """The perceptual hash PDQ of a picture, and its quality.

    PDQ comes with a scaling of its own. Ours is sharper: at half the size 100 % of photographs
    stay within the distance of near-duplicates (PDQ's own: 98 %), with 5 % cropped away 97 %
    (90 %); and all takes 0.2 ms instead of 0.8 to 1.4. The two are 16 bits apart at the median, so
    that foreign lists of PDQ hashes still match most.
    """
    grey = Image.fromarray(pixels_HW3).convert("L")
    small = grey.resize((HASHED_EDGE_PX, HASHED_EDGE_PX), Image.Resampling.HAMMING)
    bits, quality = pdqhash.compute(np.asarray(small.convert("RGB")))
    return np.packbits(bits).tobytes(), int(quality)


def pack(made: Prescaled) -> bytes:
    """For the way from a worker process."""
    return REPLY.pack(*made[:4]) + made.jpeg


def unpack(reply: bytes) -> Prescaled:
    """What `pack` packed."""
    return Prescaled._make((*REPLY.unpack_from(reply), reply[REPLY.size :]))
