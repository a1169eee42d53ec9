"""What a live service sent, without whom: recordings that may be kept and replayed as tests.

Only what is on a list gets into a recording as it is: words and fields of the protocols, and
emoji. Names of people, posts and pictures become pseudonyms under a key that nobody keeps, text
becomes its emoji and placeholders, times move together, and everything else goes.
"""

import json
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import aiohttp
import regex
from multidict import CIMultiDict
from yarl import URL

from services.crawler.post import Event
from services.crawler.sources import Plan, Source
from services.crawler.web import Reply, Web, WebFailed
from services.shared import vocabulary
from services.shared.errors import BadSource

EPOCH_US = 1_767_225_600_000_000  # 2026, when every recording begins
SERVICES = ("bsky.network", "bsky.app", "plc.directory", "instagram.com", "127.0.0.1")
MAX_LINES = 5000
_WORDS = """
    commit account identity sync create update delete takendown suspended deleted deactivated
    desynchronized throttled message error blob porn sexual nudity graphic-media !hide !warn bot
    !no-unauthenticated image video carousel image/jpeg image/png image/webp image/gif video/mp4
    ConsumerTooSlow OutdatedCursor FutureCursor CursorTooOld InvalidRequest UnknownZstdDictionary
    APINotFoundError APINotAllowedError OAuthAccessTokenException OAuthRateLimitException
    app.bsky.feed.post app.bsky.feed.like org.user-intents.declaration
    community.lexicon.preference.ai community.lexicon.preference.ai#globalScope
    app.bsky.embed.images app.bsky.embed.gallery app.bsky.embed.gallery#image app.bsky.embed.video
    app.bsky.embed.external app.bsky.embed.record app.bsky.embed.recordWithMedia
    app.bsky.richtext.facet app.bsky.richtext.facet#tag app.bsky.richtext.facet#link
    app.bsky.richtext.facet#mention com.atproto.label.defs#selfLabels
    com.atproto.label.defs#selfLabel com.atproto.sync.subscribeRepos#account
    network.bsky.jetstream.subscribeEvents network.bsky.jetstream.subscribeEvents#commit
    network.bsky.jetstream.subscribeEvents#account network.bsky.jetstream.subscribeEvents#identity
    network.bsky.jetstream.subscribeEvents#sync network.bsky.jetstream.subscribeEvents#info
    com.atproto.sync.getBlob #atproto_pds AtprotoPersonalDataServer self true false
    subscribe xrpc img feed_fullsize plain jpeg v1 tags media recent search
"""
_FIELDS = """
    $type $link did time_us time witnessedAt cursor seq kind commit account identity payload
    message error rev operation collection rkey cid record active status handle text createdAt langs
    facets index byteStart byteEnd features tag uri tags labels values val embed images items media
    image external video alt aspectRatio height width ref mimeType size reply parent root
    preferences scope updatedAt allow bulkDataset syntheticContentGeneration publicAccessArchive
    protocolBridging training embedding inference syntheticContent id alsoKnownAs
    verificationMethod service type serviceEndpoint meta code error_type error_message data
    media_count name pagination next_url next_max_tag_id next_min_tag_id min_tag_id max_tag_id
    deprecation_warning next_max_id caption created_time from user username full_name
    profile_picture comments likes count location latitude longitude filter link low_resolution
    thumbnail standard_resolution low_bandwidth url users_in_photo user_has_liked attribution
    carousel_media videos dids kinds collections wantedCollections wantedDids
    maxMessageSizeBytes
"""
WORDS, FIELDS = frozenset(_WORDS.split()), frozenset(_FIELDS.split())
FREE = frozenset(("text", "alt", "tag", "tags", "handle", "username", "full_name"))  # people's own

_B32 = "abcdefghijklmnopqrstuvwxyz234567"
_DID = re.compile(r"did:(plc|web):[A-Za-z0-9._:%-]+")
_CID = re.compile(r"(baf[a-z2-7]{4})[a-z2-7]{52}(@jpeg)?")
_HEADER = re.compile(r"content-type|retry-after|x?-?rate-?limit-?[a-z-]*", re.IGNORECASE)
_KEY = re.compile(r"[a-z2-7]{13}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_PICTOGRAM = regex.compile(
    r"(?:[\p{Extended_Pictographic}\u200d\ufe0f\U0001f3fb-\U0001f3ff]|[0-9#*]\ufe0f?\u20e3)+"
)


