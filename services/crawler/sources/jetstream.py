"""Jetstream, Bluesky's stream of everything public, over a WebSocket: reading on, whatever happens.

What frames say is in `frames.py`, what records mean in `bluesky.py`.
"""

import asyncio
import base64
import json
import logging
import random
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from reprlib import repr as excerpt
from typing import Self, TypeAlias
from urllib.parse import urlencode, urlsplit

import aiohttp
import zstandard

from services.crawler.post import Malformed
from services.crawler.sources.frames import OLDEST_US, Account, Commit, Notice, parse
from services.crawler.web import Web, WebFailed
from services.shared.errors import BadSource, MalformedRequest, SourceRefused, SourceUnavailable

V1_PATH, V2_PATH = "/subscribe", "/xrpc/network.bsky.jetstream.subscribeEvents"
V2_PROTOCOL = "xrpc.v1.json"
REWIND_US = 3_000_000
MAX_SEEN = 4096  # identities kept for each stretch of REWIND_US; a usual one has 500
SILENCE_US = 3600 * 1_000_000
BATCH_FRAMES, BATCH_SECONDS = 500, 0.25  # a deletion waits no longer
IDLE_SECONDS = 75.0  # the server pings every 30 s
MAX_FRAME_BYTES = 1 << 20  # longer ones are left out by the server; a post has 300 characters
ATTEMPTS = 6  # in 15 s; then the crawl pauses, and tries again by and by


Message: TypeAlias = Commit | Account | Malformed

log = logging.getLogger(__name__)


class Window:
    """How far a stream was read, and what its last seconds held.

    Whoever goes on does so some seconds early, and leaves out what is known: servers may promise
    only that a place comes at least once. Two stretches of identities are kept, of at least
    REWIND_US each (or MAX_SEEN, beyond which some may come again): one fills while the older
    covers the rewind.
    """

    def __init__(self) -> None:
        self.start = self.start_us = self._middle = self._middle_us = self.end = self.end_us = 0
        self._older: set[bytes] = set()
        self._newer: set[bytes] = set()

    @classmethod
    def load(cls, cursor: str) -> Self:
        """Reads what `dump` wrote, or begins anew for an empty one.

        Raises:
            BadSource: it is not what `dump` wrote.
        """
        window = cls()
        if cursor:
            try:
                window.start, window.start_us, window.end, window.end_us, seen = json.loads(cursor)
                identities = base64.b64decode(seen)
            except (ValueError, TypeError):
                raise BadSource(f"{excerpt(cursor)} is no cursor of a Bluesky crawl") from None
            window._middle, window._middle_us = window.end + 1, window.end_us
            window._older = {identities[i : i + 9] for i in range(0, len(identities), 9)}
        return window

    def dump(self) -> str:
        """All of it, as JSON."""
        seen = base64.b64encode(b"".join(sorted(self._older | self._newer))).decode()
        return json.dumps([self.start, self.start_us, self.end, self.end_us, seen])

    def forget(self) -> None:
        """Begins anew with the next event, wherever that is."""
        self.start = self.start_us = self._middle = self._middle_us = self.end = self.end_us = 0

    def enter(self, place: int, time_us: int, *identity: str) -> bool:
        """Notes an event; False if it was noted before."""
        key = blake2b("\0".join(identity).encode(errors="replace"), digest_size=9).digest()
        if place < self.start or key in self._newer or key in self._older:
            return False
        later = place > self.end and time_us - self._middle_us >= REWIND_US
        if later or len(self._newer) >= MAX_SEEN:
            self._older, self._newer = self._newer, set()
            self.start, self.start_us = self._middle or place, self._middle_us or time_us
            self._middle, self._middle_us = place, time_us
        self.end, self.end_us = max(self.end, place), max(self.end_us, time_us)
        self._newer.add(key)
        return True


class Dropped(Exception):
    """A connection that is of no more use."""


