import io
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.shared import errors, pixels
from tests import corpus, craft

VALID = list(corpus.valid())
HOSTILE = list(corpus.hostile())
MEMORY_BYTES = 3 << 29  # what a decoder process may have
# Decodes the named files and tells of each what became of it, in how many seconds.
CHILD = f"""
import json, resource, sys, time
from pathlib import Path
from services.shared import errors, pixels

resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
for path in sorted(Path(sys.argv[1]).iterdir()):
    start, message, shape = time.process_time(), "", None
    try:
        square, _ = pixels.crop(pixels.decode(path.read_bytes()))
        outcome, shape = "decoded", square.shape
    except errors.ImageError as error:
        outcome, message = type(error).__name__, str(error)
    print(json.dumps([path.name, outcome, message, shape, time.process_time() - start]))
"""


def quarters(image_HW3: pixels.Pixels) -> list[list[int]]:
    """The colours in the middle of each quarter."""
    height, width = image_HW3.shape[:2]
    return [
        image_HW3[y, x].tolist()
        for y in (height // 4, height - 1 - height // 4)
        for x in (width // 4, width - 1 - width // 4)
    ]


def difference(one: pixels.Pixels, other: pixels.Pixels) -> np.ndarray:
    return abs(one.astype(int) - other)


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_every_valid_image_is_decoded_upright_in_its_size_and_colours(case: corpus.Valid) -> None:
    picture = pixels.picture(case.content)

    assert picture.pixels_HW3.shape == (case.height, case.width, 3)
    assert (picture.width, picture.height) == (case.width, case.height)
    assert quarters(picture.pixels_HW3) == [
        pytest.approx(colour, abs=case.tolerance) for colour in case.colours
    ]


def run_child(folder: Path, files: dict[str, bytes]) -> dict[str, list]:
    """What became of each file in a process that may take 1.5 GiB and a minute."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stderr == ""  # no warning, no crash
    return {name: rest for name, *rest in map(json.loads, child.stdout.splitlines())}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    files = {case.name: case.content for case in HOSTILE}
    return run_child(tmp_path_factory.mktemp("hostile"), files)


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_every_hostile_file_ends_soon_in_a_picture_or_a_typed_error(
    case: corpus.Hostile, outcomes: dict[str, list]
) -> None:
    outcome, message, shape, seconds = outcomes[case.name]

    if case.error:
        assert outcome == case.error.__name__
    assert shape == [224, 224, 3] if outcome == "decoded" else SENTENCE.fullmatch(message)
    assert seconds < 5


SENTENCE = re.compile(r"[A-Z][^\n/\\<>]{10,250}\.")


def test_64_megapixels_in_any_mode_fit_into_the_memory_of_a_decoder(tmp_path: Path) -> None:
    outcomes = run_child(tmp_path, dict(corpus.large()))

    assert {"decoded"} == {outcome for outcome, *_ in outcomes.values()}
