import contextlib
import json
import math
import re
import subprocess
import sys
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import skimage.data
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from services.shared import errors, header, pixels
from services.shared.decoders import SLOW_SECONDS, Decoders
from services.shared.pixels import Pixels
from tests import corpus, craft

VALID = list(corpus.valid())
HOSTILE = list(corpus.hostile())
SENTENCE = re.compile(r"[A-Z][^\n/\\<>]{10,250}\.")
MEMORY_BYTES = 3 << 29  # what a decoder process may have
# Decodes the files of a folder and tells of each what became of it, in how many seconds.
CHILD = f"""
import json, resource, sys, time
from pathlib import Path
from services.shared import errors, pixels

resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
for path in sorted(Path(sys.argv[1]).iterdir()):
    start, message = time.process_time(), ""
    try:
        square, _ = pixels.crop(pixels.decode(path.read_bytes()))
        outcome = "decoded" if square.shape == (224, 224, 3) else "misshapen"
    except errors.ImageError as error:
        outcome, message = type(error).__name__, str(error)
    print(json.dumps([path.name, outcome, message, time.process_time() - start]))
"""

Outcomes = dict[str, tuple[str, str, float]]


def outcomes_in_child(folder: Path, files: dict[str, bytes]) -> Outcomes:
    """What became of each file, in which words, after how many seconds."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stderr == ""  # no crash, and no warning from any library
    return {name: tuple(rest) for name, *rest in map(json.loads, child.stdout.splitlines())}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    files = {case.name: case.content for case in HOSTILE}
    return outcomes_in_child(tmp_path_factory.mktemp("hostile"), files)


def quarters(image_HW3: Pixels) -> list[list[int]]:
    """The colours in the middle of each quarter."""
    height, width = image_HW3.shape[:2]
    return [
        image_HW3[y, x].tolist()
        for y in (height // 4, height - 1 - height // 4)
        for x in (width // 4, width - 1 - width // 4)
    ]


def difference(one: Pixels, other: Pixels) -> np.ndarray[Any, Any]:
    return abs(one.astype(int) - other)


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def textbook(image_HW3: Pixels, size_px: int, edge_px: int) -> Pixels:
    """Resize and CenterCrop, as torchvision writes them."""
    image = Image.fromarray(image_HW3)
    shorter = min(image.size)
    width, height = (int(edge_px * edge / shorter) for edge in image.size)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size_px, top + size_px)))


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_every_valid_image_shows_upright_in_its_size_and_colours(case: corpus.Valid) -> None:
    picture = pixels.picture(case.content)

    assert picture.pixels_HW3.shape == (case.height, case.width, 3)
    assert (picture.width, picture.height) == (case.width, case.height)
    assert quarters(picture.pixels_HW3) == [
        pytest.approx(colour, abs=case.tolerance) for colour in case.colours
    ]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_every_hostile_file_ends_soon_in_a_picture_or_a_typed_error(
    case: corpus.Hostile, outcomes: Outcomes
) -> None:
    outcome, message, seconds = outcomes[case.name]

    assert outcome == (case.error.__name__ if case.error else outcome)
    assert outcome == "decoded" or SENTENCE.fullmatch(message)
    assert seconds < 4


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_what_is_priced_for_the_ordinary_lane_does_not_hold_it_up(
    case: corpus.Hostile, outcomes: Outcomes
) -> None:
    _, _, seconds = outcomes[case.name]
    try:
        price = Decoders(1).check(case.content)
    except errors.ImageError:
        price = 0.0

    assert price > SLOW_SECONDS or seconds < 4 * SLOW_SECONDS


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_admission_takes_no_time_that_a_server_would_miss(case: corpus.Hostile) -> None:
    start = time.process_time()
    with contextlib.suppress(errors.ImageError):
        pixels.admit(case.content)

    assert time.process_time() - start < 0.1


def test_64_megapixels_fit_into_the_memory_of_a_decoder(tmp_path: Path) -> None:
    outcomes = outcomes_in_child(tmp_path, dict(corpus.large()))

    assert dict.fromkeys(outcomes, "decoded") == {name: out[0] for name, out in outcomes.items()}


@settings(max_examples=60)
@given(st.sampled_from(pixels.FORMATS), st.data())
def test_what_is_cut_short_never_passes_for_a_whole_picture(kind: str, data: st.DataObject) -> None:
    progressive = {"progressive": data.draw(st.booleans())} if kind == "JPEG" else {}
    whole = corpus.encoded(corpus.noise(), kind, **progressive)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    try:
        shown = pixels.decode(cut)
    except errors.ImageError:
        return
    assert difference(shown, pixels.decode(whole)).max() == 0  # only an end mark was missing


@given(st.sampled_from(VALID), st.data())
def test_damage_ends_in_a_picture_or_a_typed_error(case: corpus.Valid, data: st.DataObject) -> None:
    content = bytearray(case.content)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] ^= 1 << data.draw(st.integers(0, 7))

    with contextlib.suppress(errors.ImageError):
        pixels.crop(pixels.decode(bytes(content)))


@given(blob=st.binary(min_size=1, max_size=200))
def test_no_metadata_fails_an_image(blob: bytes) -> None:
    jpeg = corpus.encoded(corpus.picture(), "JPEG")
    markers = (craft.segment(marker, name + blob) for marker, name in NAMED_SEGMENTS)
    png = craft.png(
        corpus.samples(), *(craft.chunk(kind, b"name\0\0" + blob) for kind in ANCILLARY)
    )

    assert pixels.decode(jpeg[:2] + b"".join(markers) + jpeg[2:]).size == 61 * 45 * 3
    assert pixels.decode(png).size == 61 * 45 * 3


NAMED_SEGMENTS = [
    (0xE0, b"JFIF\0"),
    (0xE1, b"Exif\0\0"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xE2, b"ICC_PROFILE\0\1\1"),
    (0xE2, b"MPF\0"),
    (0xED, b"Photoshop 3.0\0"),
    (0xFE, b""),
]
ANCILLARY = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"tIME"]


@settings(max_examples=25)
@given(st.integers(1, 1200), st.integers(1, 1200), st.sampled_from([64, 224, 256]))
@example(700, 527, 256)  # half of it is 264 when rounded up, as decoders do
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])  # all but the first are Pillow's to decode
def test_a_jpeg_is_scaled_to_the_least_eighth_that_is_a_little_larger_than_asked_for(
    mode: str, width: int, height: int, edge_px: int
) -> None:
    content = corpus.encoded(Image.new(mode, (width, height)), "JPEG")
    scales = [
        s for s in (1, 2, 4, 8) if math.ceil(min(width, height) / s) >= round(edge_px * 33 / 32)
    ]
    scale = max(scales, default=1)

    picture = pixels.picture(content, edge_px=edge_px)

    assert picture.pixels_HW3.shape == (math.ceil(height / scale), math.ceil(width / scale), 3)
    assert picture[1:] == (width, height)


def test_a_scaled_jpeg_is_turned_like_a_whole_one() -> None:
    image = corpus.picture().resize((1201, 901)).transpose(corpus.UNTURNED[6])
    content = corpus.encoded(image, "JPEG", exif=b"Exif\0\0" + craft.exif(6))

    picture = pixels.picture(content)

    assert picture.pixels_HW3.shape == (451, 601, 3)
    assert picture[1:] == (1201, 901)
    assert quarters(picture.pixels_HW3) == [pytest.approx(c, abs=12) for c in corpus.COLOURS]


def test_the_two_decoders_of_jpegs_agree() -> None:
    content = corpus.encoded(Image.fromarray(skimage.data.astronaut()), "JPEG", quality=90)
    odd = content.replace(b"\0\x3f\0", b"\0\x3e\0")  # some cameras write such nonsense
    with pytest.raises(ValueError, match="Invalid SOS"):
        simplejpeg.decode_jpeg(odd)

    shown = pixels.decode(odd)

    assert difference(shown, pixels.decode(content)).max() <= 1


@settings(max_examples=60)
@given(st.integers(1, 700), st.integers(1, 700))
def test_a_crop_is_the_textbook_one(width: int, height: int) -> None:
    # Pillow rounds, and clips, between the two directions, and chooses which comes first.
    image_HW3 = noise(width, height) // 3 + 85

    square, _ = pixels.crop(image_HW3)

    assert difference(square, textbook(image_HW3, 224, 256)).max() <= 2


@settings(max_examples=30)
@given(st.integers(256, 900), st.booleans())
def test_of_a_prescaled_image_the_crop_is_a_cut_and_exactly_the_textbook_one(
    longer: int, upright: bool
) -> None:
    image_HW3 = noise(256, longer) if upright else noise(longer, 256)

    square, _ = pixels.crop(image_HW3)

    assert (square == textbook(image_HW3, 224, 256)).all()
    assert not np.shares_memory(square, image_HW3)


def test_a_crop_tells_what_part_of_the_image_it_shows() -> None:
    _, box = pixels.crop(noise(512, 256))

    assert box == (144 / 512, 16 / 256, 368 / 512, 240 / 256)


@given(st.integers(1, 1000), st.integers(1, 1000))
@settings(max_examples=40)
def test_a_crop_lies_within_the_image_and_is_square(width: int, height: int) -> None:
    _, box = pixels.crop(noise(width, height), size_px=96, fraction=1.0)

    assert 0 <= box.left < box.right <= 1
    assert 0 <= box.top < box.bottom <= 1
    across, down = (box.right - box.left) * width, (box.bottom - box.top) * height
    assert across == pytest.approx(down, rel=0.02)


@pytest.mark.parametrize(("width", "height"), [(1_000_000, 1), (1, 1_000_000), (3, 200_000)])
def test_strips_of_any_length_are_cropped_and_prescaled(width: int, height: int) -> None:
    content = corpus.encoded(Image.new("L", (width, height), 99), "PNG")

    square, _ = pixels.crop(pixels.decode(content))
    small = header.read(pixels.prescale(content))

    assert set(np.unique(square)) == {99}
    assert small is not None
    assert (small.width, small.height) == (min(width, 65_500), min(height, 65_500))


def test_of_a_strip_too_long_for_a_jpeg_the_middle_is_kept() -> None:
    halves = np.zeros((1, 100_000), np.uint8)
    halves[:, 50_000:] = 255
    content = corpus.encoded(Image.fromarray(halves), "PNG")

    shown = pixels.decode(pixels.prescale(content))

    assert (shown[0, 32_000, 0], shown[0, 33_500, 0]) == (0, 255)


@settings(max_examples=25)
@given(st.integers(1, 900), st.integers(1, 900))
def test_prescaling_leaves_a_shorter_edge_of_256_and_never_enlarges(
    width: int, height: int
) -> None:
    content = corpus.encoded(Image.new("RGB", (width, height)), "BMP")

    small = header.read(pixels.prescale(content))

    assert small is not None
    assert min(small.width, small.height) == min(width, height, 256)
    assert small.width / small.height == pytest.approx(width / height, rel=0.005)


def test_a_prescaled_image_keeps_its_look_and_loses_its_metadata() -> None:
    image = Image.new("RGB", (700, 500), (200, 30, 40))
    image.paste((40, 180, 60), (350, 0, 700, 500))
    marks = {"exif": b"Exif\0\0" + craft.exif(3), "comment": b"secret", "icc_profile": b"secret"}
    content = corpus.encoded(image, "JPEG", quality=95, **marks)

    small = pixels.prescale(content)

    shown = pixels.decode(small)
    assert quarters(shown)[:2] == [
        pytest.approx((40, 180, 60), abs=6),
        pytest.approx((200, 30, 40), abs=6),
    ]
    assert b"secret" not in small
    assert b"Exif" not in small


@pytest.mark.parametrize("photograph", ["astronaut", "coffee", "chelsea"])
def test_a_model_sees_the_same_in_a_prescaled_image(photograph: str) -> None:
    image = Image.fromarray(getattr(skimage.data, photograph)())
    content = corpus.encoded(image, "JPEG", quality=92)

    original, _ = pixels.crop(pixels.decode(content))
    prescaled, _ = pixels.crop(pixels.decode(pixels.prescale(content)))

    assert difference(original, prescaled).mean() < 2.5


def test_what_is_decoded_may_be_written_to() -> None:
    for kind in ("JPEG", "PNG"):
        image_HW3 = pixels.decode(corpus.encoded(corpus.picture(), kind))
        square, _ = pixels.crop(image_HW3)

        assert image_HW3.flags.writeable
        assert image_HW3.flags.c_contiguous
        assert square.flags.writeable  # torch warns of arrays that are not


@pytest.mark.parametrize(
    ("content", "error", "metadata"),
    [
        (b"", errors.EmptyImage, {}),
        (
            b"\xff\xd8\xff" + bytes(pixels.MAX_BYTES),
            errors.ImageTooLarge,
            {"limit": "10485760", "bytes": "10485763"},
        ),
        (
            craft.png_of(bytes([0, 0, 100, 0, 0, 0, 100, 0, 8, 0, 0, 0, 0])),
            errors.ImageTooLarge,
            {"limit": "64000000", "pixels": "655360000"},
        ),
        (
            craft.png(
                corpus.samples(), craft.chunk(b"IHDR", bytes([0, 0, 100, 0] * 2 + [8] + [0] * 4))
            ),
            errors.ImageTooLarge,  # the second header's
            {"limit": "64000000", "pixels": "655360000"},
        ),
        (b"%PDF-1.7", errors.UnsupportedFormat, {"format": "PDF"}),
        (b"hello", errors.UndecodableImage, {"format": ""}),
        (b"\xff\xd8\xff\xe0\0\0", errors.UndecodableImage, {"format": "JPEG"}),
    ],
)
def test_an_error_carries_its_facts(
    content: bytes, error: type[errors.ImageError], metadata: dict[str, str]
) -> None:
    with pytest.raises(error, match=SENTENCE) as caught:
        pixels.decode(content)

    assert caught.value.metadata == metadata


def test_exactly_the_largest_images_are_admitted() -> None:
    def png(width: int, height: int) -> bytes:
        return craft.png_of(b"".join(n.to_bytes(4, "big") for n in (width, height)) + bytes(5))

    assert pixels.admit(png(8000, 8000)).width == 8000
    with pytest.raises(errors.ImageTooLarge):
        pixels.admit(png(64_000_001, 1))


def test_100_scans_are_admitted_and_101_are_not() -> None:
    jpeg = corpus.encoded(corpus.picture(), "JPEG", progressive=True)
    scan = craft.segment(0xDA, bytes([1, 1, 0, 0, 0, 0]))
    spare = pixels.MAX_SCANS - jpeg.count(b"\xff\xda")

    assert pixels.admit(jpeg[:-2] + scan * spare + jpeg[-2:]).slow
    with pytest.raises(errors.DecodeLimit, match=SENTENCE):
        pixels.admit(jpeg[:-2] + scan * (spare + 1) + jpeg[-2:])


def test_of_a_large_jpeg_fewer_scans_are_admitted() -> None:
    spare = 23 - corpus.refined_jpeg(scans=0).count(b"\xff\xda")

    assert pixels.admit(corpus.refined_jpeg(scans=spare)).slow
    with pytest.raises(errors.DecodeLimit, match="more than 23 scans; save it as a baseline"):
        pixels.admit(corpus.refined_jpeg(scans=spare + 1))


def test_run_length_encoded_bmps_are_admitted_up_to_two_megapixels() -> None:
    def bmp(width: int, codes: bytes = b"") -> bytes:
        return craft.bmp(codes, bytes(64), (width, 1))

    assert pixels.admit(bmp(2**21)).slow
    with pytest.raises(errors.DecodeLimit, match="2,097,152 pixels or bytes; save it without"):
        pixels.admit(bmp(2**21 + 1))
    with pytest.raises(errors.DecodeLimit, match="2,097,152 pixels or bytes; save it without"):
        pixels.admit(bmp(9, bytes(2**21)))


def test_20000_chunks_and_20000_strips_are_admitted() -> None:
    empty = craft.chunk(b"noNe", b"")  # beside IHDR, IDAT and IEND

    assert pixels.decode(craft.png(corpus.samples(), empty * 19_997)).size
    assert pixels.decode(corpus.strips(20_000)).size
    for content in (craft.png(corpus.samples(), empty * 19_998), corpus.strips(20_001)):
        with pytest.raises(errors.DecodeLimit, match="more than 20,000"):
            pixels.admit(content)


SCARCE = """
import resource, sys
import psutil
from services.shared import errors, pixels
content = sys.stdin.buffer.read()
scarce = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (scarce, scarce))
try:
    pixels.decode(content)
