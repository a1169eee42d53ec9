"""A device that only waits: for tests, demonstrations of scaling, and capacity planning.

`timed:20ms` takes 20 ms for each image; `timed:8ms+1ms` takes 8 ms and 1 ms more for every image
after the first of a batch; `timed:20msx4` has four slots.
"""

import re
import time
from typing import NamedTuple

import numpy as np

from services.shared.golden import Look
from services.shared.model import Model

PATTERN = re.compile(r"timed:(\d+(?:\.\d+)?)ms(?:\+(\d+(?:\.\d+)?)ms)?(?:x(\d+))?")


class Times(NamedTuple):
    """What a `timed:` backend was asked for."""

    base_seconds: float
    per_seconds: float
    slots: int

    def seconds(self, batch: int) -> float:
        """s(b), what a batch takes."""
        return self.base_seconds + (batch - 1) * self.per_seconds


def parse(backend: str) -> Times:
    """Reads `timed:BASEms[+PERms][xSLOTS]`; raises ValueError for anything else.

    >>> parse("timed:8ms+1.5msx2")
    Times(base_seconds=0.008, per_seconds=0.0015, slots=2)
    """
    found = PATTERN.fullmatch(backend)
    if not found:
        raise ValueError(f"{backend!r} is not timed:BASEms[+PERms][xSLOTS], as in timed:20ms")
    base = float(found[1]) / 1000
    slots = int(found[3] or 1)
    if not (0 < base <= 60 and 1 <= slots <= 64):
        raise ValueError(f"{backend!r}: BASE must be up to 60,000 ms, SLOTS 1 to 64")
    return Times(base, float(found[2]) / 1000 if found[2] else base, slots)


def open_timed(model: Model, backend: str) -> Look:
    """Waits, and answers the vocabulary's prior."""
    times = parse(backend)
    # So that the calibrated softmax gives back the prior; nothing is left for "none of these".
    logits = np.full(model.outputs, -100.0, np.float32)
    prior = np.maximum(model.vocabulary.prior(), 1e-12)
    logits[: len(prior)] = np.log(prior) * model.calibration.temperature

    def look(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = len(x_BHWC)
        time.sleep(times.seconds(batch))
        blank = np.zeros((batch, model.architecture.features, 1, 1), np.float32)
        return np.tile(logits, (batch, 1)), blank

    return look
