"""Bluesky: what the records of its stream mean to a crawl.

The stream is a live take-down feed, too: deletions, accounts that leave, and what people say about
the use of their data come in it. Records are what strangers wrote: nothing of them goes into a URL
unless it has exactly the form of a DID, a key or a CID.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from reprlib import repr as excerpt
from typing import Any

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.keep import mentioned
from services.crawler.post import (
    Event,
    Flag,
    Malformed,
    OptOut,
    Page,
    Post,
    PostImage,
    Removal,
)
from services.crawler.sources import Plan
from services.crawler.sources.frames import Account, Commit, microseconds
from services.crawler.sources.jetstream import Jetstream, Message, Window
from services.crawler.web import Web, WebFailed
from services.shared.errors import MalformedRequest

JETSTREAM = "wss://jetstream2.us-east.bsky.network"
CDN, DIRECTORY = "https://cdn.bsky.app", "https://plc.directory"
POST = "app.bsky.feed.post"
INTENTS = {  # collection -> what is about us; the first must be allowed for us to be
    "org.user-intents.declaration": ("bulkDataset", "syntheticContentGeneration"),
    "community.lexicon.preference.ai": ("training", "embedding", "syntheticContent"),
}
SENSITIVE = frozenset(("porn", "sexual", "nudity", "graphic-media", "!hide", "!warn", "bot"))
MEMBERS_ONLY = "!no-unauthenticated"
TEMPORARY = ("desynchronized", "throttled")  # of accounts that are not active, but will be
MAX_TEXT, MAX_IMAGES = 3000, 20  # by the lexicon
FIRST_US = 1_104_537_600_000_000  # 2005: people import what they posted elsewhere
DAY_US = 86_400_000_000
MAX_SERVERS = 50_000  # of authors, remembered
LOOKUP_SECONDS, MAX_DOCUMENT = 10.0, 1 << 18

_CID = re.compile(r"bafkrei[a-z2-7]{52}")  # raw bytes by SHA-256, as all blobs
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/?")


class BlueskySource:
    """The live stream, from a cursor or from now.

    Args:
        dictionary: of zstandard, to have the stream compressed with: of version 1 it is
            `zstd_dictionary` in Jetstream's repository, of version 2 what the server gives at
            `/xrpc/network.bsky.jetstream.getZstdDictionary`.

    Raises:
        MalformedRequest: a URL or the cursor is none.
    """

    def __init__(self, spec: pb.BlueskySource, web: Web, *, dictionary: bytes = b"") -> None:
        self._web, self._originals = web, spec.originals
        self._cdn = _base("cdn_url", spec.cdn_url or CDN)
        self._directory = _base("directory_url", spec.directory_url or DIRECTORY)
        self._stream = Jetstream(
            web,
            spec.jetstream_url or JETSTREAM,
            (POST, *INTENTS),
            begin=spec.cursor,
            dictionary=dictionary,
        )
        self._meanings = partial(meanings, cdn=self._cdn, originals=spec.originals)
        self._servers: dict[str, str] = {}

    async def pages(self, cursor: str, plan: Plan) -> AsyncGenerator[Page, None]:
        window = Window.load(cursor)
        async with aclosing(self._stream.batches(window)) as batches:
            async for batch in batches:
                events = [event for message in batch for event in self._meanings(message)]
                if self._originals:
                    # Take-downs do not wait for lookups. They come once more in their place.
                    if urgent := [e for e in events if isinstance(e, Removal | OptOut)]:
                        yield Page(urgent, cursor)
                    events = await asyncio.gather(*(self._original(e, plan) for e in events))
                cursor = window.dump()
                yield Page(events, cursor)

    async def _original(self, event: Event, plan: Plan) -> Event:
        """The post with its pictures' addresses on its author's server."""
        # Most posts are rejected whatever their pictures: those cost no lookup, and keep addresses
        # whose bytes are not those of the CID.
        if not isinstance(event, Post) or not event.images:
            return event
        if not any(plan.wanted(mention.emoji) for mention in mentioned(event)):
            return event
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                server = await self._server(event.author)
        except (TimeoutError, ValueError, WebFailed) as error:
            why = f"its author's server is unknown: {error or 'no answer in time'}"
            return Malformed(event.uri, why)
        blob = f"{server}/xrpc/com.atproto.sync.getBlob?did={event.author}&cid="
        return replace(event, images=[PostImage(blob + cid, cid) for _, cid in event.images])

    async def _server(self, did: str) -> str:
        """Raises WebFailed, or ValueError for a document that names none."""
        if did not in self._servers:
            if did.startswith("did:web:"):
                url = f"https://{did.removeprefix('did:web:')}/.well-known/did.json"
                reply = await self._web.get(url, max_bytes=MAX_DOCUMENT)
            else:
                url, quota = f"{self._directory}/{did}", self._web.quota(self._directory)
                reply = await self._web.get(url, quota=quota, max_bytes=MAX_DOCUMENT)
            if reply.status != 200:
                raise ValueError(f"{url} answered {reply.status}")
            while len(self._servers) >= MAX_SERVERS:
                del self._servers[next(iter(self._servers))]
            self._servers[did] = endpoint(reply.json(), did)
        return self._servers[did]


def _base(field: str, url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(?:/[^?#\s]*)?", url):
        raise MalformedRequest(f"{field} is {excerpt(url)}, not such as https://host", field=field)
    return url.rstrip("/")


def endpoint(document: object, did: str) -> str:
    """The address of an author's server, by their DID document.

    Raises:
        ValueError: it is not their document, or has no such address.
    """
    if not isinstance(document, dict) or document.get("id") != did:
        raise ValueError("the document is not theirs")
    for service in _list(document.get("service")):
        if isinstance(service, dict) and str(service.get("id")).endswith("#atproto_pds"):
            url = service.get("serviceEndpoint")
            if isinstance(url, str) and _ORIGIN.fullmatch(url):
                return url.rstrip("/")
    raise ValueError("the document names no server")


def meanings(message: Message, *, cdn: str, originals: bool) -> Iterator[Event]:
    """What a message of the stream is to a crawl."""
    match message:
        case Malformed():
            yield message
        case Account(_, _, did, active, status):
            if not active and status not in TEMPORARY:
                yield Removal(author=did)
        case Commit(collection=collection) if collection in INTENTS:
            # Who withdraws a declaration has not said yes: only an explicit yes undoes a no.
            if (allow := _intent(message.record, INTENTS[collection])) is not None:
                yield OptOut(message.did, allow)
        case Commit(collection=collection) if collection == POST:
            uri = f"at://{message.did}/{POST}/{message.rkey}"
            if message.operation != "create":  # an edited post is forgotten, then taken anew
                yield Removal(uri, for_good=message.operation == "delete")
            if message.operation != "delete":
                yield _post(uri, message, cdn, originals)


def _intent(record: dict[str, Any], names: tuple[str, ...]) -> bool | None:
    wills = record.get("preferences", record)
    if not isinstance(wills, dict):
        return None
    given = [will.get("allow") if isinstance(will := wills.get(n), dict) else None for n in names]
    return False if False in given else True if given[0] is True else None


def _post(uri: str, commit: Commit, cdn: str, originals: bool) -> Post | Malformed:
    record = commit.record
    if not isinstance(text := record.get("text"), str):
        return Malformed(uri, f"its text is {excerpt(text)}")
    if len(text) > MAX_TEXT:
        return Malformed(uri, f"its text has {len(text)} characters, more than {MAX_TEXT}")
    if not text.isascii():  # JSON may hold halves of characters, which nothing could store
        text = text.encode(errors="replace").decode()
    cids: list[str] = []
    if embed := record.get("embed"):
        found = pictures(embed)
        cids = [cid for picture in found[:MAX_IMAGES] if (cid := cid_of(picture))]
        if found and not cids:
            return Malformed(uri, f"its {len(found)} pictures have no valid CID")
    place = f"{cdn}/img/feed_fullsize/plain/{commit.did}/"
    return Post(
        uri=uri,
        text=text,
        images=[PostImage(f"{place}{cid}@jpeg", cid if originals else "") for cid in cids],
        author=commit.did,
        time_seconds=_time_us(record.get("createdAt"), commit.time_us) / 1e6,
        flags=_flags(record.get("labels")) if "labels" in record else frozenset(),
    )


def pictures(embed: object) -> list[Any]:
    """The entries of an embed, of whatever kind, that should each be a picture."""
    if not isinstance(embed, dict):
        return []
    if embed.get("$type") == "app.bsky.embed.recordWithMedia":
        embed = embed.get("media")
        if not isinstance(embed, dict):
            return []
    match embed.get("$type"):
        case "app.bsky.embed.images":
            return _list(embed.get("images"))
        case "app.bsky.embed.gallery":  # its lexicon has said `media`, too
            items = _list(embed.get("items")) or _list(embed.get("media"))
            return [item for item in items if isinstance(item, dict) and "image" in item]
    return []


def cid_of(picture: object) -> str | None:
    """The CID of a picture's bytes; None if there is none, or a malformed one."""
    value = picture
    for key in ("image", "ref", "$link"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) and _CID.fullmatch(value) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _flags(labels: object) -> frozenset[Flag]:
    values = _list(labels.get("values")) if isinstance(labels, dict) else []
    given = {str(value.get("val")) for value in values if isinstance(value, dict)}
    flags = {Flag.SENSITIVE} if given & SENSITIVE else set()
    return frozenset(flags | ({Flag.OPTED_OUT} if MEMBERS_ONLY in given else set()))


def _time_us(created: object, seen_us: int) -> int:
    """When its author says it was made, if that may be."""
    claimed_us = microseconds(created)
    return claimed_us if claimed_us and FIRST_US < claimed_us < seen_us + DAY_US else seen_us
