"""Fetching what strangers' URLs lead to, in a session whose connector is `addresses.connector`.

The connector guards every socket; here every redirect is looked at before it is followed, and what
failed is told without what aiohttp would tell of a URL, whose query may hold a token.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

import aiohttp
from yarl import URL

from services.shared import addresses
from services.shared.errors import UrlRefused

MAX_REDIRECTS = 5
REDIRECTS = frozenset((301, 302, 303, 307, 308))
SECRET_HEADERS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))


def session(allow: Sequence[addresses.Network], max_connections: int) -> aiohttp.ClientSession:
    """Opens public addresses only, and of the rest those that `allow` names; to be closed."""
    return aiohttp.ClientSession(
        connector=addresses.connector(allow, limit=max_connections),
        headers={"User-Agent": f"EmojiNet/{version('emojinet')}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


@asynccontextmanager
async def opened(
    session: aiohttp.ClientSession, url: str | URL, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response to a GET, after a few redirects, each of which is checked.

    Raises, besides what aiohttp raises:
        UrlRefused: the URL, or one that it leads to.
    """
    here = addresses.check_url(url)
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(here, headers=headers, allow_redirects=False) as response:
            target = redirect(response)
            if target is None:
                yield response
                return
        if target.host != here.host or target.port != here.port:
            headers = {k: v for k, v in headers.items() if k.lower() not in SECRET_HEADERS}
        here = target
    raise aiohttp.TooManyRedirects(response.request_info, (response,), status=response.status)


def redirect(response: aiohttp.ClientResponse) -> URL | None:
    """Where a response sends us, or None if it is itself what was asked for.

    Raises:
        UrlRefused: nowhere that we go.
    """
    location = response.headers.get("Location")
    if response.status not in REDIRECTS or not location:
        return None
    try:
        target = addresses.check_url(response.url.join(URL(location)))
    except ValueError:
        raise UrlRefused("The redirect's URL is malformed.") from None
    if response.url.scheme == "https" and target.scheme != "https":
        raise UrlRefused(f"The redirect leads from https to {target.scheme}.")
    return target


async def read(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    """The body, or so much of it, and whether that is all."""
    parts, size = [], 0
    while part := await response.content.readany():
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            response.close()
            return b"".join(parts)[:max_bytes], False
    return b"".join(parts), True


def is_refused(error: BaseException) -> bool:
    """Whether the guard was what kept a connection from being opened."""
    inner = getattr(error, "os_error", error)
    return isinstance(inner, addresses.AddressRefused)


def cause(error: BaseException) -> str:
    """What went wrong, without what aiohttp would tell of the URL."""
    inner = getattr(error, "os_error", error)
    detail = getattr(inner, "strerror", None)
    return f"{type(error).__name__}{f' ({detail})' if detail else ''}"
