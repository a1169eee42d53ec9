"""The files of somebody's folder, and their bytes: nothing here trusts a name.

A pipe, a device, a folder that contains itself: each is an error about that one file, in time.
"""

import os
import stat
from typing import Protocol

from services.shared.errors import FileNotFound as NoSuchFile
from services.shared.errors import FileUnreadable, ImageTooLarge

LIMIT_BYTES = 10 * 1024 * 1024


class Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int, /) -> bytes: ...


def files(folder: str) -> list[str]:
    """All files below a folder, sorted, but none that is hidden or in a hidden folder.

    Symbolic links to folders are not followed. A folder that cannot be listed stands for itself,
    so that reading it says why.
    """
    found: list[str] = []
    unlisted: list[OSError] = []
    for path, folders, names in os.walk(folder, onerror=unlisted.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(path, name) for name in names if not name.startswith(".")]
    return sorted(found + [error.filename for error in unlisted])


def content(path: str) -> bytes:
    """The bytes of a file that may be a picture.

    Raises:
        NoSuchFile, FileUnreadable, ImageTooLarge: it is not there, none that we read, or too large.
    """
    try:
        # Non-blocking: opening a pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise FileUnreadable("This is no regular file; give a pipe as -.")
            if facts.st_size > LIMIT_BYTES:
                raise too_large(facts.st_size)
            return limited(file)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile("There is no such file.") from None
    except OSError as error:
        raise FileUnreadable(f"The file cannot be read: {error.strerror}.") from error


def limited(file: Readable) -> bytes:
    """All that it has to give, unless that is too much. Raises ImageTooLarge."""
    found = file.read(LIMIT_BYTES + 1)
    if len(found) > LIMIT_BYTES:
        raise too_large(len(found))
    return found


def too_large(size_bytes: int) -> ImageTooLarge:
    """The refusal of a file that no server would take."""
    return ImageTooLarge(
        f"The picture has more than {LIMIT_BYTES >> 20} MiB; scale it down.",
        limit=str(LIMIT_BYTES),
        bytes=str(size_bytes),
    )