class Redactor:
    """Turns what one recording holds into what may be kept; the same into the same."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._shift_us: int | None = None
        self._first: dict[str, int] = {}

    def value(self, value: Any, field: str = "") -> Any:
        """A JSON value without whom it is about."""
        match value:
            case dict():
                return {
                    key if key in FIELDS else f"{self.text(key)}-{place}": self.value(inner, key)
                    for place, (key, inner) in enumerate(value.items())
                }
            case list():
                return [self.value(inner, field) for inner in value]
            case str():
                return self._string(value, field)
            case bool() | None:
                return value
            case int():
                return self._number(value, field)
            case _:
                return 0.0  # such as where somebody was

    def text(self, text: str) -> str:
        """Text of the same length of which only emoji, `#` and white space are left.

        >>> Redactor().text("Anna's #pizza🍕 @bob!")
        'xxxxxx #xxxxx🍕 xxxxx'
        """
        return "".join(map(self._grapheme, regex.findall(r"\X", text)))

    def url(self, url: str) -> str:
        """An address whose host, names and secrets are gone, unless the host is a service's own."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            return self.text(url)
        known = any(host == name or host.endswith(f".{name}") for name in SERVICES)
        place = parts.netloc.rpartition("@")[2] if known else f"{self._name(host, 12)}.example"
        path = "/".join(quote(self._string(unquote(p)), safe=":@.") for p in parts.path.split("/"))
        query = [(k, self._string(v)) for k, v in parse_qsl(parts.query) if k in FIELDS]
        return f"{parts.scheme}://{place}{path}" + (f"?{urlencode(query)}" if query else "")

    def _string(self, text: str, field: str = "") -> str:
        if not text or (text in WORDS and field not in FREE):
            return text
        if did := _DID.fullmatch(text):
            name = self._name(text, 24)
            return f"did:plc:{name}" if did[1] == "plc" else f"did:web:{name}.example"
        if cid := _CID.fullmatch(text):
            return cid[1] + self._name(text.removesuffix("@jpeg"), 52) + (cid[2] or "")
        if _KEY.fullmatch(text):
            return self._name(text, 13)
        if text.startswith("at://"):
            return "at://" + "/".join(self._string(part) for part in text[5:].split("/"))
        if re.match(r"(https?|wss?)://", text):
            return self.url(text)
        if _TIME.fullmatch(text):
            with suppress(ValueError, OverflowError):
                return self._moment(datetime.fromisoformat(text))
        if re.fullmatch("[0-9_]+", text, re.ASCII):
            return self._digits(text, field)
        return self.text(text)

    def _grapheme(self, grapheme: str) -> str:
        if grapheme in ("#", " ", "\n"):
            return grapheme
        if vocabulary.canonical(grapheme) or _PICTOGRAM.fullmatch(grapheme):
            return grapheme
        return "x" * len(grapheme)

    def _number(self, number: int, field: str) -> int:
        if field in ("seq", "cursor") and 0 < number < 10**15:  # their order is needed
            return 1_000_000 + number - self._first.setdefault(field, number)
        if 10**15 <= number < 10**16:
            return self._moved_us(number)
        return number if 0 <= number < 10_000 else int(self._digits(str(abs(number)), ""))

    def _digits(self, text: str, field: str) -> str:
        if field == "created_time" and len(text) == 10 and "_" not in text:
            return str(self._moved_us(int(text) * 10**6) // 10**6)
        seen = iter(self._digest(text))
        return "".join("_" if c == "_" else str(next(seen, 0) % 9 + 1) for c in text)

    def _moment(self, moment: datetime) -> str:
        start = datetime(1970, 1, 1, tzinfo=UTC)
        moved = start + timedelta(
            microseconds=self._moved_us((moment - start) // timedelta(microseconds=1))
        )
        return moved.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _moved_us(self, time_us: int) -> int:
        if self._shift_us is None:
            self._shift_us = EPOCH_US - time_us
        return time_us + self._shift_us

    def _name(self, text: str, length: int) -> str:
        return "".join(_B32[byte % 32] for byte in self._digest(text)[:length])

    def _digest(self, text: str) -> bytes:
        return blake2b(text.encode(errors="replace"), key=self._secret, digest_size=64).digest()


class Seen(NamedTuple):
    """Something that a server sent: a frame of a websocket, or a reply to a request."""

    url: str
    status: int
    """Zero for a frame."""
    headers: Mapping[str, str]
    body: bytes


class Tapped(Web):
    """A way to the network that shows all that comes along it to somebody."""

    def __init__(self, show: Callable[[Seen], None], **options: Any) -> None:
        super().__init__(**options)
        self._show = show

    async def get(self, url: str | URL, **options: Any) -> Reply:
        reply = await super().get(url, **options)
        self._show(Seen(str(url), *reply))
        return reply

    async def connect(
        self, url: str | URL, **options: Any
    ) -> "aiohttp.ClientWebSocketResponse[bool]":
        socket = await super().connect(url, **options)
        return cast("aiohttp.ClientWebSocketResponse[bool]", _Socket(socket, str(url), self._show))


class _Socket:
    """What sources use of a websocket."""

    def __init__(
        self,
        socket: "aiohttp.ClientWebSocketResponse[bool]",
        url: str,
        show: Callable[[Seen], None],
    ) -> None:
        self._socket, self._url, self._show = socket, url, show
        self.close = socket.close

    async def receive(self, timeout: float | None = None) -> Any:
        message = await self._socket.receive(timeout)
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            body = message.data.encode() if isinstance(message.data, str) else message.data
            self._show(Seen(self._url, 0, {}, body))
        return message


class Recorder:
    """Writes what it is shown into a file, one thing a line, redacted; up to MAX_LINES."""

    def __init__(self, path: Path) -> None:
        self._file, self._redactor, self._lines = path.open("w", encoding="utf-8"), Redactor(), 0

    def show(self, seen: Seen) -> None:
        if self._lines == MAX_LINES:
            return
        self._lines += 1
        try:
            body = self._redactor.value(json.loads(seen.body))
        except (ValueError, RecursionError):  # pictures, and what is malformed: only its length
            body = len(seen.body)
        line: dict[str, Any] = {"body": body}
        if seen.status:
            headers = {k.lower(): v for k, v in seen.headers.items() if _HEADER.fullmatch(k)}
            line |= {"url": self._redactor.url(seen.url), "status": seen.status, "headers": headers}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class Replayed(Web):
    """A recording in the place of the network."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ended = False
        self._frames: list[str] = []
        self._replies: defaultdict[str, list[Reply]] = defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            seen = json.loads(line)
            body = json.dumps(seen["body"], ensure_ascii=False)
            if "url" in seen:
                headers = CIMultiDict(seen["headers"])
                reply = Reply(seen["status"], headers, body.encode())
                self._replies[_place(seen["url"])].append(reply)
            else:
                self._frames.append(body)

    async def get(self, url: str | URL, **_: Any) -> Reply:
        replies = self._replies[_place(str(url))]
        if not replies:
            self.ended = True
            raise WebFailed(404, "the recording has no more", retryable=False)
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async def connect(self, url: str | URL, **_: Any) -> "aiohttp.ClientWebSocketResponse[bool]":
        if self.ended:
            raise WebFailed(None, "the recording has ended", retryable=False)
        self._left = iter(self._frames)
        return cast("aiohttp.ClientWebSocketResponse[bool]", self)

    async def receive(self, timeout: float | None = None) -> aiohttp.WSMessage:
        if (frame := next(self._left, None)) is not None:
            return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, frame, None)
        self.ended = True
        return aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)

    async def close(self) -> None:
        """As of a websocket."""


async def replay(path: Path, make: Callable[[Web], Source], plan: Plan) -> list[Event]:
    """What a source tells of a recording, offline."""
    web, events = Replayed(path), list[Event]()
    try:
        async for page in make(web).pages("", plan):
            events += page.events
    except BadSource:
        if not web.ended:
            raise
    return events


def _place(url: str) -> str:
    """What of an address a recording and its replay have in common."""
    parts = urlsplit(url)
    query = sorted((k, v) for k, v in parse_qsl(parts.query) if k in FIELDS)
    return f"{unquote(parts.path)}?{urlencode(query)}"
