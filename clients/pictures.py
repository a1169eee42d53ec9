"""The pictures that a command line names, as files, folders, URLs or `-`, and their bytes.

Nothing here trusts a name: a pipe, a device, a folder that contains itself, a URL that drips or
never ends, each is an error about that one picture, in time.
"""

import http.client
import os
import stat
import string
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from services.shared.errors import (
    FileNotFound,
    FileUnreadable,
    ImageTooLarge,
    UrlFailed,
    UrlRefused,
)

LIMIT_BYTES = 10 * 1024 * 1024
STDIN = "-"
USER_AGENT = "emojinet"


def named(arguments: Iterable[str]) -> Iterator[str]:
    """Every picture that `arguments` name, in order, a folder's as `_files`."""
    for argument in arguments:
        if "://" not in argument and os.path.isdir(argument):
            yield from _files(argument)
        else:
            yield argument


def read(name: str, *, timeout_seconds: float) -> bytes:
    """The bytes of one picture.

    Raises:
        EmojinetError: there is none, it is too large, or we may not have it.
    """
    if name == STDIN:
        return _limited(sys.stdin.buffer)
    if "://" in name:
        return _fetched_in_time(name, timeout_seconds)
    return _file(name)


def _files(folder: str) -> list[str]:
    """All files below a folder, sorted, but none that is hidden or in a hidden folder.

    Symbolic links to folders are not followed. A folder that cannot be listed stands for itself,
    so that reading it says why.
    """
    found: list[str] = []
    unlisted: list[OSError] = []
    for path, folders, files in os.walk(folder, onerror=unlisted.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(path, name) for name in files if not name.startswith(".")]
    return sorted(found + [error.filename for error in unlisted])


def _file(path: str) -> bytes:
    try:
        # Non-blocking: opening a pipe would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise FileUnreadable("This is no regular file; give a pipe as -.")
            if facts.st_size > LIMIT_BYTES:
                raise _too_large(facts.st_size)
            return _limited(file)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFound("There is no such file.") from None
    except OSError as error:
        raise FileUnreadable(f"The file cannot be read: {error.strerror}.") from error


def _limited(file: BinaryIO | http.client.HTTPResponse) -> bytes:
    content = file.read(LIMIT_BYTES + 1)
    if len(content) > LIMIT_BYTES:
        raise _too_large(len(content))
    return content


def _too_large(size_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The picture has more than {LIMIT_BYTES >> 20} MiB; scale it down.",
        limit=str(LIMIT_BYTES),
        bytes=str(size_bytes),
    )


def _fetched_in_time(url: str, timeout_seconds: float) -> bytes:
    """`_fetched`, abandoned when it takes longer.

    A socket's time-out bounds each step, but neither their sum nor the look-up of the name, so the
    work has a thread of its own, which is left to itself when its time is over.
    """
    content: Future[bytes] = Future()

    def fetch() -> None:
        try:
            content.set_result(_fetched(url, timeout_seconds))
        except Exception as error:
            content.set_exception(error)

    Thread(target=fetch, daemon=True).start()
    try:
        return content.result(timeout_seconds)
    except TimeoutError:
        raise UrlFailed(
            f"The picture did not come within {timeout_seconds:g} s; give it longer."
        ) from None


def _fetched(url: str, timeout_seconds: float) -> bytes:
    try:
        request = urllib.request.Request(_ascii(url), headers={"User-Agent": USER_AGENT})
        with _web().open(request, timeout=timeout_seconds) as response:
            return _limited(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise UrlFailed(f"Its host answered {error.code}.", status=str(error.code)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UrlFailed(f"The picture cannot be fetched: {error}.") from error


def _ascii(url: str) -> str:
    """`url` as it travels: with a path in percent-encoding, as browsers do it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise UrlRefused("Only http:// and https:// are fetched.")
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def _web() -> urllib.request.OpenerDirector:
    """Opens http and https and, unlike `urlopen`, follows no redirect to anything else."""
    web = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        web.add_handler(handler())
    return web
