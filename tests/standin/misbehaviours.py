"""What hosts of pictures do wrong, by name: `/bad/{name}`, or `/bad/{name}/{image}_7.jpg`.

With an image's number, what ends well ends with that image's bytes; without one it is image 0.
"""

import asyncio
import gzip
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from enum import StrEnum
from typing import NamedTuple, Protocol

from aiohttp import web

from tests.standin import files, wire
from tests.standin.clock import Clock
from tests.standin.pictures import Pictures
from tests.standin.tally import KIND, Tally
from tests.standin.wire import Play, Raw
from tests.standin.world import World

BOMB_BYTES = 1 << 30
LARGE_BYTES = 25 << 20
WAIT_SECONDS = 2


class Ends(StrEnum):
    """How it ends for a crawler that does everything right."""

    PICTURE = "picture"
    NOTHING = "nothing"
    OPTED_OUT = "opted_out"
    EITHER = "either"
    """Crawlers may differ: it can be repaired, and it can be refused."""


class Call:
    """One request to misbehave at."""

    def __init__(self, request: web.Request, site: "Misbehaviours", turn: int) -> None:
        self.request = request
        self.site = site
        self.turn = turn
        """How many requests of the same URL came before."""
        name = request.match_info.get("image", "")
        digits = name.split("_")[0]
        self.image = int(digits) if digits.isdecimal() else 0
        if self.image // 4 >= site.world.posts:
            self.image = 0

    @property
    def path(self) -> str:
        """The good way to the same picture."""
        return f"/p/{self.image}_7.jpg"

    async def picture(self) -> bytes:
        image = self.site.world.image(self.image)
        return await asyncio.to_thread(self.site.pictures.of, image)

    def raw(self, play: Play) -> web.StreamResponse:
        return Raw(play, self.site.tempo)

    def other_host(self) -> str:
        """The base URL of a host that is not this one."""
        hosts = [url for url in self.site.hosts if self.request.host not in url]
        return hosts[0] if hosts else self.site.hosts[0]


Answer = Callable[[Call], Awaitable[web.StreamResponse]]


class Misbehaviour(NamedTuple):
    """One thing that is done wrong."""

    answer: Answer
    ends: Ends


class Former(Protocol):
    """Turns a picture's bytes into other bytes."""

    def __call__(self, content: bytes, /) -> bytes: ...


class Misbehaviours:
    """All of `TABLE`, for a world."""

    def __init__(
        self,
        world: World,
        pictures: Pictures,
        *,
        hosts: list[str],
        plain_hosts: list[str],
        canary: int,
        clock: Clock,
        tally: Tally,
        tempo: float,
    ) -> None:
        self.world = world
        self.pictures = pictures
        self.hosts = hosts
        self.plain_hosts = plain_hosts
        self.canary = canary
        self.clock = clock
        self.tempo = tempo
        self.tally = tally
        self._turns: Counter[str] = Counter()
        self._due: dict[str, float] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/bad", self.index),
            web.get("/bad/{name}", self.answer),
            web.get("/bad/{name}/{image}", self.answer),
        ]

    async def index(self, _: web.Request) -> web.Response:
        """How each ends, by name."""
        return web.json_response({name: entry.ends for name, entry in TABLE.items()})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        request[KIND] = "bad"
        name = request.match_info["name"]
        entry = TABLE.get(name)
        if entry is None:
            return web.Response(status=404, text="no such misbehaviour")
        if self._is_deleted(request.match_info.get("image", "")):
            return web.Response(status=404, text="gone")
        self.tally.bad[name] += 1
        turn = self._turns[request.path]
        self._turns[request.path] += 1
        return await entry.answer(Call(request, self, turn))

    def _is_deleted(self, image: str) -> bool:
        """Whether a URL names an image of a deleted post: a host has none of its bytes."""
        digits = image.split("_")[0]
        post = int(digits) // 4 if digits.isdecimal() else -1
        return 0 <= post < self.world.posts and self.world.post(post).deleted

    def wait(self, path: str, seconds: float) -> float:
        """Seconds until a URL may be asked again, from its first request on; early ones count."""
        now = self.clock.now()
        if path not in self._due:
            self._due[path] = now + seconds
            return seconds
        left = self._due[path] - now
        if left > 0:
            self.tally.early += 1
        else:
            self.tally.lateness.append(-left / seconds)
        return left


def _jpeg(content: bytes, **headers: str) -> web.Response:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(body=content, content_type="image/jpeg", headers=told)


