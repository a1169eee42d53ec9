import io
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from services.crawler import duplicates, prescaled
from services.shared import header, photographs, pixels
from services.shared.decoders import Decoders
from services.shared.errors import ImageError, UndecodableImage
from services.shared.queue import Priority, QueueMetrics


def photo(number: int = 0) -> bytes:
    return photographs.installed()[number].read_bytes()


def encoded(image: Image.Image, kind: str = "JPEG", **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def distance(one: bytes, other: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def test_the_picture_is_the_one_that_prescale_makes() -> None:
    for number in range(6):
        assert prescaled.prescaled(photo(number)).jpeg == pixels.prescale(photo(number))


def test_the_size_is_that_of_the_upright_original() -> None:
    image = Image.new("RGB", (600, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = prescaled.prescaled(encoded(image, exif=exif))  # type: ignore[arg-type]

    found = header.read(turned.jpeg)
    assert (turned.width, turned.height) == (400, 600)
    assert found is not None
    assert (found.width, found.height) == (256, 384)


def test_a_reply_is_read_as_it_was_packed() -> None:
    made = prescaled.prescaled(photo())

    assert prescaled.unpack(prescaled.pack(made)) == made


def test_a_smaller_and_harder_compressed_copy_looks_the_same() -> None:
    image = Image.fromarray(pixels.decode(photo(1), edge_px=512))
    half = image.resize((image.width // 2, image.height // 2))
    looks = [prescaled.prescaled(c).pdq for c in (encoded(image), encoded(half, quality=60))]

    assert distance(*looks) <= duplicates.DISTANCE // 2


def test_what_is_flat_says_so() -> None:
    assert prescaled.prescaled(encoded(Image.new("RGB", (300, 300), "skyblue"))).quality == 0


def test_a_hash_does_not_depend_on_the_memory_layout() -> None:
    shown = pixels.decode(photo(2))

    assert prescaled.look(np.asfortranarray(shown)) == prescaled.look(shown)


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    pool = await Decoders(1, "services.crawler.prescaler").start()
    pool.open(QueueMetrics(CollectorRegistry()))
    yield pool
    await pool.close()


async def through(pool: Decoders, content: bytes) -> prescaled.Prescaled:
    served = await pool.decode(
        content,
        cost_seconds=pool.check(content),
        priority=Priority.BULK,
        deadline=time.monotonic() + 60,
    )
    return prescaled.unpack(served.reply)


async def test_a_pool_does_what_one_process_does(decoders: Decoders) -> None:
    for number in range(3):
        assert await through(decoders, photo(number)) == prescaled.prescaled(photo(number))


async def test_the_largest_picture_fits_its_limits(decoders: Decoders) -> None:
    content = encoded(Image.new("RGB", (8000, 8000), "red"), "PNG")
    made = await through(decoders, content)

    assert (made.width, made.height) == (8000, 8000)


async def test_a_broken_picture_is_told_and_the_next_one_served(decoders: Decoders) -> None:
    with pytest.raises(UndecodableImage):
        await through(decoders, photo()[:5000])

    assert (await through(decoders, photo())).quality > 0


def test_no_picture_is_an_error_of_its_own() -> None:
    with pytest.raises(ImageError):
        prescaled.prescaled(b"no picture")
