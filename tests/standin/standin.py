"""The stand-in social network: Instagram v1, Bluesky, image hosts; on loopback addresses only."""

import asyncio
import json
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import trustme
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.standin import robots
from tests.standin.atproto import Atproto
from tests.standin.cdn import Cdn, Limit
from tests.standin.clock import Clock
from tests.standin.events import Event, Events
from tests.standin.instagram import Instagram
from tests.standin.jetstream import Jetstream
from tests.standin.misbehaviours import TABLE, Misbehaviours
from tests.standin.pictures import Pictures
from tests.standin.tally import KIND, Tally
from tests.standin.world import Image, Post, World

MAIN = "127.0.0.1"
ATTEMPTS = 20


class Standin:
    """An async context: `async with Standin(World(seed=1, posts=1000)) as standin: …`.

    The API is at `base_url`; pictures and personal data servers are spread over `urls`, one
    loopback address each, so that each is a host to who limits by host.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        hosts: int = 4,
        tls: bool = False,
        clock: Clock | None = None,
        limit: int = 5000,
        overlap: int = 2,
        hidden: float = 0.0,
        carousels: bool = False,
        latency: float = 0.0,
        cdn_limit: tuple[int, float] | None = None,
        robots: dict[int, str] | None = None,
        past: float = 1.0,
        rate: float = 0.0,
        rewind: int = 3,
        disconnect_every: int = 0,
        bank: int = 0,
        drawings: bool = False,
        tempo: float = 1.0,
    ) -> None:
        """A stand-in that is not yet running.

        Args:
            hosts: Addresses for pictures: 127.0.0.2 and so on.
            tls: Also serve HTTPS, and link pictures by it.
            limit, overlap, hidden, carousels: Of `Instagram`.
            latency: Seconds before a picture's response begins.
            cdn_limit: Requests in seconds that each host of pictures allows.
            robots: The variant of robots.txt of hosts, by index into `urls`; the rest allow all.
            past, rate, rewind, disconnect_every: Of `Jetstream`.
            bank, drawings: Of `Pictures`.
            tempo: Factor on the seconds that slow misbehaviours take.
        """
        self.world = world or World()
        self.clock = clock or Clock()
        self.stats = Tally()
        self.robots = dict(robots or {})
        self.pictures = Pictures(self.world, bank=bank, drawings=drawings)
        self.events = Events(self.world, self.pictures)
        self._count = hosts
        self._tls = tls
        self._tempo = tempo
        self._instagram: dict[str, Any] = {
            "limit": limit,
            "overlap": overlap,
            "hidden": hidden,
            "carousels": carousels,
        }
        self._latency = latency
        self._cdn_limit = cdn_limit
        self._jetstream: dict[str, Any] = {
            "past": past,
            "rate": rate,
            "rewind": rewind,
            "disconnect_every": disconnect_every,
        }
        self._stack = AsyncExitStack()

    base_url: str
    """http://127.0.0.1:port, for Instagram (`/v1`), Jetstream and the directory (`/{did}`)."""
    urls: list[str]
    """The hosts of pictures and blobs, over HTTP."""
    https_url: str = ""
    https_urls: list[str]
    bad_https_url: str = ""
    """An HTTPS port whose certificate `ca_file` did not sign."""
    ca_file: str = ""
    canary: int
    """A port of 127.0.0.1 that nobody has a reason to connect to; `stats.canary` counts."""
    instagram: Instagram
    jetstream: Jetstream
    cdn: Cdn
    atproto: Atproto
    misbehaviours: Misbehaviours

    async def __aenter__(self) -> Self:
        addresses = [MAIN, *(f"127.0.0.{2 + index}" for index in range(self._count))]
        sockets, port = _bound(addresses)
        self.base_url = f"http://{MAIN}:{port}"
        self.urls = [f"http://{address}:{port}" for address in addresses[1:]] or [self.base_url]
        self.https_urls = []
        contexts: list[tuple[socket.socket, ssl.SSLContext | None]] = [(s, None) for s in sockets]
        if self._tls:
            contexts += self._secured(addresses)
        await self._open_canary()
        self._build()
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        for bound, context in contexts:
            await web.SockSite(runner, bound, ssl_context=context, backlog=512).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def truth(self) -> Iterator[Post]:
        """All posts with what is true of them."""
        return self.world.truth()

    async def emit(self, event: Event) -> int:
        """Makes something happen on Bluesky now; its sequence number.

        `standin.events` words events: `creation(post)`, `deletion(post)`, `identity(author)`,
        `account(author, status)`, `intent(author, allow=False)`.
        """
        return self.jetstream.emit(event)

    def image_url(self, image: Image) -> str:
        """Where Instagram says that an image is."""
        return self.instagram.image_url(image)

    def host_closed(self, image: Image) -> bool:
        """Whether its host's robots.txt forbids fetching an image as linked by Instagram."""
        variant = self.robots.get(image.number % len(self.urls), "allow")
        return variant in robots.CLOSED

    def _build(self) -> None:
        links = self.https_urls or self.urls
        limit = Limit(*self._cdn_limit, self.clock, self.stats) if self._cdn_limit else None
        self.instagram = Instagram(
            self.world,
            base=self.base_url,
            image_hosts=links,
            clock=self.clock,
            tally=self.stats,
            **self._instagram,
        )
        self.jetstream = Jetstream(
            self.world,
            self.events,
            clock=self.clock,
            tally=self.stats,
            **self._jetstream,
        )
        self.cdn = Cdn(
            self.world, self.pictures, tally=self.stats, latency=self._latency, limit=limit
        )
        self.atproto = Atproto(
            self.world, self.pictures, self.events, self.jetstream, self.cdn, hosts=links
        )
        self.misbehaviours = Misbehaviours(
            self.world,
            self.pictures,
            hosts=links,
            plain_hosts=self.urls,
            canary=self.canary,
            clock=self.clock,
            tally=self.stats,
            tempo=self._tempo,
        )

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._count_request], client_max_size=1 << 20)
        for part in (self.instagram, self.jetstream, self.cdn, self.misbehaviours):
            app.add_routes(part.routes())
        app.add_routes(
            [
                web.get("/robots.txt", self._robots),
                web.get("/robots-moved.txt", robots.moved),
                web.get("/_stats", self._answer_stats),
                web.post("/_emit", self._answer_emit),
                web.post("/_set", self._answer_set),
                web.get("/_clock", self._answer_clock),
                web.post("/_clock/advance", self._answer_advance),
                web.get("/_dictionary", self._answer_dictionary),
            ]
        )
        app.add_routes(self.atproto.routes())
        return app

    @web.middleware
    async def _count_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_"):
            return await handler(request)
        status, size = 0, 0
        with self.stats.request(_address(request)) as host:
            try:
                response = await handler(request)
                status = response.status
                size = _size(response)
                return response
            except web.HTTPException as answer:
                status = answer.status
                raise
            finally:
                kind = request.get(KIND, "other")
                self.stats.kinds[kind] += 1
                host.kinds[kind] += 1
                host.bytes += size
                host.refused += status == 429
                self.stats.statuses[status] += 1
                self.stats.agents[request.headers.get("User-Agent", "")] += 1
                self.stats.cookies += "Cookie" in request.headers

    async def _robots(self, request: web.Request) -> web.StreamResponse:
        request[KIND] = "robots"
        index = int(_address(request).rsplit(".", 1)[1]) - 2
        return await robots.VARIANTS[self.robots.get(index, "allow")](request)

    async def _answer_stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats.report())

    async def _answer_emit(self, request: web.Request) -> web.Response:
        event = await request.json()
        if "delete" in event:
            event = self.events.deletion(self.world.post(event["delete"]))
        elif "create" in event:
            event = self.events.creation(self.world.post(event["create"]))
        elif "account" in event and "kind" not in event:
            event = self.events.account(self.world.author(event["account"]), event["status"])
        return web.json_response({"seq": await self.emit(event)})

    async def _answer_set(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            if name == "robots":
                self.robots |= {int(index): variant for index, variant in value.items()}
                continue
            part, _, attribute = name.partition(".")
            target = getattr(self, part)
            if not hasattr(target, attribute):
                return web.json_response({"error": f"no {name}"}, status=400)
            setattr(target, attribute, value)
        return web.json_response({})

    async def _answer_clock(self, _: web.Request) -> web.Response:
        return web.json_response({"now": self.clock.now(), "simulated": self.clock.simulated})

    async def _answer_advance(self, request: web.Request) -> web.Response:
        seconds = float((await request.json())["seconds"])
        return web.json_response({"now": self.clock.advance(seconds)})

    async def _answer_dictionary(self, _: web.Request) -> web.Response:
        return web.Response(body=self.jetstream.dictionary.as_bytes())

    def _secured(self, addresses: list[str]) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
        """Sockets for HTTPS: one for each address, and one with a certificate of nobody's."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        authority = trustme.CA()
        self.ca_file = str(Path(folder) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        sockets, port = _bound(addresses)
        self.https_url = f"https://{MAIN}:{port}"
        self.https_urls = [f"https://{a}:{port}" for a in addresses[1:]] or [self.https_url]
        (stranger,), bad_port = _bound([MAIN])
        self.bad_https_url = f"https://{MAIN}:{bad_port}"
        known = _context(authority, addresses)
        return [*((s, known) for s in sockets), (stranger, _context(trustme.CA(), [MAIN]))]

    async def _open_canary(self) -> None:
        def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.stats.canary += 1
            writer.close()

        server = await asyncio.start_server(count, MAIN, 0)
        self._stack.callback(server.close)
        self.canary = server.sockets[0].getsockname()[1]


def described(standin: Standin) -> str:
    """Where everything is, as one line of JSON."""
    facts: dict[str, Any] = {
        name: getattr(standin, name)
        for name in ("base_url", "urls", "https_url", "https_urls", "bad_https_url", "ca_file")
    }
    return json.dumps(facts | {"canary": standin.canary, "misbehaviours": sorted(TABLE)})


def _bound(addresses: list[str]) -> tuple[list[socket.socket], int]:
    """Listening sockets on all addresses at one port that is free on each."""
    for _ in range(ATTEMPTS):
        sockets: list[socket.socket] = []
        port = 0
        try:
            for address in addresses:
                sockets.append(socket.create_server((address, port)))
                port = sockets[0].getsockname()[1]
        except OSError:
            for bound in sockets:
                bound.close()
            continue
        return sockets, port
    raise OSError(f"no port is free on all of {addresses}")


def _context(authority: trustme.CA, addresses: list[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*addresses, "localhost").configure_cert(context)
    return context


def _address(request: web.Request) -> str:
    """The address that a request came to."""
    if request.transport is None:
        return ""
    name: str = request.transport.get_extra_info("sockname")[0]
    return name


def _size(response: web.StreamResponse) -> int:
    body = response.body if isinstance(response, web.Response) else None
    return len(body) if isinstance(body, bytes) else 0
