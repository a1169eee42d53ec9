"""The ways in which a host answers for /robots.txt."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

ALLOW = "User-agent: *\nAllow: /\n"
DISALLOW = "User-agent: *\nDisallow: /\n"
PARTLY = "User-agent: *\nDisallow: /p/\nAllow: /xrpc/\nDisallow: /*_5.jpg$\n"
OTHERS = "User-agent: SomeOtherBot\nDisallow: /\n\nUser-agent: *\nAllow: /\nCrawl-delay: 0.05\n"
BOT = "User-agent: EmojiNet\nDisallow: /\n\nUser-agent: *\nAllow: /\n"
SLOW_SECONDS = 30.0

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _text(body: str | bytes, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        content = body.encode() if isinstance(body, str) else body
        return web.Response(body=content, status=status, content_type="text/plain")

    return answer


async def _slow(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(SLOW_SECONDS)
    return web.Response(text=ALLOW)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:
        await response.write(b"# more to come\n" * 1000)
        await asyncio.sleep(0.01)


async def _redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/robots-moved.txt")


async def _redirect_for_ever(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/robots.txt")


async def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport:
        request.transport.abort()
    return web.Response()


VARIANTS: dict[str, Answer] = {
    "allow": _text(ALLOW),
    "disallow": _text(DISALLOW),
    "disallow-images": _text(PARTLY),
    "disallow-others": _text(OTHERS),
    "disallow-us": _text(BOT),
    "missing": _text("not here", 404),
    "forbidden": _text("no", 403),
    "unavailable": _text("later", 503),
    "broken": _text("oops", 500),
    "too-many": _text("slow down", 429),
    "empty": _text(""),
    "html": _text("<!doctype html><title>Welcome</title>"),
    "bom": _text("\ufeff" + DISALLOW),
    "binary": _text(bytes(range(256)) * 16),
    # RFC 9309: at least 500 KiB are to be read; the rule is within them, its end is not.
    "huge": _text(DISALLOW + "# nothing\n" * 1_000_000),
    "slow": _slow,
    "endless": _endless,
    "redirect": _redirect,
    "redirect-loop": _redirect_for_ever,
    "reset": _reset,
}
"""By name. `redirect` ends well, at a file that disallows all."""

CLOSED = frozenset({"disallow", "disallow-us", "bom", "huge", "redirect"})
"""Those that say that our crawler may fetch nothing."""


async def moved(_: web.Request) -> web.StreamResponse:
    return web.Response(text=DISALLOW)
