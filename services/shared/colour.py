"""From whatever an image's numbers mean to sRGB in 8 bits."""

import math
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 * 2**20  # the largest profiles of printing presses have 3 MiB
BACKDROP = (255, 255, 255)  # behind whatever is transparent
WHITES = (1.0, 255.0, 65535.0)
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 0x0102, 0x0106, 0  # in a TIFF


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in mode RGB, over white where it is transparent.

    A profile that is broken, or for other channels than the image has, is as good as none.
    """
    return _through_profile(_opaque(_in_eight_bits(image)), profile)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Deeper greys, scaled; Pillow's own conversion would clip them to white."""
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        black, white = 0.0, 2.0 ** max(tags.get(BITS_PER_SAMPLE, (16,))) - 1
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            black, white = white, black
        image = image.convert("I")
    elif image.mode in ("I", "F"):
        black, white = _black_and_white(*image.getextrema())
    else:
        return image
    scale = 255 / (white - black)
    return image.point(lambda value: value * scale + (0.5 - black * scale)).convert("L")


def _black_and_white(low: float, high: float) -> tuple[float, float]:
    """The range of numbers that do not say theirs: the least usual one that holds them all.

    >>> _black_and_white(0.1, 0.9), _black_and_white(0, 4000), _black_and_white(-5, 1e6)
    ((0.0, 1.0), (0.0, 65535.0), (-5, 1000000.0))
    """
    if low < 0 or not high <= WHITES[-1]:
        return (low, high) if -math.inf < low < high < math.inf else (0.0, 1.0)
    return 0.0, next(white for white in WHITES if high <= white)


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    backdrop = Image.new("RGB", image.size, BACKDROP)
    backdrop.paste(image, mask=image)
    return backdrop


def _through_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile is not None and len(profile) <= MAX_PROFILE_BYTES:
        if image.mode not in ("RGB", "L", "CMYK"):
            image = image.convert("RGB")
        conversion = _conversion(profile, image.mode)
        if conversion is not None:
            return conversion.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


@lru_cache(maxsize=8)  # most pictures with a profile have one of very few
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a colour profile to sRGB; None if it leads nowhere, or back to the start."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):  # broken, or for other channels than these
        return None
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    sample = Image.fromarray(colours).convert(mode)
    moved = np.asarray(transform.apply(sample), np.int16) - np.asarray(sample.convert("RGB"))
    return transform if abs(moved).max() > 2 else None  # there are dozens of profiles for sRGB
