import asyncio
import contextlib
import io
import os
import resource
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psutil
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from services.shared import decoder, decoders, errors, model, pixels
from services.shared.decoders import NICENESS, SLOW_NICENESS, Decoders, View
from services.shared.model import Preprocessing
from services.shared.queue import Priority, QueueMetrics
from tests import corpus, craft

A = TypeVar("A")
PREPROCESSING = Preprocessing(
    size_px=48, crop=0.875, mean=(0.5,) * 3, std=(0.5,) * 3, decode_version=pixels.VERSION
)
PATIENCE_SECONDS = 90.0
BOUNDLESS = "tests.shared.boundless"


class Pool:
    """Real decoders that take bombs, in a loop of their own."""

    def __init__(self, slots: int) -> None:
        self._runner = asyncio.Runner()
        self.decoders = Decoders(slots, BOUNDLESS)
        self.run(self._open())

    async def _open(self) -> None:
        await self.decoders.start()
        self.decoders.open(QueueMetrics(CollectorRegistry()))

    def run(self, what: Coroutine[Any, Any, A]) -> A:
        return self._runner.run(what)

    def close(self) -> None:
        self.run(self.decoders.close())
        self._runner.close()

    async def view(self, content: bytes) -> View:
        return await self.decoders.view(
            content,
            cost_seconds=self.decoders.check(content),
            preprocessing=PREPROCESSING,
            priority=Priority.INTERACTIVE,
            deadline=time.monotonic() + PATIENCE_SECONDS,
        )

    def views(self, *contents: bytes) -> list[View]:
        """All at once."""

        async def together() -> list[View]:
            return await asyncio.gather(*map(self.view, contents))

        return self.run(together())


@pytest.fixture(scope="module", autouse=True)
def bombs_are_admitted() -> Iterator[None]:
    """Here, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "MAX_RUN_LENGTH", pixels.MAX_PIXELS)
        patch.setattr(decoders, "WALL_SECONDS", 100.0)  # tests beside us may leave them little CPU
        yield


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    opened = Pool(2)
    yield opened
    opened.close()


@pytest.fixture
def single() -> Iterator[Pool]:
    opened = Pool(1)
    yield opened
    opened.close()


def processes(
    besides: frozenset[int] = frozenset(), *, lane: int | None = None
) -> list[psutil.Process]:
    """The decoders that run now, but for some; of both lanes, or of the one that is so nice."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # gone while we look
            ours = child.pid not in besides and BOUNDLESS in child.cmdline()
            if ours and (lane is None or child.nice() == from_here(lane)):
                found.append(child)
    return found


def from_here(niceness: int) -> int:
    """What a niceness comes to in a child of tests that may be nice themselves."""
    return min(19, os.nice(0) + niceness)


def picture(kind: str = "PNG", size: tuple[int, int] = (90, 70), seed: int = 0) -> bytes:
    draw = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def bomb(more: bytes = b"") -> bytes:
    """33 KB that keep Pillow's BMP decoder, which is written in Python, busy for seconds.

    Each of 8,000 rows has one pixel and then ends, and what is missing is filled in one by one.
    """
    return craft.bmp(b"\1\0\0\0" * 8000, bytes(1024), (8000, 8000)) + more


@pytest.mark.parametrize("kind", pixels.FORMATS)
def test_a_view_has_the_bytes_and_the_box_that_decoding_here_has(pool: Pool, kind: str) -> None:
    content = picture(kind)
    (view,) = pool.views(content)

    square, box = pixels.crop(
        pixels.decode(content, edge_px=round(48 / 0.875)), size_px=48, fraction=0.875
    )
    assert view.rgb == square.tobytes() == model.view(PREPROCESSING, content).tobytes()
    assert view.box == pytest.approx(box)


def test_many_at_once_each_get_their_own(pool: Pool) -> None:
    contents = [picture(seed=seed) for seed in range(40)]
    views = pool.views(*contents)
    expected = [model.view(PREPROCESSING, content).tobytes() for content in contents]
    assert [view.rgb for view in views] == expected


