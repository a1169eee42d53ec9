"""Whether a request can be answered in time, decided before anything is spent on it.

A large photograph costs more to decode than to compute, so the decision comes before decoding:
both lines and both kinds of work are estimated, and a request that would be late is refused at
once. Refusing late work at the head of the line is not enough: by then it was decoded.
"""

import math
import time
from collections.abc import Sequence

from services.inference.gate import Gate
from services.inference.metrics import Metrics
from services.shared.decoders import Decoders
from services.shared.errors import DeadlineTooShort, Overloaded
from services.shared.queue import Priority

# An estimate may be wrong by this share of the time left; nobody is served faster by a fuller line.
RESERVE = 0.25


class Admission:
    """Estimates when a request would be finished, here and on an idle server."""

    def __init__(self, decoders: Decoders, gate: Gate, metrics: Metrics) -> None:
        self._decoders, self._gate, self._metrics = decoders, gate, metrics

    def admit(
        self, costs: Sequence[float], priority: Priority, deadline: float, *, decoded: bool = False
    ) -> None:
        """Lets images pass whose decoding should take `costs` seconds each.

        Args:
            deadline: of the request, on `time.monotonic`.
            decoded: they have been, and go to the device at once.

        Raises:
            DeadlineTooShort: even an idle server would be late.
            Overloaded: this one would be.
        """
        left = deadline - time.monotonic()
        idle = self._idle_seconds(costs)
        if idle > left:
            self._count(len(costs), "deadline", priority)
            raise DeadlineTooShort(
                f"An idle server needs about {idle * 1000:.0f} ms for this and the deadline "
                f"leaves {max(0.0, left) * 1000:.0f} ms. Set a longer one.",
                neededMilliseconds=f"{idle * 1000:.0f}",
            )
        finish = self._finish_seconds(costs, priority, decoded)
        promised = left * (1 - RESERVE)
        if finish > promised and finish > idle * (1 + RESERVE):
            self._count(len(costs), "overloaded", priority)
            raise overloaded(finish - idle, max(0.0, finish - promised))

    def _idle_seconds(self, costs: Sequence[float]) -> float:
        compute = max(self._gate.image_seconds, len(costs) / self._gate.capacity)
        return self._decoders.seconds(costs) + compute

    def _finish_seconds(self, costs: Sequence[float], priority: Priority, decoded: bool) -> float:
        """Two stages, one after the other: the later of them decides."""
        decoding, device = self._decoders.ordinary, self._gate.queue
        one = self._gate.image_seconds * device.pace.factor
        each = device.pace.factor / self._gate.capacity
        if decoded:
            return max(one, device.ahead_seconds(priority) + len(costs) * each)
        ahead = decoding.count_ahead(priority) + decoding.busy
        return max(
            self._decoders.seconds(costs, priority) + one,
            device.ahead_seconds(priority) + (ahead + len(costs)) * each,
        )

    def _count(self, images: int, reason: str, priority: Priority) -> None:
        self._metrics.shed.labels(reason, priority).inc(images)
        for _ in range(images):
            self._decoders.ordinary.observe_shed(priority)


def overloaded(wait_seconds: float, short_seconds: float) -> Overloaded:
    """The refusal of what would wait so long, and so much too long.

    In steps of 20 ms: coarse words repeat, and what repeats is made once.
    """
    wait_ms = math.ceil(wait_seconds * 50) * 20
    return Overloaded(
        f"Others are ahead: this would wait {wait_ms} ms and come too late. Try again later, "
        "elsewhere, or with a longer deadline.",
        retry_seconds=max(0.05, math.ceil(short_seconds * 50) / 50),
        waitMilliseconds=str(wait_ms),
    )
