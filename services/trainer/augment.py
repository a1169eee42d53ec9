"""What training sees of a picture: another part of it each time, mirrored, or worse.

A picture is decoded as the server decodes it, to the same size, whether it is an original or
prescaled; only then does chance come in. Evaluation takes `services.shared.model.view`.
"""

# H W pixels, 3 RGB

import numpy as np
from PIL import Image, ImageEnhance

from services.shared import model, pixels
from services.shared.pixels import Pixels
from services.trainer.recipe import Augment

CHANCES = 16
"""How many a picture takes at most."""
LEAST_AREA = 0.35
"""Of the picture: with 0.08, as from scratch, most parts of a post show none of its emoji."""
MOST_STRETCH = 4 / 3
COLOUR = 0.4
GREY_SHARE, HIDDEN_SHARE = 0.1, 0.25
TILT_DEGREES = 15.0


def train_view(
    preprocessing: model.Preprocessing, content: bytes, chances: np.ndarray, strength: Augment
) -> Pixels:
    """A square (edge, edge, 3) of an encoded picture; the chances, CHANCES of them, decide which.

    Raises:
        ImageError: it is none, or broken.
    """
    if strength == "none":
        return model.view(preprocessing, content)
    size_px = preprocessing.size_px
    upright_HW3 = pixels.decode(content, edge_px=round(size_px / preprocessing.crop))
    square_HW3 = pixels.resized(_part(upright_HW3, chances[:4]), size_px, size_px)
    if chances[4] < 0.5:
        square_HW3 = _mirrored(square_HW3)
    return square_HW3 if strength == "crop" else _worse(square_HW3, chances[5:])


def _part(image_HW3: Pixels, chances: np.ndarray) -> Pixels:
    """A part of random area, shape and place."""
    height, width = image_HW3.shape[:2]
    area = height * width * (LEAST_AREA + (1 - LEAST_AREA) * chances[0])
    stretch = MOST_STRETCH ** (2 * chances[1] - 1)
    part_width = min(width, max(1, round((area * stretch) ** 0.5)))
    part_height = min(height, max(1, round((area / stretch) ** 0.5)))
    left = int(chances[2] * (width - part_width + 1))
    top = int(chances[3] * (height - part_height + 1))
    return image_HW3[top : top + part_height, left : left + part_width]


def _mirrored(image_HW3: Pixels) -> Pixels:
    mirrored_HW3 = np.empty_like(image_HW3)
    for channel in range(3):  # at once, NumPy takes five times as long
        mirrored_HW3[..., channel] = image_HW3[:, ::-1, channel]
    return mirrored_HW3


def _worse(square_HW3: Pixels, chances: np.ndarray) -> Pixels:
    """In other light, tilted, perhaps without colour, perhaps with a patch over it."""
    brightness, contrast, saturation = 1 + COLOUR * (2 * chances[:3] - 1)
    image = Image.fromarray(square_HW3)
    image = ImageEnhance.Brightness(image).enhance(brightness)
    image = ImageEnhance.Contrast(image).enhance(contrast)
    image = ImageEnhance.Color(image).enhance(saturation if chances[3] >= GREY_SHARE else 0)
    mean_3 = tuple(np.asarray(image).mean((0, 1)).astype(int).tolist())
    tilt_degrees = TILT_DEGREES * (2 * chances[4] - 1)
    image = image.rotate(tilt_degrees, Image.Resampling.BILINEAR, fillcolor=mean_3)
    shown_HW3 = np.array(image)
    if chances[5] < HIDDEN_SHARE:
        edge = len(shown_HW3)
        across, down = (int(edge * (0.2 + 0.3 * chance)) for chance in chances[6:8])
        left, top = int(chances[8] * (edge - across)), int(chances[9] * (edge - down))
        shown_HW3[top : top + down, left : left + across] = mean_3
    return shown_HW3