def _status(status: int, **headers: str) -> Answer:
    """This status, for ever."""

    async def answer(_: Call) -> web.StreamResponse:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=told)

    return answer


def _at_first(status: int, times: int, **headers: str) -> Answer:
    """This status so many times, and then the picture."""

    async def answer(call: Call) -> web.StreamResponse:
        if call.turn >= times:
            return _jpeg(await call.picture())
        return await _status(status, **headers)(call)

    return answer


def _until(status: int, date: bool = False) -> Answer:
    """This status until the time that its `Retry-After` states has come."""

    async def answer(call: Call) -> web.StreamResponse:
        left = call.site.wait(call.request.path, WAIT_SECONDS)
        if left <= 0:
            return _jpeg(await call.picture())
        due = call.site.clock.now() + left + 0.999  # dates have whole seconds
        value = formatdate(due, usegmt=True) if date else str(max(1, round(left)))
        return web.Response(status=status, headers={"Retry-After": value})

    return answer


def _plays(make: Callable[[bytes], Play]) -> Answer:
    """Something on the wire that is made from the picture."""

    async def answer(call: Call) -> web.StreamResponse:
        return call.raw(make(await call.picture()))

    return answer


def _redirects(make: Callable[[Call], str], status: int = 302) -> Answer:
    async def answer(call: Call) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": make(call)})

    return answer


def _to(location: str) -> Answer:
    return _redirects(lambda call: location.format(canary=call.site.canary, path=call.path))


def _formed(form: Former, kind: str = "image/jpeg") -> Answer:
    """The picture in another form, with this content type."""

    async def answer(call: Call) -> web.StreamResponse:
        content = await asyncio.to_thread(form, await call.picture())
        return web.Response(body=content, headers={"Content-Type": kind})

    return answer


def _told(**headers: str) -> Answer:
    """The picture with these headers."""

    async def answer(call: Call) -> web.StreamResponse:
        return _jpeg(await call.picture(), **headers)

    return answer


async def _chain(call: Call) -> web.StreamResponse:
    """Three redirects, and then the picture."""
    hop = int(call.request.query.get("hop", 0))
    to = call.path if hop == 2 else f"{call.request.path}?hop={hop + 1}"
    return web.Response(status=(301, 307, 308)[hop], headers={"Location": to})


async def _endless_redirect(call: Call) -> web.StreamResponse:
    hop = int(call.request.query.get("hop", 0)) + 1
    return web.Response(status=302, headers={"Location": f"{call.request.path}?hop={hop}"})


async def _to_http(call: Call) -> web.StreamResponse:
    """From HTTPS to HTTP; by HTTP it is a plain redirect that ends well."""
    return web.Response(status=302, headers={"Location": call.site.plain_hosts[0] + call.path})


async def _cookies(call: Call) -> web.StreamResponse:
    """Sets cookies and leads to another host, which counts what comes with them."""
    response = web.Response(status=302, headers={"Location": call.other_host() + call.path})
    response.set_cookie("session", "s3cret", path="/")
    response.set_cookie("everywhere", "1", domain="127.0.0.1", path="/")
    return response


async def _gzip_bomb(_: Call) -> web.StreamResponse:
    """A megabyte that becomes a gigabyte."""
    return web.Response(
        body=await asyncio.to_thread(_bomb),
        headers={"Content-Encoding": "gzip", "Content-Type": "image/jpeg"},
    )


def _bomb() -> bytes:
    if not _BOMB:
        block = gzip.compress(bytes(1 << 24), 9)
        _BOMB.append(block * (BOMB_BYTES >> 24))  # members that follow each other are one stream
    return _BOMB[0]


_BOMB: list[bytes] = []


async def _gzipped(call: Call) -> web.StreamResponse:
    """The picture compressed although nobody asked for it."""
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/jpeg"}
    return web.Response(body=gzip.compress(await call.picture(), 1), headers=headers)


def _encoded(name: str) -> Answer:
    """Garbage in an encoding."""

    async def answer(_: Call) -> web.StreamResponse:
        headers = {"Content-Encoding": name, "Content-Type": "image/jpeg"}
        return web.Response(body=files.noise(), headers=headers)

    return answer


async def _large(call: Call) -> web.StreamResponse:
    """A picture of 25 MB, its length told in advance."""
    content = await call.picture()
    return _jpeg(content + bytes(LARGE_BYTES - len(content)))