except errors.DecodeLimit as error:
    print(error)
"""


@pytest.mark.parametrize(("kind", "progressive"), [("PNG", 0), ("WEBP", 0), ("JPEG", 1)])
def test_memory_that_runs_out_is_the_images_fault(kind: str, progressive: bool) -> None:
    large = Image.new("RGB", (5000, 5000), (9, 99, 3))
    content = corpus.encoded(large, kind, progressive=progressive, method=0, subsampling=0)
    # In a process of its own: this one may have memory left over from earlier tests.
    done = subprocess.run([sys.executable, "-c", SCARCE], input=content, stdout=subprocess.PIPE)

    assert done.returncode == 0
    assert re.fullmatch(SENTENCE, done.stdout.decode().strip())


def test_decoding_leaves_no_trace_in_pillow_or_among_the_warnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 123_456)
    filters = list(warnings.filters)

    pixels.decode(corpus.encoded(corpus.picture(), "PNG"))
    with pytest.raises(errors.UndecodableImage):
        pixels.decode(b"\x89PNG\r\n\x1a\n")

    assert Image.MAX_IMAGE_PIXELS == 123_456
    assert filters == list(warnings.filters)


WITHOUT_HEIC = """
import sys
sys.modules["pillow_heif"] = None
from services.shared import errors, pixels
try:
    pixels.decode(sys.stdin.buffer.read())