def test_the_size_that_a_model_wants_is_the_size_it_gets(pool: Pool) -> None:
    view = pool.run(
        pool.decoders.view(
            picture(),
            cost_seconds=0.001,
            preprocessing=Preprocessing(
                size_px=64, crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3, decode_version=1
            ),
            priority=Priority.BULK,
            deadline=time.monotonic() + PATIENCE_SECONDS,
        )
    )
    assert len(view.rgb) == 64 * 64 * 3


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", errors.EmptyImage),
        (b"hello", errors.UndecodableImage),
        (b"%PDF-1.7 and so on", errors.UnsupportedFormat),
        (bytes(pixels.MAX_BYTES + 1), errors.ImageTooLarge),
        (picture("PNG")[:-500], errors.UndecodableImage),
        (picture("JPEG")[:-500], errors.UndecodableImage),
        (picture("WEBP")[:-500], errors.UndecodableImage),
        (b"\xff\xd8\xff" + bytes(1000), errors.UndecodableImage),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value.__name__,
)
def test_what_is_no_picture_is_refused_by_its_kind(
    pool: Pool, content: bytes, error: type[errors.ImageError]
) -> None:
    with pytest.raises(errors.ImageError) as caught:
        pool.views(content)
    assert type(caught.value) is error


def test_what_is_refused_costs_no_decoder_its_life(pool: Pool) -> None:
    before = {process.pid for process in processes()}
    for cut in range(50, 500, 50):
        with pytest.raises(errors.ImageError):
            pool.views(picture("PNG")[:-cut])
    assert {process.pid for process in processes()} == before


def test_a_decoder_may_use_so_much_memory_and_is_niced(pool: Pool) -> None:
    for process in processes():
        assert process.rlimit(resource.RLIMIT_AS) == (decoder.MEMORY_BYTES,) * 2
        assert process.rlimit(resource.RLIMIT_CORE) == (0, 0)
    expected = {from_here(NICENESS), from_here(SLOW_NICENESS)}
    assert {process.nice() for process in processes()} == expected


def test_no_decoder_outlives_its_pool() -> None:
    before = frozenset(process.pid for process in processes())
    opened = Pool(2)
    assert len(processes(before)) == 3
    opened.close()
    assert processes(before) == []


@pytest.fixture
def others(pool: Pool) -> frozenset[int]:
    """The decoders of the pool that all tests share."""
    return frozenset(process.pid for process in processes())


def has_worked(process: psutil.Process) -> bool:
    """Whether it has burnt more than it takes to start."""
    try:
        spent = process.cpu_times()
    except psutil.NoSuchProcess:
        return False
    return bool(spent.user + spent.system > 1.5)


def kill_at_work(others: frozenset[int], times: int) -> None:
    """Kills a decoder so often in mid-job."""
    killed: set[int] = set()
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(killed) < times and time.monotonic() < give_up:
        for process in processes(others | killed):
            if has_worked(process):
                process.kill()
                killed.add(process.pid)
        time.sleep(0.05)


def test_a_picture_whose_decoder_is_killed_gets_another_one(
    others: frozenset[int], single: Pool
) -> None:
    (first,) = processes(others, lane=NICENESS)

    async def killed_in_mid_job() -> View:
        first.suspend()  # so that it has the job, and does not finish it
        waiting = asyncio.create_task(single.view(picture()))
        await asyncio.sleep(0.1)
        first.kill()
        return await waiting

    view = single.run(killed_in_mid_job())
    assert view.rgb == model.view(PREPROCESSING, picture()).tobytes()
    (second,) = processes(others, lane=NICENESS)
    assert second.pid != first.pid


def test_a_decoder_is_replaced_within_a_second(others: frozenset[int], single: Pool) -> None:
    took = []
    for _ in range(3):  # the least of three: the machine may be busy
        (process,) = processes(others, lane=NICENESS)
        process.kill()
        began = time.monotonic()
        single.views(picture())
        took.append(time.monotonic() - began)
    assert min(took) < 1


def test_a_picture_whose_decoders_are_killed_twice_is_given_up(
    others: frozenset[int], single: Pool
) -> None:
    async def killed_twice() -> None:
        killing = asyncio.to_thread(kill_at_work, others, 2)
        await asyncio.gather(killing, single.view(bomb(b"twice")))

    with pytest.raises(errors.DecoderDied, match="twice"):
        single.run(killed_twice())


class Bombed(NamedTuple):
    """What came of a bomb among ordinary pictures."""

    failure: BaseException | None
    neighbours_seconds: list[float]
    decoders: set[int]
    """Those that it kept busy."""


@pytest.fixture(scope="module")
def bombed(pool: Pool) -> Bombed:
    async def together() -> Bombed:
        burning = asyncio.create_task(pool.view(bomb()))
        took: list[float] = []
        seen: set[int] = set()
        while not burning.done():
            began = time.monotonic()
            await pool.view(picture(seed=len(took)))
            took.append(time.monotonic() - began)
            seen |= {p.pid for p in processes(lane=SLOW_NICENESS) if has_worked(p)}
            await asyncio.sleep(0.05)
        return Bombed(burning.exception(), took, seen)

    return pool.run(together())


