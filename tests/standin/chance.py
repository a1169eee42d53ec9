"""Counter-based randomness: what is drawn for a number depends on nothing drawn before it."""

from collections.abc import Sequence
from hashlib import blake2b
from math import gcd
from typing import TypeVar

T = TypeVar("T")
_LOW = 1 << 96  # below it a draw of some 30 bits would no longer be even


class Chance:
    """Draws that follow from a key alone; a post of a million costs some microseconds.

    Its state is one large number, from which each draw takes a digit of any base.
    """

    __slots__ = ("_key", "_pool", "_turn")

    def __init__(self, *key: object) -> None:
        self._key = "/".join(map(str, key)).encode()
        self._turn = 0
        self._pool = int.from_bytes(blake2b(self._key).digest())

    def below(self, count: int) -> int:
        """A whole number from 0 to `count` - 1; `count` is at most 2^30."""
        if self._pool < _LOW:
            self._turn += 1
            self._pool = int.from_bytes(blake2b(b"%b#%d" % (self._key, self._turn)).digest())
        self._pool, digit = divmod(self._pool, count)
        return digit

    def happens(self, share: float) -> bool:
        """True in this share of cases."""
        return self.below(1 << 20) < share * (1 << 20)

    def fraction(self) -> float:
        """A number from 0 up to 1."""
        return self.below(1 << 30) / (1 << 30)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.fraction()

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]


class Shuffle:
    """A reordering of `0..count-1` that can be asked both ways without a list."""

    def __init__(self, count: int, key: object) -> None:
        chance = Chance(key, "shuffle", count)
        self._count = max(count, 1)
        self._shift = chance.below(self._count)
        self._factor = max(1, int(self._count * 0.6180339887) + chance.below(97))
        while gcd(self._factor, self._count) != 1:
            self._factor += 1
        self._inverse = pow(self._factor, -1, self._count)

    def place(self, number: int) -> int:
        return (number * self._factor + self._shift) % self._count

    def number(self, place: int) -> int:
        return (place - self._shift) * self._inverse % self._count
