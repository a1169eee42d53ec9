"""The folder of prescaled pictures, one file for each, named by the SHA-256 of its original."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from services.shared.errors import StorageFailed


class Store:
    """Files that appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: bytes) -> Path:
        """Where the picture lies, or would."""
        name = sha256.hex()
        return self._folder / name[:2] / f"{name}.jpg"

    def names(self) -> Iterator[bytes]:
        """The digests of all pictures that lie here, after what was begun in vain is gone."""
        for staged in self._folder.glob("*/*.tmp"):
            staged.unlink(missing_ok=True)
        for path in self._folder.glob("*/*.jpg"):
            with contextlib.suppress(ValueError):  # not of ours
                yield bytes.fromhex(path.stem)

    def put(self, sha256: bytes, jpeg: bytes) -> None:
        """Stores a picture; the same one again is no harm.

        Raises:
            StorageFailed: the disk is full or failing; what was there before still is.
        """
        path = self.path(sha256)
        staged = path.with_suffix(".tmp")
        try:
            try:
                _write(staged, jpeg)
            except FileNotFoundError:  # the first of its sub-folder
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(staged, jpeg)
            os.replace(staged, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink()
            raise StorageFailed(
                f"{path} cannot be written: {error.strerror}.", path=str(path)
            ) from None

    def remove(self, sha256: bytes) -> None:
        """Deletes a picture, if it is there."""
        try:
            self.path(sha256).unlink(missing_ok=True)
        except OSError as error:
            path = self.path(sha256)
            raise StorageFailed(
                f"{path} cannot be deleted: {error.strerror}.", path=str(path)
            ) from None


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(28, "No space left on device")
    finally:
        os.close(descriptor)
