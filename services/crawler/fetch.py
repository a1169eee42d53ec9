"""Fetches pictures from strangers: politely, in bounded time, and within a budget of bytes.

Every way in which a host can misbehave ends in a `FetchFailed` of a named outcome. What is read
costs little: a body is awaited as a whole, so that most pictures wake us up twice, not for each of
a hundred pieces.
"""

import asyncio
import base64
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit
from urllib.request import url2pathname
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from services.crawler.limits import Quota
from services.crawler.post import PostImage
from services.crawler.robots import Robots, opted_out
from services.crawler.web import Web, shown
from services.shared import addresses, header
from services.shared.errors import UrlRefused
from services.shared.guarded import MAX_REDIRECTS, cause, is_refused, redirect
from services.shared.pixels import MAX_BYTES

BYTES_IN_FLIGHT = 64 << 20
PER_HOST = 8
TOTAL_SECONDS, ANSWER_SECONDS, CONNECT_SECONDS = 60.0, 20.0, 10.0
GRACE_SECONDS, MIN_BYTES_PER_SECOND = 5.0, 4096
PATIENCE_SECONDS = 5.0  # to wait for a host's turn; beyond, the picture goes back into line
LOOK_SECONDS = 0.5  # between two looks at a body that is under way
BUFFER_BYTES = 128 << 10  # aiohttp reads twice as much ahead, and uvloop 256 KiB at once
FIRST_BYTES = 512 << 10  # so this much may come before we know how much will
MAX_HOSTS = 10_000
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity"}
CID_PREFIX = bytes((1, 0x55, 0x12, 32))  # version 1, raw, SHA-256 of 32 bytes
NO_PICTURES = ("HTML", "XML")


class Outcome(StrEnum):
    """Why a picture could not be had."""

    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    GONE_FOR_NOW = "gone_for_now"
    LIMITED = "limited"
    """Its host wants us to wait; no attempt was made."""
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    BAD_URL = "bad_url"
    REDIRECT_LOOP = "redirect_loop"
    ROBOTS = "robots"
    OPTED_OUT = "opted_out"
    EMPTY = "empty"
    WRONG_CONTENT = "wrong_content"
    ALTERED = "altered"
    UNREADABLE_FILE = "unreadable_file"


class FetchFailed(Exception):
    """A picture could not be had, for now or for good."""

    def __init__(self, outcome: Outcome, why: str, *, retry_seconds: float | None = None) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.retry_seconds = retry_seconds
        """How long to wait at least; None where trying again would not help."""


