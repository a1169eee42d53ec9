"""How many bytes all requests together may hold: a crowd of uploads must not take all memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.shared.errors import Overloaded

MAX_BYTES = 512 << 20
RETRY_SECONDS = 1.0


class Room:
    """What is held by all requests."""

    def __init__(self) -> None:
        self.held_bytes = 0

    @contextmanager
    def held(self) -> Iterator["Held"]:
        """The share of one request, which it gives back at its end."""
        share = Held(self)
        try:
            yield share
        finally:
            self.held_bytes -= share.bytes

    def has(self, more_bytes: int) -> bool:
        """Whether so much more may be held."""
        return self.held_bytes + more_bytes <= MAX_BYTES


class Held:
    """What one request holds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, more_bytes: int) -> None:
        """Takes so much more, or raises Overloaded."""
        if not self._room.has(more_bytes):
            raise Overloaded(
                "Too many pictures are on their way here at once. Try again in a moment.",
                retry_seconds=RETRY_SECONDS,
            )
        self._room.held_bytes += more_bytes
        self.bytes += more_bytes
