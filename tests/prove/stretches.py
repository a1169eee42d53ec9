"""The load of `prove-scaling`, in seconds of control, and how much work there is at each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.prove.simulated import DEMAND, LEAST, SERVICE_SECONDS

EACH = DEMAND / SERVICE_SECONDS  # images a second that one replica is for


class Stretch(NamedTuple):
    """Some time, and for how many replicas there is work at its start and at its end."""

    name: str
    seconds: int
    first: float
    last: float


CONSTANT, STEP = "constant", "step"
STRETCHES = (
    Stretch("low", 120, 1.8, 1.8),  # in the first minute the window of the rules fills
    Stretch(STEP, 540, 5.4, 5.4),
    Stretch("fall", 480, 1.8, 1.8),
    Stretch("ramp", 480, 1.8, 7.2),
    Stretch("burst", 60, 9.0, 9.0),
    Stretch(CONSTANT, 780, 4.6, 4.6),
)
TURN = (
    Stretch("low", 180, 1.8, 1.8),
    Stretch(STEP, 600, 5.4, 5.4),
    Stretch("fall", 540, 1.8, 1.8),
)
"""The step alone, for a run of which no clock is divided."""


def rates(stretches: Iterable[Stretch]) -> list[float]:
    """Images a second, in each second."""
    return [
        EACH * (first + (last - first) * second / seconds)
        for _, seconds, first, last in stretches
        for second in range(seconds)
    ]


def ideal(rate: float) -> int:
    """The replicas for so many images a second."""
    return max(LEAST, -int(-rate // EACH))


def when(stretches: Sequence[Stretch], name: str) -> tuple[float, float] | None:
    """The seconds from which and until which it lasts, if it is among them."""
    start = 0
    for stretch in stretches:
        if stretch.name == name:
            return start, start + stretch.seconds
        start += stretch.seconds
    return None