def test_a_picture_beyond_its_cpu_is_a_decode_limit(bombed: Bombed) -> None:
    assert type(bombed.failure) is errors.DecodeLimit
    assert f"more than {decoder.CPU_SECONDS} s" in str(bombed.failure)


def test_its_neighbours_are_served_meanwhile(bombed: Bombed) -> None:
    took = bombed.neighbours_seconds
    assert len(took) > 20
    assert sorted(took)[len(took) // 2] < 0.1
    assert max(took) < 2


def test_one_decoder_died_of_it_and_not_two(pool: Pool, bombed: Bombed) -> None:
    pool.views(picture(), picture())
    assert len(processes()) == 3
    assert len(bombed.decoders) == 1


@pytest.mark.usefixtures("bombed")
def test_the_same_picture_is_refused_again_without_a_decoder(pool: Pool) -> None:
    before = {process.pid for process in processes()}
    began = time.monotonic()
    with pytest.raises(errors.DecodeLimit):
        pool.decoders.check(bomb())
    assert time.monotonic() - began < 0.1
    assert {process.pid for process in processes()} == before


@pytest.mark.usefixtures("bombed")
def test_another_picture_is_not_taken_for_it(pool: Pool) -> None:
    assert pool.decoders.check(bomb(b"other")) > 0


@pytest.mark.parametrize(
    "content",
    [
        craft.bmp(b"\1\0\0\0" * 2000, bytes(64), (1000, 2000)),
        craft.bmp(b"\xff\1" * 1_000_000, bytes(64), (10, 10), bits=4),
        corpus.refined_jpeg(scans=5),
    ],
    ids=["ends of lines", "runs without end", "scans"],
)
def test_few_pixels_or_bytes_that_are_much_work_go_to_the_slow_lane(
    pool: Pool, content: bytes
) -> None:
    assert pool.decoders.lane(pool.decoders.check(content)) is pool.decoders.slow


def flat(kind: str) -> bytes:
    """Little content with many pixels."""
    file = io.BytesIO()
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    Image.new("RGB", (7000, 5000), (9, 99, 199)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "PNG",
        "TIFF",
        "GIF",
        "WEBP",
    ],
)
def test_a_picture_beyond_its_memory_is_a_decode_limit_and_harms_no_decoder(
    others: frozenset[int], single: Pool, kind: str
) -> None:
    (process,) = processes(others, lane=SLOW_NICENESS)
    scarce = process.memory_info().vms + (50 << 20)
    process.rlimit(resource.RLIMIT_AS, (scarce, scarce))

    with pytest.raises(errors.DecodeLimit):
        single.views(flat(kind))
    assert single.views(picture())
    assert [p.pid for p in processes(others, lane=SLOW_NICENESS)] == [process.pid]


def test_a_decoder_gives_back_the_memory_of_a_large_picture(
    others: frozenset[int], single: Pool
) -> None:
    (process,) = processes(others, lane=SLOW_NICENESS)
    single.views(flat("PNG"))
    assert process.memory_info().rss < 200 << 20


def test_a_stopped_decoder_holds_up_only_its_own_picture(pool: Pool) -> None:
    stopped, other = processes(lane=NICENESS)
    stopped.suspend()
    try:
        began = time.monotonic()

        async def together() -> int:
            views = [asyncio.create_task(pool.view(picture(seed=n))) for n in range(20)]
            done, waiting = await asyncio.wait(views, timeout=2)
            os.kill(stopped.pid, signal.SIGCONT)
            await asyncio.gather(*waiting)
            return len(done)

        assert pool.run(together()) == 19
        assert time.monotonic() - began < 10
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert other.is_running()


def test_a_picture_that_takes_long_holds_up_no_other(single: Pool) -> None:
    large = flat("PNG")

    async def together() -> tuple[float, float]:
        began = time.monotonic()
        slow = asyncio.create_task(single.view(large))
        await single.view(picture())
        quick = time.monotonic() - began
        await slow
        return quick, time.monotonic() - began

    quick, slow = single.run(together())
    assert quick < slow / 2


def test_what_waits_behind_a_slow_picture_is_not_what_an_ordinary_one_waits(single: Pool) -> None:
    large = flat("PNG")

    async def together() -> tuple[float, float]:
        slow = asyncio.create_task(single.view(large))
        await asyncio.sleep(0.02)
        ordinary = single.decoders.seconds([0.001], Priority.INTERACTIVE)
        another = single.decoders.seconds([0.5], Priority.INTERACTIVE)
        await slow
        return ordinary, another

    ordinary, another = single.run(together())
    assert ordinary < 0.1
    assert another > 0.5
