"""The pictures that a command line names, as files, folders, URLs or `-`, and their bytes.

Nothing here trusts a name: a pipe, a device, a folder that contains itself, a URL that drips or
never ends, each is an error about that one picture, in time.
"""

import http.client
import os
import string
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from urllib.parse import quote, urlsplit

from services.shared import folder
from services.shared.errors import UrlFailed, UrlRefused
from services.shared.folder import limited

LIMIT_BYTES = folder.LIMIT_BYTES
STDIN = "-"
USER_AGENT = "emojinet"


def named(arguments: Iterable[str]) -> Iterator[str]:
    """Every picture that `arguments` name, in order, a folder's as `folder.files`."""
    for argument in arguments:
        if "://" not in argument and os.path.isdir(argument):
            yield from folder.files(argument)
        else:
            yield argument


def read(name: str, *, timeout_seconds: float) -> bytes:
    """The bytes of one picture.

    Raises:
        EmojinetError: there is none, it is too large, or we may not have it.
    """
    if name == STDIN:
        return limited(sys.stdin.buffer)
    if "://" in name:
        return _fetched_in_time(name, timeout_seconds)
    return folder.content(name)


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
            return limited(response)
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
