"""Jetstream: Bluesky's firehose as JSON over a websocket, in its first version and its second.

Sequence numbers: a step s of the world's stream has (s + 1) * 256; what a test emits comes between
the steps, or after the last.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import zstandard
from aiohttp import WSMsgType, web

from tests.standin.clock import Clock
from tests.standin.events import Event, Events, stamp
from tests.standin.tally import KIND, Tally
from tests.standin.world import World, tid

GAP = 256  # between the sequence numbers of two steps
BLOCK = 32  # steps that are made at once, in a thread
TIME_CURSOR = 10**15  # a cursor from here on is a time in microseconds
SUBPROTOCOL = "xrpc.v1.json"
NAME = "network.bsky.jetstream.subscribeEvents"
V1_ONLY = frozenset({"wantedCollections", "wantedDids", "compress", "requireHello"})
V2_NAMES = frozenset(
    {"kinds", "collections", "dids", "cursor", "maxMessageSizeBytes", "zstdDictionary"}
)

Send = Callable[[int, Event], Awaitable[None]]


@dataclass(slots=True)
class Subscription:
    """What one subscriber wants."""

    collections: frozenset[str] = frozenset()
    """Empty means all; `ns.*` is a prefix."""
    dids: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    most_bytes: int = 0
    hello: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    def wants(self, event: Event) -> bool:
        """Whether an event is for it; account and identity events pass its collections."""
        if self.dids and event["did"] not in self.dids:
            return False
        if self.kinds and event["kind"] not in self.kinds:
            return False
        if event["kind"] != "commit" or not self.collections:
            return True
        name = event["commit"]["collection"]
        return name in self.collections or any(
            wanted.endswith(".*") and name.startswith(wanted[:-1]) for wanted in self.collections
        )


class Jetstream:
    """Both websocket endpoints. Attributes may be changed while it runs."""

    def __init__(
        self,
        world: World,
        events: Events,
        *,
        clock: Clock,
        tally: Tally,
        past: float = 1.0,
        rate: float = 0.0,
        rewind: int = 3,
        disconnect_every: int = 0,
    ) -> None:
        """The stream of a world.

        Args:
            past: The share of the stream that has happened before anyone listens.
            rate: Posts a second by which the rest happens, from the first subscriber on.
            rewind: Steps that are sent again to who comes back with a cursor.
            disconnect_every: Events after which a connection breaks; 0 is never.
        """
        self._world = world
        self._events = events
        self._clock = clock
        self._tally = tally
        self._past = int(events.steps * past)
        self._rate = rate
        self.rewind = rewind
        self.disconnect_every = disconnect_every
        self.oldest = 0
        """The sequence number from which on events are kept; v2 refuses older cursors."""
        self.error = ""
        """An error that the next v2 subscriber gets as a frame, such as ConsumerTooSlow."""
        self.info = ""
        """A notice that the next v2 subscriber gets as its first frame, such as OutdatedCursor."""
        self.told = 0
        """The highest sequence number that anyone was sent."""
        self.connections = 0
        self._began: float | None = None
        self._emitted: list[tuple[int, Event]] = []
        self._news = asyncio.Event()
        self._dictionary: zstandard.ZstdCompressionDict | None = None
        self._gone: set[tuple[str, str]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/subscribe", self.first), web.get(f"/xrpc/{NAME}", self.second)]

    @property
    def tip(self) -> int:
        """How many steps have happened."""
        if self._began is None or not self._rate:
            return self._past
        later = int((self._clock.now() - self._began) * self._rate * 4)
        return min(self._past + later, self._events.steps)

    def emit(self, event: Event) -> int:
        """Makes something happen now; its sequence number."""
        tip = self.tip
        number = max(tip * GAP, self._emitted[-1][0] if self._emitted else 0) + 1
        self._emitted.append((number, event))
        self._news.set()
        self._news = asyncio.Event()
        return number

    def time_us(self, number: int) -> int:
        """When the event with a sequence number happened."""
        step, rest = divmod(number, GAP)
        if step > self._events.steps:
            step, rest = self._events.steps, number - self._events.steps * GAP
        return self._world.time_us_at(step) + rest

    @property
    def dictionary(self) -> zstandard.ZstdCompressionDict:
        """The dictionary of compressed frames, trained on likely events; always the same."""
        if self._dictionary is None:
            samples: list[bytes | bytearray | memoryview] = [
                json.dumps(
                    {"did": f"did:plc:{number:024}", "time_us": 10**15 + number, "kind": "commit"}
                    | {"commit": {"operation": "create", "collection": "app.bsky.feed.post"}}
                    | {"text": self._world.post(number % self._world.posts).text}
                ).encode()
                for number in range(400)
            ]
            self._dictionary = zstandard.train_dictionary(8192, samples, dict_id=20261122)
        return self._dictionary

    async def first(self, request: web.Request) -> web.StreamResponse:
        """`GET /subscribe`: version 1."""
        request[KIND] = "subscribe"
        query = request.query
        compressed = (
            query.get("compress") == "true" or request.headers.get("Socket-Encoding") == "zstd"
        )
        if compressed and "deflate" in request.headers.get("Sec-WebSocket-Extensions", ""):
            return web.json_response({"error": "zstd excludes permessage-deflate"}, status=400)
        wanted = Subscription(
            frozenset(query.getall("wantedCollections", [])),
            frozenset(query.getall("wantedDids", [])),
            most_bytes=int(query.get("maxMessageSizeBytes", 0)),
        )
        if len(wanted.collections) > 100 or len(wanted.dids) > 10_000:
            return web.json_response({"error": "too many collections or DIDs"}, status=400)
        cursor = query.get("cursor", "")
        if cursor and not cursor.isdecimal():
            return web.json_response({"error": "invalid cursor"}, status=400)
        if query.get("requireHello") != "true":
            wanted.hello.set()
        socket = web.WebSocketResponse(compress=False, heartbeat=30)
        await socket.prepare(request)
        start = self._start(cursor, rewind=self.rewind)
        send = self._sender(socket, wanted, self._version_1, compressed)
        return await self._serve(request, socket, wanted, start, send)

    async def second(self, request: web.Request) -> web.StreamResponse:
        """`GET /xrpc/network.bsky.jetstream.subscribeEvents`: version 2."""
        request[KIND] = "subscribe"
        query = request.query
        if refusal := self._refusal(request):
            return web.json_response(refusal, status=400)
        compressed = "zstdDictionary" in query
        wanted = Subscription(
            frozenset(query.getall("collections", [])),
            frozenset(query.getall("dids", [])),
            frozenset(query.getall("kinds", [])),
            int(query.get("maxMessageSizeBytes", 0)),
        )
        wanted.hello.set()
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False, heartbeat=30)
        await socket.prepare(request)
        if self.error:
            frame = {"$type": "error", "error": self.error, "message": "as the test wished"}
            self.error = ""
            await socket.send_str(json.dumps(frame))
            await socket.close()
            return socket
        if self.info:
            notice = {"$type": f"{NAME}#info", "name": self.info, "message": "as the test wished"}
            self.info = ""
            await socket.send_str(json.dumps({"$type": "message", "payload": notice}))
        send = self._sender(socket, wanted, self._version_2, compressed)
        start = self._start(query.get("cursor", ""), rewind=0)
        return await self._serve(request, socket, wanted, start, send)

    def _sender(
        self,
        socket: web.WebSocketResponse,
        wanted: Subscription,
        word: Callable[[int, Event], Event],
        compressed: bool,
    ) -> Send:
        """Words an event, perhaps compresses it, and sends it unless it is too large."""
        compressor = zstandard.ZstdCompressor(dict_data=self.dictionary) if compressed else None

        async def send(number: int, event: Event) -> None:
            frame = word(number, event)
            body = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()
            if wanted.most_bytes and len(body) > wanted.most_bytes:
                return
            if compressor:
                await socket.send_bytes(compressor.compress(body))
            else:
                await socket.send_str(body.decode())

        return send

    def _refusal(self, request: web.Request) -> dict[str, str] | None:
        """What version 2 says before the upgrade to a request that it does not take."""
        query = request.query
        unknown = set(query) - V2_NAMES
        if unknown:
            old = " of version 1" if unknown & V1_ONLY else ""
            message = f"unknown parameter{old}: {min(unknown)}"
            return {"error": "InvalidRequest", "message": message}
        cursor = query.get("cursor", "0")
        if not cursor.isdecimal() or int(cursor) >= TIME_CURSOR:
            return {"error": "InvalidRequest", "message": "cursor is a sequence number"}
        if 0 < int(cursor) < self.oldest:
            return {"error": "CursorTooOld", "message": f"the oldest is {self.oldest}"}
        name = query.get("zstdDictionary")
        if name is not None and name != str(self.dictionary.dict_id()):
            return {"error": "UnknownZstdDictionary", "message": "no such dictionary"}
        return None

    def _start(self, cursor: str, rewind: int) -> int:
        """The sequence number after which a subscriber's events begin."""
        tip = max(self.tip * GAP, self._emitted[-1][0] if self._emitted else 0)
        if not cursor:
            return tip
        number = int(cursor)
        if number >= TIME_CURSOR:
            number = self._number_at(number) - 1
        number -= rewind * GAP
        return min(max(number, self.oldest - 1, 0), tip)

    def _number_at(self, time_us: int) -> int:
        """The first sequence number at or after a time."""
        low, high = 0, self._events.steps * GAP
        if time_us > self.time_us(high):
            return high + time_us - self.time_us(high)
        while low < high:
            middle = (low + high) // 2
            if self.time_us(middle) < time_us:
                low = middle + 1
            else:
                high = middle
        return low

    async def _serve(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        wanted: Subscription,
        start: int,
        send: Send,
    ) -> web.WebSocketResponse:
        self.connections += 1
        if self._began is None:
            self._began = self._clock.now()
        reader = asyncio.create_task(self._read(socket, wanted))
        try:
            await wanted.hello.wait()
            async for number, event in self._after(start):
                if socket.closed or reader.done():
                    break
                if not wanted.wants(event):
                    continue
                await send(number, event)
                self._sent(number, event)
                wanted.sent += 1
                if self.disconnect_every and wanted.sent >= self.disconnect_every:
                    await self._break(request, socket)
                    break
        except ConnectionError:
            pass
        finally:
            reader.cancel()
            await socket.close()
        return socket

    def _sent(self, number: int, event: Event) -> None:
        self._tally.events += 1
        self.told = max(self.told, number)
        if event["kind"] == "commit" and event["commit"]["operation"] == "delete":
            self._gone.add((event["did"], event["commit"]["rkey"]))

    async def _break(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        """Ends a connection, by turns with a goodbye and without."""
        if self.connections % 2 and request.transport:
            request.transport.abort()
        else:
            await socket.close(code=1001, message=b"going away")

    async def _read(self, socket: web.WebSocketResponse, wanted: Subscription) -> None:
        """Takes the subscriber's messages; ends with the connection."""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            update = json.loads(message.data)
            if update.get("type") == "options_update":
                options = update.get("payload", {})
                wanted.collections = frozenset(options.get("wantedCollections") or ())
                wanted.dids = frozenset(options.get("wantedDids") or ())
                wanted.most_bytes = int(options.get("maxMessageSizeBytes") or 0)
                wanted.hello.set()

    async def _after(self, number: int) -> AsyncIterator[tuple[int, Event]]:
        """All events after a sequence number, and then those to come."""
        while True:
            news = self._news
            block = await asyncio.to_thread(self._block, number)
            for number, event in block:
                if event is not None:
                    yield number, event
            if not block:
                waiting = 0.02 if self._rate and self.tip < self._events.steps else 0.5
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), waiting)

    def _block(self, after: int) -> list[tuple[int, Event | None]]:
        """The next events in order; empty steps too, so that a reader gets ahead."""
        found: list[tuple[int, Event | None]] = []
        first = after // GAP
        last = min(first + BLOCK, self.tip)
        for step in range(first, last):
            found.append(((step + 1) * GAP, self._events.at(step)))
        end = last * GAP + GAP - 1 if last < self.tip else None
        at = bisect_right(self._emitted, after, key=lambda pair: pair[0])
        found += [
            (number, event) for number, event in self._emitted[at:] if end is None or number <= end
        ]
        return sorted(found, key=lambda pair: pair[0])

    def is_gone(self, did: str, rkey: str) -> bool:
        """Whether a deletion of this post has been sent to anyone."""
        return (did, rkey) in self._gone

    def _version_1(self, number: int, event: Event) -> Event:
        """An event as version 1 words it."""
        time_us = self.time_us(number)
        whole: Event = {"did": event["did"], "time_us": time_us, "cursor": number}
        whole |= {"kind": event["kind"]}
        if event["kind"] == "commit":
            return whole | {"commit": {**event["commit"], "rev": tid(time_us)}}
        detail = {**event[event["kind"]], "seq": 31_527_000_000 + number, "time": stamp(time_us)}
        return whole | {event["kind"]: detail}

    def _version_2(self, number: int, event: Event) -> Event:
        """An event as a frame of version 2."""
        time_us = self.time_us(number)
        whole: Event = {
            "$type": f"{NAME}#{event['kind']}",
            "seq": number,
            "did": event["did"],
            "time": stamp(time_us, 6),
        }
        if event["kind"] == "commit":
            whole |= event["commit"] | {"rev": tid(time_us)}
        else:
            whole |= {k: v for k, v in event[event["kind"]].items() if k != "did"}
        return {"$type": "message", "payload": whole}