except errors.UnsupportedFormat as error:
    print(error)
"""


def test_without_its_extra_a_heic_is_refused_by_the_extras_name() -> None:
    heic = corpus.encoded(corpus.picture(), "HEIF")
    done = subprocess.run([sys.executable, "-c", WITHOUT_HEIC], input=heic, stdout=subprocess.PIPE)

    said = done.stdout.decode().strip()
    assert re.fullmatch(SENTENCE, said)
    assert "This is a HEIF file, for which emojinet[heic]" in said


def test_importing_it_loads_no_network_library() -> None:
    code = "import sys, services.shared.pixels; print({'torch', 'torchvision'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert child.stdout == "set()\n"


def test_no_two_cases_of_the_corpus_share_a_name() -> None:
    names = [case.name for case in VALID] + [case.name for case in HOSTILE]

    assert len(names) == len(set(names))


def test_the_corpus_is_the_same_every_time() -> None:
    first, second = (
        {case.name: case.content for case in corpus.everything() if case.name != "animated.avif"}
        for _ in range(2)
    )

    assert first == second  # but for the one that libavif dates


def test_a_jpeg_without_metadata_is_read_as_one_with_some() -> None:
    file = BytesIO()
    Image.effect_noise((300, 200), 80).convert("RGB").save(file, "JPEG", quality=90)
    bare = file.getvalue()
    empty_exif = b"\xff\xe1\x00\x08Exif\0\0"
    dressed = bare[:2] + empty_exif + bare[2:]
    assert header.is_bare(bare)
    assert not header.is_bare(dressed)
    for edge in (64, 256):
        one, other = (pixels.decode(content, edge_px=edge) for content in (bare, dressed))
        assert np.array_equal(one, other)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_bare_jpeg_that_is_cut_short_is_refused_as_any_other(cut: float) -> None:
    file = BytesIO()
    Image.effect_noise((300, 200), 80).convert("RGB").save(file, "JPEG", quality=90)
    content = file.getvalue()
    with pytest.raises(errors.UndecodableImage, match="cut short"):
        pixels.decode(content[: int(len(content) * cut)])
