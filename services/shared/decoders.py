"""The decoders of one server: what they may be asked for, what it costs, and what is poison."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from services.shared import pixels
from services.shared.decoder import ASK, CPU_SECONDS, VIEW
from services.shared.errors import DecodeLimit, DecoderDied
from services.shared.header import Header
from services.shared.queue import Priority, Queue, QueueMetrics, Served, Work
from services.shared.worker import Worker, WorkerDied, start_all

if TYPE_CHECKING:  # the crawler decodes without models, and is installed without what they need
    from services.shared.model import Preprocessing

# Measured on one core: a constant, the compressed bytes, and the pixels that the file claims. The
# slow are a JPEG of many scans, and a BMP in run-length encoding, whose every byte is a step, too.
SECONDS = 0.0005
SECONDS_PER_BYTE, SECONDS_PER_SLOW_BYTE = 1 / 80e6, {"JPEG": 40e-9, "BMP": 270e-9}
SECONDS_PER_PIXEL = {"JPEG": 2e-9, "BMP": 6e-9, "GIF": 12e-9}
SECONDS_PER_SLOW_PIXEL = {"JPEG": 12e-9, "BMP": 140e-9}
SECONDS_PER_OTHER_PIXEL = 20e-9
SLOW_SECONDS = 0.25
NICENESS, SLOW_NICENESS = 5, 19  # the accelerator must never wait for a core that decodes ahead
WALL_SECONDS = 8 * CPU_SECONDS  # on a busy machine the CPU seconds of the nice are long
POISON_SECONDS = 600.0
MAX_POISON = 4096


class View(NamedTuple):
    """The square of a picture that the model looks at."""

    rgb: bytes
    box: tuple[float, float, float, float]
    """Its left, top, right and bottom as fractions of the upright picture."""
    served: Served


class Decoders:
    """Pools of decoder processes with a line in front of each: an ordinary and a slow lane.

    A picture that takes long to decode goes to a process of its own, which takes what time the
    others leave: one of 64 megapixels must not make everybody else wait.
    """

    def __init__(
        self, slots: int, module: str = "services.shared.decoder", *arguments: str
    ) -> None:
        self._slots, self._module, self._arguments = slots, module, arguments
        self._workers: list[Worker] = []
        self._poison: OrderedDict[bytes, float] = OrderedDict()  # digest -> forgotten when

    async def start(self) -> "Decoders":
        """Starts the processes."""
        ordinary = [self._start(NICENESS) for _ in range(self._slots)]
        self._workers = await start_all([self._start(SLOW_NICENESS), *ordinary])
        return self

    def open(self, metrics: QueueMetrics) -> None:
        """Lets them pull from their lines."""
        slow, *ordinary = self._workers
        self.ordinary = self._lane(NICENESS, ordinary, metrics)
        self.slow = self._lane(SLOW_NICENESS, [slow], metrics)

    def _lane(self, niceness: int, workers: list[Worker], metrics: QueueMetrics) -> Queue:
        queue = Queue(
            "decode",
            lambda: self._start(niceness),
            slots=len(workers),
            metrics=metrics,
            limit=lambda expected: WALL_SECONDS,
        )
        queue.open(workers)
        return queue

    async def _start(self, niceness: int) -> Worker:
        arguments = [f"--niceness={niceness}", *self._arguments]
        return await Worker(self._module, arguments).start()

    async def close(self) -> None:
        """Lets running work finish and ends the processes."""
        await asyncio.gather(self.ordinary.close(), self.slow.close())

    def lane(self, cost_seconds: float) -> Queue:
        """The line for a picture that should take so long."""
        return self.slow if cost_seconds > SLOW_SECONDS else self.ordinary

    def seconds(self, costs: Sequence[float], priority: Priority | None = None) -> float:
        """When pictures that take `costs` seconds each would be decoded.

        Behind all work that goes before this priority; on idle machinery where there is none.
        """
        ends = []
        for queue in (self.ordinary, self.slow):
            if own := [cost for cost in costs if self.lane(cost) is queue]:
                end = max(max(own), sum(own) / queue.slots)
                if priority is not None:
                    end = end * queue.pace.factor + queue.ahead_seconds(priority)
                ends.append(end)
        return max(ends)

    def check(self, content: bytes) -> float:
        """The seconds that decoding should take, judged by its header alone.

        Raises:
            ImageError: it is no picture that may be decoded, or was poison a short while ago.
        """
        found = pixels.admit(content)
        claimed = found.width * found.height or pixels.MAX_PIXELS
        each, each_byte = _prices(found)
        if self._poison and self._poison.get(_digest(content), 0.0) > time.monotonic():
            raise poisonous()
        return SECONDS + len(content) * each_byte + claimed * each

    async def view(
        self,
        content: bytes,
        *,
        cost_seconds: float,
        preprocessing: "Preprocessing",
        priority: Priority,
        deadline: float,
    ) -> View:
        """The square of the picture that a model with this preprocessing looks at.

        Raises as `decode`.
        """
        ask = ASK.pack(preprocessing.size_px, preprocessing.crop)
        served = await self.decode(
            content, ask=ask, cost_seconds=cost_seconds, priority=priority, deadline=deadline
        )
        return View(served.reply[VIEW.size :], VIEW.unpack_from(served.reply), served)

    async def decode(
        self,
        content: bytes,
        *,
        ask: bytes = b"",
        cost_seconds: float,
        priority: Priority,
        deadline: float,
    ) -> Served:
        """What a decoder replies to `ask` and the picture.

        Raises:
            ImageError: the picture is broken, or too much for a decoder.
            Overloaded: its turn came too late.
        """
        work = Work(
            parts=[ask, content], cost_seconds=cost_seconds, deadline=deadline, priority=priority
        )
        try:
            return await self.lane(cost_seconds).run(work)
        except WorkerDied as death:
            self._remember(content)
            if death.over_limit:
                raise poisonous() from None
            raise DecoderDied(
                "The decoder died of this image, twice. Re-encode it, or send another."
            ) from None

    def _remember(self, content: bytes) -> None:
        self._poison[_digest(content)] = time.monotonic() + POISON_SECONDS
        if len(self._poison) > MAX_POISON:
            self._poison.popitem(last=False)


def _prices(found: Header) -> tuple[float, float]:
    """The seconds for a pixel and for a byte."""
    if found.slow and found.format in SECONDS_PER_SLOW_PIXEL:
        return SECONDS_PER_SLOW_PIXEL[found.format], SECONDS_PER_SLOW_BYTE[found.format]
    return SECONDS_PER_PIXEL.get(found.format, SECONDS_PER_OTHER_PIXEL), SECONDS_PER_BYTE


def poisonous() -> DecodeLimit:
    """The refusal of a picture that has cost, or would cost, a decoder its life."""
    return DecodeLimit(
        f"Decoding the image takes more than {CPU_SECONDS} s or more memory than an image of its "
        "kind should. Re-encode it, or send it smaller."
    )


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