class Fetcher:
    """Fetches pictures.

    Args:
        web: the way to them.
        bytes_in_flight: how much of pictures may be in memory, from when they are read until their
            reader is done with them; at least 32 MiB.
        per_host: how many requests at once.
        total_seconds: for one picture, once its host has answered.
        answer_seconds: until its host answers.
        grace_seconds: after which a body must come at MIN_BYTES_PER_SECOND.
    """

    def __init__(
        self,
        web: Web,
        *,
        bytes_in_flight: int = BYTES_IN_FLIGHT,
        per_host: int = PER_HOST,
        total_seconds: float = TOTAL_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._web, self._per_host = web, per_host
        self._robots = Robots(web, answer_seconds=min(answer_seconds, 8.0))
        self._budget = Budget(bytes_in_flight)
        self._total_seconds, self._answer_seconds = total_seconds, answer_seconds
        self._grace_seconds = grace_seconds
        # The recent ones, and those that are in use.
        self._hosts: WeakValueDictionary[str, Host] = WeakValueDictionary()
        self._recent: deque[Host] = deque(maxlen=MAX_HOSTS)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

    @property
    def bytes_in_flight(self) -> int:
        """How much is spoken for by now."""
        return self._budget.total - self._budget.free

    @asynccontextmanager
    async def fetched(self, image: PostImage) -> AsyncIterator[bytes]:
        """The bytes of a picture, which count as in flight until the block ends.

        Raises:
            FetchFailed: they could not be had.
        """
        held = Held(self._budget)
        try:
            if image.url.startswith("file:"):
                content = await self._from_file(image.url, held)
            else:
                content = await self._from_web(image.url, held)
            held.shrink(len(content))
            if not content:
                raise FetchFailed(Outcome.EMPTY, f"{shown(image.url)} is empty")
            if image.cid and image.cid != cid(content):
                why = f"{shown(image.url)} does not have the content that {image.cid} names"
                raise FetchFailed(Outcome.ALTERED, why)
            yield content
        finally:
            held.shrink(0)

    async def _from_file(self, url: str, held: "Held") -> bytes:
        await held.grow(MAX_BYTES)
        return await asyncio.to_thread(read_file, url)

    async def _from_web(self, text: str, held: "Held") -> bytes:
        with failures_sorted(text):
            url = addresses.check_url(text)
            for _ in range(MAX_REDIRECTS + 1):
                host = self._host(url)
                async with host.slots:  # first, or those who wait for dead hosts held all bytes
                    await held.grow(FIRST_BYTES)
                    found = await self._from_host(url, host, held)
                if isinstance(found, bytes):
                    return found
                held.shrink(0)  # or it might wait for a slot whose holder waits for these bytes
                url = found
        raise FetchFailed(Outcome.REDIRECT_LOOP, f"{shown(text)} redirects too often")

    def _host(self, url: URL) -> "Host":
        name = (url.raw_host or "").rstrip(".")
        host = self._hosts.get(name)
        if host is None:
            slots = asyncio.Semaphore(self._per_host)
            host = self._hosts[name] = Host(slots, Quota(clock=self._web.clock))
            self._recent.append(host)
        return host

    async def _from_host(self, url: URL, host: "Host", held: "Held") -> bytes | URL:
        """The picture, or where its host sends us for it."""
        rules = await self._robots.rules(url)
        if failure := rules.failure:
            if not failure.retryable:
                raise FetchFailed(Outcome.BAD_URL, failure.why)
            outcome = Outcome.ROBOTS if failure.status else Outcome.GONE_FOR_NOW
            raise FetchFailed(outcome, failure.why, retry_seconds=rules.until - self._now())
        if not await self._robots.allowed(url):
            raise FetchFailed(Outcome.ROBOTS, f"{url.host} does not allow {shown(url)}")
        host.quota.pace_seconds = rules.pace_seconds
        if (delay := host.quota.delay()) > PATIENCE_SECONDS:
            why = f"{url.host} is not to be asked for {delay:.0f} s"
            raise FetchFailed(Outcome.LIMITED, why, retry_seconds=delay)
        async with host.quota:
            async with asyncio.timeout(self._answer_seconds):
                response = await self._web.session.get(
                    url,
                    headers=HEADERS,
                    allow_redirects=False,
                    auto_decompress=False,
                    timeout=self._timeout,
                    read_bufsize=BUFFER_BYTES,
                )
            try:
                host.quota.observe(response.status, response.headers)
                if (target := redirect(response)) is not None:
                    return target
                check_answer(response, host.quota.delay())
                content = await self._body(response, held)
                check_content(response, content)
                return content
            finally:
                response.release()  # closes the connection unless all of it was read

    def _now(self) -> float:
        return self._web.clock.monotonic()

    async def _body(self, response: aiohttp.ClientResponse, held: "Held") -> bytes:
        stream, length = response.content, response.content_length
        await held.grow(MAX_BYTES + FIRST_BYTES if length is None else length)
        head = b""
        if length is None or length > BUFFER_BYTES:
            head = stream.read_nowait()  # which lets a host go on that the buffer had stopped
            stream.set_read_chunk_size(MAX_BYTES // 2 + 1)  # so that it stops no more
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not stream.is_eof():
            if error := stream.exception():
                raise error
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await stream.wait_eof()
            except TimeoutError:
                self._check_pace(stream.total_bytes, loop.time() - began)
        body = head + stream.read_nowait() if head else stream.read_nowait()
        if len(body) > MAX_BYTES:
            raise too_large(len(body))
        return body

    def _check_pace(self, size: int, seconds: float) -> None:
        if size > MAX_BYTES:
            raise too_large(size)
        slow = seconds > self._grace_seconds and size < seconds * MIN_BYTES_PER_SECOND
        if slow or seconds > self._total_seconds:
            raise TimeoutError


@dataclass(slots=True, weakref_slot=True)
class Host:
    """What bounds our requests to one host."""

    slots: asyncio.Semaphore
    quota: Quota


class Budget:
    """Bytes that may be in memory at once.

    A picture takes FIRST_BYTES before it is asked for, and the rest once its size is known. So
    that not all hold a part and wait for the rest, one picture's rest is kept free of first parts.
    """

    def __init__(self, total: int) -> None:
        if total < 3 * MAX_BYTES:
            raise ValueError(f"a budget of {total:,} bytes is too small: have {3 * MAX_BYTES:,}")
        self.total = self.free = total
        self._more = asyncio.Event()
        self._lines = {0: asyncio.Lock(), MAX_BYTES + FIRST_BYTES: asyncio.Lock()}

    async def take(self, size: int, spare: int) -> None:
        async with self._lines[spare]:
            while self.free - size < spare:
                self._more.clear()
                await self._more.wait()
            self.free -= size

    def give(self, size: int) -> None:
        self.free += size
        self._more.set()


class Held:
    """What one picture holds of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._size = budget, 0

    async def grow(self, size: int) -> None:
        """Waits until it holds as much."""
        if size > self._size:
            spare = 0 if self._size else MAX_BYTES + FIRST_BYTES
            await self._budget.take(size - self._size, spare)
            self._size = size

    def shrink(self, size: int) -> None:
        self._budget.give(self._size - size)
        self._size = size


def check_answer(response: aiohttp.ClientResponse, delay: float) -> None:
    """Raises FetchFailed unless a picture that we may have follows the answer's headers."""
    status = response.status
    signal = opted_out(response.headers)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if status == 200 and not signal and encoding == "identity":
        if (response.content_length or 0) > MAX_BYTES:
            raise too_large(response.content_length or 0)
        return
    why = f"{shown(response.url)} answered {status}"
    if status in (408, 425, 429) or status >= 500:
        raise FetchFailed(Outcome.GONE_FOR_NOW, why, retry_seconds=delay)
    if status in (400, 404, 410):  # 400 is how Bluesky answers for what was taken down
        raise FetchFailed(Outcome.NOT_FOUND, why)
    if status >= 400:
        raise FetchFailed(Outcome.FORBIDDEN, why)
    if signal:
        raise FetchFailed(Outcome.OPTED_OUT, f"{why} with {signal}")
    if status in (204, 205):
        raise FetchFailed(Outcome.EMPTY, why)
    why = f"{why}, encoded as {encoding!r}: not what was asked for"
    raise FetchFailed(Outcome.WRONG_CONTENT, why)


def check_content(response: aiohttp.ClientResponse, content: bytes) -> None:
    """Raises FetchFailed for a page of text in the place of a picture."""
    kind, told = header.sniff(content), response.content_type
    texts = told.startswith("text/") or told.endswith(("json", "xml", "javascript"))
    if content and (kind in NO_PICTURES or (texts and not kind)):
        raise FetchFailed(Outcome.WRONG_CONTENT, f"{shown(response.url)} is {told}, no picture")


def too_large(size: int) -> FetchFailed:
    """The failure of a picture of so many bytes, or more."""
    return FetchFailed(Outcome.TOO_LARGE, f"{size:,} bytes or more; at most {MAX_BYTES:,}")


@contextmanager
def failures_sorted(url: str) -> Iterator[None]:
    """Turns what goes wrong on the network into FetchFailed."""
    try:
        yield
    except UrlRefused as error:
        raise FetchFailed(Outcome.BAD_URL, str(error)) from None
    except TimeoutError:
        why = f"{shown(url)} is too slow"
        raise FetchFailed(Outcome.TOO_SLOW, why, retry_seconds=0.0) from None
    except aiohttp.ClientPayloadError:
        why = f"{shown(url)} ended before it was complete"
        raise FetchFailed(Outcome.ALTERED, why, retry_seconds=0.0) from None
    except (aiohttp.ClientError, OSError) as error:
        why = f"{shown(url)}: {cause(error)}"
        if is_refused(error) or isinstance(error, aiohttp.InvalidURL):
            raise FetchFailed(Outcome.BAD_URL, why) from None
        raise FetchFailed(Outcome.GONE_FOR_NOW, why, retry_seconds=0.0) from None


def read_file(url: str) -> bytes:
    """What a `file:` URL names, if it is a plain file. Raises FetchFailed."""
    try:
        # Opening must not wait for the other end of a pipe.
        descriptor = os.open(url2pathname(urlsplit(url).path), os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise FetchFailed(Outcome.UNREADABLE_FILE, f"{url} is no plain file")
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise FetchFailed(Outcome.UNREADABLE_FILE, f"{url}: {error}") from None
    if len(content) > MAX_BYTES:
        raise too_large(facts.st_size)
    return content


def cid(content: bytes) -> str:
    """The content identifier that Bluesky gives to a blob of such bytes.

    >>> cid(b"")
    'bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku'
    """
    name = CID_PREFIX + hashlib.sha256(content).digest()
    return "b" + base64.b32encode(name).decode().lower().rstrip("=")