class Jetstream:
    """One server's stream."""

    def __init__(
        self, web: Web, url: str, collections: Sequence[str], *, begin: str, dictionary: bytes
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            why = f"jetstream_url is {excerpt(url)}, not such as wss://host"
            raise MalformedRequest(why, field="jetstream_url")
        if begin and not re.fullmatch("[0-9]{1,18}", begin):
            why = f"cursor is {excerpt(begin)}, not a whole number"
            raise MalformedRequest(why, field="cursor")
        self._web, self._collections, self._begin = web, collections, begin
        self._server, self._path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        self._paths = [self._path] if self._path else [V1_PATH, V2_PATH]
        self._refused = 0  # cursors
        self._resumed_us = 0
        self._dictionary = zstandard.ZstdCompressionDict(dictionary)
        self._zstd = zstandard.ZstdDecompressor(
            dict_data=self._dictionary, max_window_size=8 * MAX_FRAME_BYTES
        )

    async def batches(self, window: Window) -> AsyncGenerator[list[Message], None]:
        """What comes after the window, each event once, in lists four times a second.

        Raises:
            BadSource: nothing there speaks Jetstream.
            SourceRefused: it does not let us in.
            SourceUnavailable: it gave nothing, several times in a row.
        """
        failures = self._refused = 0
        while True:
            try:
                async for batch in self._connection(window):
                    failures = 0
                    yield batch
            except (Dropped, WebFailed) as error:
                failure = error
            failures += 1
            if notice := self._settled(failure, window, last=failures >= ATTEMPTS):
                yield [notice]
            wait = min(8.0, 0.25 * 2**failures) * random.uniform(0.5, 1)
            log.warning("%s: %s; again in %.1f s", self._server, failure, wait)
            await asyncio.sleep(wait)

    def _settled(self, failure: Exception, window: Window, *, last: bool) -> Malformed | None:
        """Makes the next attempt another one where the same would fail again; or raises."""
        status = failure.status if isinstance(failure, WebFailed) else None
        if status in (401, 403):
            raise SourceRefused(f"{self._server} does not let us in: {failure}") from None
        if status == 404 and len(self._paths) > 1:
            del self._paths[0]
            return None
        cursor = self._cursor(window)
        if cursor and (status == 400 or str(failure).startswith(("CursorTooOld", "FutureCursor"))):
            self._refused += 1
            instead = self._cursor(window) or "now"
            why = f"cursor {cursor} is refused ({failure}): going on from {instead}, with a gap"
            return Malformed(self._server, why)
        if isinstance(failure, WebFailed) and not failure.retryable:
            raise BadSource(f"{self._server} gives no stream: {failure}") from None
        if last:
            raise SourceUnavailable(f"{self._server} gives nothing now: {failure}") from None
        return None

    async def _connection(self, window: Window) -> AsyncGenerator[list[Message], None]:
        self._resumed_us = window.start_us
        protocols = (V2_PROTOCOL,) if self._paths[0].endswith(V2_PATH) else ()
        socket = await self._web.connect(self._url(window), protocols=protocols)
        try:
            ended = None
            while not ended:
                batch, ended = await self._batch(socket, window)
                if batch:
                    yield batch
            raise ended
        finally:
            await socket.close()

    def _cursor(self, window: Window) -> str:
        """Where to go on; where a server refuses, the next best: the same time, the oldest, now."""
        best = str(window.start or self._begin)
        cursors = [best, str(window.start_us or OLDEST_US), "0", ""] if best else [""]
        cursors = list(dict.fromkeys(cursors))
        return cursors[min(self._refused, len(cursors) - 1)]

    def _url(self, window: Window) -> str:
        dictionary = self._dictionary.dict_id() if len(self._dictionary) else 0
        if self._paths[0].endswith(V2_PATH):
            query = [("kinds", "commit"), ("kinds", "account")]
            query += [("collections", name) for name in self._collections]
            query += [("zstdDictionary", str(dictionary))] if dictionary else []
        else:
            query = [("wantedCollections", name) for name in self._collections]
            query += [("compress", "true")] if dictionary else []
        query.append(("maxMessageSizeBytes", str(MAX_FRAME_BYTES)))
        if cursor := self._cursor(window):
            query.append(("cursor", cursor))
        return f"{self._server}{self._paths[0]}?{urlencode(query)}"

    async def _batch(
        self, socket: aiohttp.ClientWebSocketResponse[bool], window: Window
    ) -> tuple[list[Message], Dropped | None]:
        """What came, and why no more will: an end must not swallow what came before it."""
        batch: list[Message] = []
        try:
            self._take(await _frame(socket, IDLE_SECONDS), window, batch)
            # One clock for all: setting one for each frame would take half of the time.
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    for _ in range(BATCH_FRAMES - 1):
                        self._take(await _frame(socket), window, batch)
        except Dropped as ended:
            return batch, ended
        return batch, None

    def _take(self, frame: str | bytes, window: Window, batch: list[Message]) -> None:
        """Appends what a frame says, if it is new."""
        try:
            text = frame if isinstance(frame, str) else self._unpacked(frame)
            message = parse(text)
        except ValueError as why:
            if window.enter(window.end, window.end_us, str(frame)):
                batch.append(Malformed(f"{self._server} after {window.end}", str(why)))
            return
        match message:
            case Notice(name, said, fatal):
                if fatal or name == "FutureCursor":  # it would go on with now
                    raise Dropped(f"{name}: {said}")
                batch.append(Malformed(self._server, f"{name}: {said}"))
            case Commit(place, time_us, did, rev, operation, collection, rkey, cid):
                self._resume(place, time_us, window, batch)
                if window.enter(place, time_us, did, rev, operation, collection, rkey, cid):
                    batch.append(message)
            case Account(place, time_us, did, active, status):
                self._resume(place, time_us, window, batch)
                if window.enter(place, time_us, did, str(active), status):
                    batch.append(message)

    def _resume(self, place: int, time_us: int, window: Window, batch: list[Message]) -> None:
        """Looks where the first event after an interruption stands."""
        if self._refused:
            window.forget()
            self._refused = 0
        elif place == time_us and 0 < self._resumed_us < time_us - SILENCE_US:
            # Version 1 goes on with the oldest that it has, and says nothing of it.
            why = f"nothing from {self._resumed_us} to {time_us} us: there may have been more"
            batch.append(Malformed(self._server, why))
        self._resumed_us = 0

    def _unpacked(self, frame: bytes) -> str:
        try:
            content = self._zstd.stream_reader(BytesIO(frame)).read(MAX_FRAME_BYTES + 1)
        except zstandard.ZstdError as error:
            raise ValueError(f"not zstd, or of another dictionary: {error}") from None
        if len(content) > MAX_FRAME_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_FRAME_BYTES} bytes")
        return content.decode(errors="replace")


async def _frame(
    socket: aiohttp.ClientWebSocketResponse[bool], patience_seconds: float | None = None
) -> str | bytes:
    try:
        message = await socket.receive(patience_seconds)  # pings count: each renews the patience
    except TimeoutError:
        raise Dropped(f"not even a ping for {patience_seconds} s") from None
    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        return message.data
    raise Dropped(f"the server ended the connection ({message.data or message.extra or 'closed'})")