async def _large_unannounced(call: Call) -> web.StreamResponse:
    start = wire.head(b"Content-Type: image/jpeg", b"Connection: close")

    async def play(to: wire.Wire) -> None:
        await to.write(start + await call.picture())
        for _ in range(LARGE_BYTES >> 20):
            await to.write(bytes(1 << 20))

    return call.raw(play)


async def _partial(call: Call) -> web.StreamResponse:
    """A part that nobody asked for."""
    content = await call.picture()
    headers = {"Content-Range": f"bytes 0-999/{len(content)}", "Content-Type": "image/jpeg"}
    return web.Response(status=206, body=content[:1000], headers=headers)


async def _rst_once(call: Call) -> web.StreamResponse:
    """A reset, and then the picture."""
    if call.turn:
        return _jpeg(await call.picture())
    return call.raw(wire.reset_after(b""))


def _short(picture: bytes) -> Play:
    return wire.said(wire.jpeg_head(len(picture) // 2) + picture)


def _long(picture: bytes) -> Play:
    return wire.said(wire.jpeg_head(len(picture) * 2) + picture)


def _twice(picture: bytes) -> Play:
    more = b"Content-Length: %d" % (len(picture) // 2)
    return wire.said(wire.jpeg_head(len(picture), more) + picture)


def _both(picture: bytes) -> Play:
    head = wire.jpeg_head(len(picture), b"Transfer-Encoding: chunked")
    return wire.said(head + b"%x\r\n" % len(picture) + picture + b"\r\n0\r\n\r\n")


def _many_headers(picture: bytes) -> Play:
    return wire.said(
        wire.jpeg_head(len(picture), *(b"X-Header-%d: %d" % (n, n) for n in range(1000))) + picture
    )


def _large_header(picture: bytes) -> Play:
    return wire.said(wire.jpeg_head(len(picture), b"X-Large: " + b"a" * (1 << 20)) + picture)


P, N, OUT, EITHER = Ends
HEAD = wire.head(b"Content-Type: image/jpeg", b"Connection: close")
PNG = "image/png"

TABLE: dict[str, Misbehaviour] = {
    # Refusals for now, and for good.
    "429-seconds": Misbehaviour(_until(429), P),
    "429-date": Misbehaviour(_until(429, date=True), P),
    "429-absurd": Misbehaviour(_status(429, Retry_After="1000000000"), N),
    "429-negative": Misbehaviour(_at_first(429, 1, Retry_After="-5"), P),
    "429-garbage": Misbehaviour(_at_first(429, 1, Retry_After="soon, maybe"), P),
    "429-silent": Misbehaviour(_at_first(429, 1), P),
    "429-past-date": Misbehaviour(
        _at_first(429, 1, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"), P
    ),
    "429-for-ever": Misbehaviour(_status(429), N),
    "503-seconds": Misbehaviour(_until(503), P),
    "503-date": Misbehaviour(_until(503, date=True), P),
    "503-once": Misbehaviour(_at_first(503, 1), P),
    "500-burst": Misbehaviour(_at_first(500, 2), P),
    "500-for-ever": Misbehaviour(_status(500), N),
    "502-once": Misbehaviour(_at_first(502, 1), P),
    "408-once": Misbehaviour(_at_first(408, 1), P),
    "204": Misbehaviour(_status(204), N),
    "206": Misbehaviour(_partial, N),
    "304": Misbehaviour(_status(304), N),
    "401": Misbehaviour(_status(401, WWW_Authenticate='Basic realm="pictures"'), N),
    "403": Misbehaviour(_status(403), N),
    "404": Misbehaviour(_status(404), N),
    "410": Misbehaviour(_status(410), N),
    "451": Misbehaviour(_status(451), N),
    "999": Misbehaviour(_plays(lambda _: wire.said(wire.head(status=b"999 Denied"))), N),
    # Connections that break, or carry no HTTP.
    "rst-before-headers": Misbehaviour(_plays(lambda _: wire.reset_after(b"")), N),
    "rst-once": Misbehaviour(_rst_once, P),
    "rst-in-headers": Misbehaviour(_plays(lambda p: wire.reset_after(HEAD[:30])), N),
    "rst-after-headers": Misbehaviour(
        _plays(lambda p: wire.reset_after(wire.jpeg_head(len(p)))), N
    ),
    "rst-mid-body": Misbehaviour(
        _plays(lambda p: wire.reset_after(wire.jpeg_head(len(p)) + p[: len(p) // 2])), N
    ),
    "end-before-headers": Misbehaviour(_plays(lambda _: wire.said(b"")), N),
    "no-http": Misbehaviour(_plays(lambda _: wire.said(b"220 mail.example ESMTP\r\n")), N),
    "only-a-body": Misbehaviour(_plays(lambda p: wire.said(p)), N),
    "short-content-length": Misbehaviour(_plays(_short), EITHER),
    "long-content-length": Misbehaviour(_plays(_long), N),
    "duplicate-content-length": Misbehaviour(_plays(_twice), EITHER),
    "negative-content-length": Misbehaviour(
        _plays(lambda p: wire.said(wire.jpeg_head(-len(p)) + p)), N
    ),
    "length-and-chunks": Misbehaviour(_plays(_both), EITHER),
    "broken-chunked": Misbehaviour(_plays(lambda p: wire.chunked(p, size=b"xyz")), N),
    "unfinished-chunked": Misbehaviour(_plays(lambda p: wire.chunked(p, end=b"")), N),
    "huge-chunk": Misbehaviour(_plays(lambda p: wire.chunked(p, size=b"f" * 20)), N),
    "no-length": Misbehaviour(_plays(lambda p: wire.said(HEAD + p)), P),
    "thousand-headers": Misbehaviour(_plays(_many_headers), EITHER),
    "megabyte-header": Misbehaviour(_plays(_large_header), N),
    "endless-header": Misbehaviour(
        _plays(lambda _: wire.endless(HEAD[:-2], b"X-More: 1\r\n" * 99)), N
    ),
    "endless-continue": Misbehaviour(
        _plays(lambda _: wire.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99)), N
    ),
    # Time and size without end.
    "endless-body": Misbehaviour(_plays(lambda p: wire.endless(HEAD + p, bytes(1 << 16))), N),
    "drip-body": Misbehaviour(_plays(lambda p: wire.dripping(wire.jpeg_head(len(p)), p)), N),
    "drip-headers": Misbehaviour(
        _plays(lambda p: wire.dripping(b"HTTP/1.1 2", b"00 OK\r\n" + b"X" * 9999)), N
    ),
    "stall-before-headers": Misbehaviour(_plays(lambda _: wire.stalled_after(b"")), N),
    "stall-after-headers": Misbehaviour(
        _plays(lambda p: wire.stalled_after(wire.jpeg_head(len(p)))), N
    ),
    "stall-mid-body": Misbehaviour(
        _plays(lambda p: wire.stalled_after(wire.jpeg_head(len(p)) + p[: len(p) // 2])), N
    ),
    "large": Misbehaviour(_large, N),
    "large-unannounced": Misbehaviour(_large_unannounced, N),
    "gzip-bomb": Misbehaviour(_gzip_bomb, N),
    "gzip": Misbehaviour(_gzipped, EITHER),
    "br-garbage": Misbehaviour(_encoded("br"), N),
    "zstd-garbage": Misbehaviour(_encoded("zstd"), N),
    "unknown-encoding": Misbehaviour(_encoded("x-rot13"), N),
    # Redirects.
    "redirect-relative": Misbehaviour(_redirects(lambda call: f"../..{call.path}", 303), P),
    "redirect-chain": Misbehaviour(_chain, P),
    "redirect-other-host": Misbehaviour(_redirects(lambda c: c.other_host() + c.path), P),
    "redirect-endless": Misbehaviour(_endless_redirect, N),
    "redirect-self": Misbehaviour(_redirects(lambda call: call.request.path, 301), N),
    "redirect-nowhere": Misbehaviour(_status(302), N),
    "redirect-empty": Misbehaviour(_to(""), N),
    "redirect-to-http": Misbehaviour(_to_http, EITHER),
    "redirect-metadata": Misbehaviour(_to("http://169.254.169.254/latest/meta-data/"), N),
    "redirect-azure": Misbehaviour(_to("http://168.63.129.16/metadata"), N),
    "redirect-private": Misbehaviour(_to("http://10.0.0.1/a.jpg"), N),
    "redirect-canary": Misbehaviour(_to("http://127.0.0.1:{canary}/a.jpg"), N),
    "redirect-localhost": Misbehaviour(_to("http://localhost:{canary}/a.jpg"), N),
    "redirect-ipv6-loopback": Misbehaviour(_to("http://[::1]:{canary}/a.jpg"), N),
    "redirect-mapped": Misbehaviour(_to("http://[::ffff:127.0.0.1]:{canary}/a.jpg"), N),
    "redirect-nat64": Misbehaviour(_to("http://[64:ff9b::7f00:1]:{canary}/a.jpg"), N),
    "redirect-decimal": Misbehaviour(_to("http://2130706433:{canary}/a.jpg"), N),
    "redirect-hexadecimal": Misbehaviour(_to("http://0x7f.1:{canary}/a.jpg"), N),
    "redirect-octal": Misbehaviour(_to("http://0177.0.0.1:{canary}/a.jpg"), N),
    "redirect-zero": Misbehaviour(_to("http://0.0.0.0:{canary}/a.jpg"), N),
    "redirect-userinfo": Misbehaviour(_to("http://pictures.example@127.0.0.1:{canary}/a.jpg"), N),
    "redirect-file": Misbehaviour(_to("file:///etc/hostname"), N),
    "redirect-ftp": Misbehaviour(_to("ftp://127.0.0.1:{canary}/a.jpg"), N),
    "redirect-data": Misbehaviour(_to("data:image/gif;base64,R0lGODlhAQABAAAAACw="), N),
    "redirect-long": Misbehaviour(_to("/p/" + "a" * 6000), N),
    "cookies": Misbehaviour(_cookies, P),
    # Files that are not what they seem.
    "text-type": Misbehaviour(_formed(bytes, "text/plain"), EITHER),
    "no-type": Misbehaviour(_formed(bytes, "application/octet-stream"), EITHER),
    "html": Misbehaviour(_formed(lambda _: files.HTML, "text/html"), N),
    "html-as-image": Misbehaviour(_formed(lambda _: files.HTML), N),
    "svg": Misbehaviour(_formed(lambda _: files.SVG, "image/svg+xml"), N),
    "empty": Misbehaviour(_formed(lambda _: b""), N),
    "pixel": Misbehaviour(_formed(files.pixel, "image/gif"), N),
    "placeholder": Misbehaviour(_formed(files.placeholder), EITHER),
    "truncated": Misbehaviour(_formed(files.truncated), EITHER),
    "header-bomb": Misbehaviour(_formed(files.png_bomb, PNG), N),
    "jpeg-header-bomb": Misbehaviour(_formed(files.jpeg_bomb), N),
    "strip": Misbehaviour(_formed(files.long_strip, PNG), N),
    "noise": Misbehaviour(_formed(files.noise), N),
    "wrong-magic": Misbehaviour(_formed(lambda p: b"\x89PNG\r\n\x1a\n" + p[8:]), N),
    "archive-behind": Misbehaviour(_formed(files.with_tail), EITHER),
    "png-as-jpeg": Misbehaviour(_formed(files.palette), EITHER),
    "cmyk": Misbehaviour(_formed(files.cmyk), P),
    "grey": Misbehaviour(_formed(files.grey), P),
    "progressive": Misbehaviour(_formed(files.progressive), P),
    "exif-rotated": Misbehaviour(_formed(files.rotated), P),
    "png-16-bit": Misbehaviour(_formed(files.png_16_bit, PNG), P),
    "png-alpha": Misbehaviour(_formed(files.png_alpha, PNG), P),
    "gif-animation": Misbehaviour(_formed(files.animation, "image/gif"), P),
    "webp": Misbehaviour(_formed(files.webp, "image/webp"), P),
    "webp-animation": Misbehaviour(_formed(files.webp_animation, "image/webp"), P),
    # What a host says about learning from its pictures.
    "noai": Misbehaviour(_told(X_Robots_Tag="noai"), OUT),
    "noimageai": Misbehaviour(_told(X_Robots_Tag="nofollow, NoImageAI"), OUT),
    "noindex": Misbehaviour(_told(X_Robots_Tag="noindex"), OUT),
    "noimageindex": Misbehaviour(_told(X_Robots_Tag="noimageindex"), OUT),
    "noml": Misbehaviour(_told(X_Robots_Tag="noml"), OUT),
    "noai-for-others": Misbehaviour(_told(X_Robots_Tag="otherbot: noai"), P),
    "noai-for-us": Misbehaviour(_told(X_Robots_Tag="emojinet: noai"), OUT),
    "tdm-reserved": Misbehaviour(_told(TDM_Reservation="1"), OUT),
    "tdm-free": Misbehaviour(_told(TDM_Reservation="0"), P),
}
"""By name."""
