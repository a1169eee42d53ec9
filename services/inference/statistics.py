"""What a model has done since it became live, call by call, for the Open Inference Protocol.

Prometheus is told of pictures, and counts them over all models: `metrics.py`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Total:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.seconds += max(0.0, seconds)


@dataclass(slots=True)
class Statistics:
    """Calls by outcome, and the phases of those that succeeded."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    compute_input: Total = field(default_factory=Total)
    compute_infer: Total = field(default_factory=Total)
    compute_output: Total = field(default_factory=Total)
    last_time: float = 0.0
    """When the last one succeeded, in seconds since 1970."""

    def succeed(self, slowest: Mapping[str, float], total: float) -> None:
        """One more call that was answered.

        Args:
            slowest: where the time of its slowest picture went: the others were under way beside
                it, so that the phases add up to the call.
            total: the seconds of the call.
        """
        queue = slowest.get("decode_wait", 0.0) + slowest["queue_wait"]
        input_, infer = slowest.get("decode", 0.0), slowest["compute"]
        self.success.add(total)
        self.queue.add(queue)
        self.compute_input.add(input_)
        self.compute_infer.add(infer)
        self.compute_output.add(total - queue - input_ - infer)
        self.last_time = time.time()
