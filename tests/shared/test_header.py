import io
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.shared import header
from tests import corpus, craft

VALID = [case for case in corpus.valid() if not case.name.endswith(".heif")]
HOSTILE = list(corpus.hostile())
WRITERS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 30},
    "PNG": {},
    "WEBP": {"method": 0},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"speed": 10},
}
MAGICS = [magic for magic, _ in header.MAGICS] + [
    b"RIFF\0\0\0\0WEBPVP8X",
    b"\0\0\0\x14ftypavif\0\0\0\0avif\0\0\0\x40meta",
    b"BM" + bytes(13),
]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_the_size_of_every_image_of_the_corpus_is_found(case: corpus.Valid) -> None:
    found = header.read(case.content)

    assert found is not None
    assert sorted(found[1:3]) == sorted((case.width, case.height))  # some are stored lying


@pytest.mark.parametrize("kind", WRITERS)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_size_is_the_one_that_was_written(kind: str, width: int, height: int) -> None:
    content = corpus.encoded(Image.new("RGB", (width, height)), kind, **WRITERS[kind])

    assert header.read(content) == (kind, width, height, False)


@given(st.sampled_from(VALID), st.data())
def test_the_size_is_found_or_unknown_however_much_is_cut_off(
    case: corpus.Valid, data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, len(case.content)))

    assert header.read(case.content[:end]) in (None, header.read(case.content))


@given(st.sampled_from(MAGICS), st.binary(max_size=400))
def test_no_bytes_behind_a_magic_make_it_raise(magic: bytes, rest: bytes) -> None:
    found = header.read(magic + rest)

    assert found is None or (found.width > 0 and found.height > 0)


@given(st.sampled_from(VALID), st.data())
def test_no_damage_makes_it_raise(case: corpus.Valid, data: st.DataObject) -> None:
    content = bytearray(case.content)
    for at in data.draw(st.lists(st.integers(0, min(len(content), 500) - 1), max_size=8)):
        content[at] = data.draw(st.integers(0, 255))

    header.read(bytes(content))


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_no_hostile_file_takes_it_long(case: corpus.Hostile) -> None:
    header.read(case.content)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        header.read(case.content)
        seconds.append(time.perf_counter() - start)

    assert min(seconds) < 0.003  # 30 us where it matters; the rest is for busy machines


def test_it_looks_behind_any_amount_of_metadata() -> None:
    jpeg = corpus.encoded(corpus.picture(), "JPEG")
    profile = b"".join(craft.segment(0xE2, bytes(65_000)) for _ in range(50))

    assert header.read(jpeg[:2] + profile + jpeg[2:]) == ("JPEG", 61, 45, False)


def test_it_gives_up_on_a_file_of_nothing_but_metadata() -> None:
    assert header.read(b"\xff\xd8" + craft.segment(0xFE, b"") * 1000) is None


def test_a_tiff_with_more_tags_than_we_read_has_no_size() -> None:
    (content,) = (case.content for case in HOSTILE if case.name == "300-tags.tiff")

    assert header.read(content) is None


def test_progressive_jpegs_are_told_from_others() -> None:
    jpeg = corpus.encoded(corpus.picture(), "JPEG", progressive=True)

    assert header.read(jpeg) == ("JPEG", 61, 45, True)


def test_a_sequential_jpeg_with_a_scan_for_each_colour_counts_as_progressive() -> None:
    jpeg = corpus.encoded(corpus.picture(), "JPEG")
    at = jpeg.index(b"\xff\xda")
    one_colour = craft.segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))

    assert header.read(jpeg[:at] + one_colour) == ("JPEG", 61, 45, True)


def test_a_gif_is_as_large_as_its_first_frame_makes_it() -> None:
    frame = corpus.samples(corpus.GREYS, 1)[..., 0] // 2

    assert header.read(craft.gif(frame, (9, 9), at=(4, 5))) == ("GIF", 65, 50, False)
    assert header.read(craft.gif(frame, (99, 98), at=(4, 5))) == ("GIF", 99, 98, False)


def test_a_gif_is_read_past_its_comments() -> None:
    frame = corpus.samples(corpus.GREYS, 1)[..., 0] // 2
    plain = craft.gif(frame, (9, 9))
    at = 13 + 3 * 128  # behind the palette
    comment = b"!\xfe" + b"\x02,!" + b"\x2c" + b",!" * 22 + b"\0"  # 2c is a frame's mark, too

    assert header.read(plain[:at] + comment + plain[at:]) == ("GIF", 61, 45, False)


def test_a_size_of_nothing_is_unknown() -> None:
    assert header.read(craft.png_of(struct.pack(">II5x", 0, 9))) is None
    assert header.read(craft.png_of(struct.pack(">II5x", 9, 0))) is None


def test_a_webp_that_asks_to_be_shown_larger_keeps_its_size() -> None:
    webp = bytearray(corpus.encoded(corpus.picture(), "WEBP"))
    webp[27] |= 0b01000000
    webp[29] |= 0b10000000

    assert header.read(bytes(webp)) == ("WEBP", 61, 45, False)


def test_an_avif_may_have_boxes_of_64_bits_and_a_last_one_without_size() -> None:
    avif = corpus.encoded(corpus.picture(), "AVIF")
    start, end = avif.index(b"meta") - 4, avif.index(b"mdat") - 4
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 99) + bytes(99)
    last = bytes(4) + avif[start + 4 : end]

    assert header.read(avif[:start] + large + last) == ("AVIF", 61, 45, False)


def test_the_largest_part_of_an_avif_is_its_size() -> None:
    file = io.BytesIO()
    corpus.picture(mode="RGBA").resize((300, 200)).save(file, "AVIF")
    content = file.getvalue()
    small = struct.pack(">I4sIII", 20, b"ispe", 0, 160, 120)
    at = content.index(b"ipco") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    grown = struct.pack(">I4s", size + len(small), b"ipco") + small + content[at + 8 :]

    assert header.read(content[:at] + grown) == ("AVIF", 300, 200, False)


@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_size_of_a_heic_is_that_of_its_whole_blocks(width: int, height: int) -> None:
    found = header.read(corpus.encoded(Image.new("RGB", (width, height)), "HEIF", quality=30))

    assert found is not None
    assert width <= found.width < width + 64
    assert height <= found.height < height + 64


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"<?xml version='1.0'?><rss>", "XML"),
        (b"\n\n<!DocType HTML>", "HTML"),
        (b"\0\0\0\x14ftypisom\0\0\2\0mp41", "MP4"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"RIFF\0\0\0\0WAVE", "RIFF"),
        (b"BMW drivers of the world, unite", ""),
        (b"", ""),
    ],
)
def test_files_are_called_by_their_kind(content: bytes, kind: str) -> None:
    assert header.sniff(content) == kind
