"""What files say, read anew when they change; where the new cannot be used, the old goes on."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from services.shared.errors import FileUnreadable

LOOK_SECONDS = 1.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class Fresh(Generic[T]):
    """What `read` makes of the files; looked at once a second at most, and only when asked.

    Args:
        files: they are looked at, links followed.
        read: raises FileUnreadable where they are not what they should be: here at once, later
            for the log alone.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files, self._read = files, read
        self._lock = Lock()
        self._stamps = self._look()
        self._value = read()
        self._again_seconds = time.monotonic() + LOOK_SECONDS

    def now(self) -> T:
        """The newest that could be used."""
        if time.monotonic() >= self._again_seconds:
            with self._lock:
                self._renew()
        return self._value

    def _renew(self) -> None:
        if time.monotonic() < self._again_seconds:
            return  # another thread has
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._value = self._read()
                log.info("read anew: %s", ", ".join(map(str, self._files)))
            except FileUnreadable as error:
                log.warning("%s What was read before goes on.", error)
        self._again_seconds = time.monotonic() + LOOK_SECONDS

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def content(path: Path, limit: int = 1 << 20) -> bytes:
    """The bytes of a small file. Raises FileUnreadable."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror}.") from None
