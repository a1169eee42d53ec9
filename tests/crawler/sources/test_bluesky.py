import asyncio
import ipaddress
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Event, Flag, Malformed, OptOut, Page, Post, PostImage, Removal
from services.crawler.sources import Plan, frames
from services.crawler.sources.bluesky import BlueskySource, endpoint, meanings
from services.crawler.web import Web
from services.shared.errors import MalformedRequest
from tests.standin.events import cid
from tests.standin.standin import Standin
from tests.standin.world import World

pytestmark = pytest.mark.system

DID = "did:plc:6aw7u7xjbaiznddugigmdhvc"
CID = "bafkreicwsq23gkygrgpijv7ocssxdyjokfv3quss3f2dg4csds3jpeqkwe"
URI = f"at://{DID}/app.bsky.feed.post/3mptbxs3hq22j"
URL = f"https://cdn/img/feed_fullsize/plain/{DID}/{CID}@jpeg"
TIME_US = 1783175888373482
BLOB = {"$type": "blob", "ref": {"$link": CID}, "mimeType": "image/jpeg", "size": 1997139}
IMAGE = {"alt": "", "aspectRatio": {"height": 3011, "width": 4000}, "image": BLOB}
IMAGES = {"$type": "app.bsky.embed.images", "images": [IMAGE]}
RECORD: dict[str, Any] = {
    "$type": "app.bsky.feed.post",
    "createdAt": "2026-07-04T14:37:36.557Z",
    "langs": ["en"],
    "text": "dinner #🍕",
    "labels": {"$type": "com.atproto.label.defs#selfLabels", "values": []},
    "embed": IMAGES,
}
DECLARATION, PREFERENCE = "org.user-intents.declaration", "community.lexicon.preference.ai"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
NO = {"allow": False, "updatedAt": "2026-01-01T00:00:00.000Z"}
YES = NO | {"allow": True}


def test_a_post_says_all_that_a_crawl_needs() -> None:
    (post,) = _told(_commit(RECORD))

    assert post == Post(
        uri=URI,
        text="dinner #🍕",
        images=[PostImage(URL)],
        author=DID,
        time_seconds=1783175856.557,
    )


@pytest.mark.parametrize(
    "embed",
    [
        IMAGES,
        {"$type": "app.bsky.embed.gallery", "items": [IMAGE]},
        {"$type": "app.bsky.embed.gallery", "media": [IMAGE, {"$type": "x#video"}]},
        {"$type": "app.bsky.embed.recordWithMedia", "record": {}, "media": IMAGES},
    ],
)
def test_pictures_are_found_in_every_embed_that_has_some(embed: object) -> None:
    (post,) = _told(_commit(RECORD | {"embed": embed}))

    assert _post(post).images == [PostImage(URL)]


@pytest.mark.parametrize(
    "embed",
    [
        None,
        {"$type": "app.bsky.embed.external", "external": {"thumb": BLOB}},
        {"$type": "app.bsky.embed.video", "video": BLOB},
        {"$type": "app.bsky.embed.record", "record": {"images": [IMAGE]}},
        {"$type": "app.bsky.embed.recordWithMedia", "media": {"$type": "app.bsky.embed.external"}},
        {"$type": "com.example.unheard-of"},
    ],
)
def test_other_embeds_are_no_pictures(embed: object) -> None:
    (post,) = _told(_commit(RECORD | {"embed": embed}))

    assert _post(post).images == []


@pytest.mark.parametrize("link", ["", "../../etc", CID + "/..", "bafybei" + CID[7:], 5, None])
def test_a_picture_without_a_valid_cid_is_malformed(link: object) -> None:
    record = deepcopy(RECORD)
    record["embed"]["images"][0]["image"]["ref"]["$link"] = link

    (told,) = _told(_commit(record))

    assert told == Malformed(URI, "its 1 pictures have no valid CID")


@pytest.mark.parametrize(
    ("label", "flags"),
    [
        ("porn", {Flag.SENSITIVE}),
        ("graphic-media", {Flag.SENSITIVE}),
        ("!warn", {Flag.SENSITIVE}),
        ("bot", {Flag.SENSITIVE}),
        ("!no-unauthenticated", {Flag.OPTED_OUT}),
        ("unheard-of", set()),
    ],
)
def test_what_authors_say_of_their_posts_is_told(label: str, flags: set[Flag]) -> None:
    (post,) = _told(_commit(RECORD | {"labels": {"values": [5, {"val": label}]}}))

    assert _post(post).flags == flags


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("2012-07-04T14:37:36Z", 1341412656),  # imported from elsewhere
        ("2012-07-04T14:37:36", 1341412656),
        ("1970-01-01T00:00:00Z", TIME_US / 1e6),
        ("2926-07-04T14:37:36Z", TIME_US / 1e6),
        ("yesterday", TIME_US / 1e6),
        (None, TIME_US / 1e6),
    ],
)
def test_a_time_that_cannot_be_is_replaced_by_that_of_the_event(
    created: object, seconds: float
) -> None:
    (post,) = _told(_commit(RECORD | {"createdAt": created}))

    assert _post(post).time_seconds == seconds


def test_half_characters_become_storable() -> None:
    (post,) = _told(_commit(RECORD | {"text": "\ud83c 🍕"}))

    assert _post(post).text == "? 🍕"


@pytest.mark.parametrize("text", [None, 5, "x" * 3001])
def test_a_post_without_a_text_that_may_be_is_malformed(text: object) -> None:
    (told,) = _told(_commit(RECORD | {"text": text}))

    assert isinstance(told, Malformed)


def test_deletions_remove_and_edits_remove_and_bring_anew() -> None:
    assert _told(_commit({}, "delete")) == [Removal(URI)]
    assert _told(_commit(RECORD, "update")) == [
        Removal(URI, for_good=False),
        *_told(_commit(RECORD)),
    ]


@pytest.mark.parametrize("status", ["takendown", "suspended", "deleted", "deactivated", ""])
def test_who_leaves_is_removed(status: str) -> None:
    assert _told(_account(False, status)) == [Removal(author=DID)]


def test_who_is_back_or_only_slow_is_not_removed() -> None:
    assert _told(_account(True, "")) == []
    assert _told(_account(False, "throttled")) == []
    assert _told(_account(False, "desynchronized")) == []


@pytest.mark.parametrize(
    ("collection", "record", "events"),
    [
        (DECLARATION, {"bulkDataset": NO}, [OptOut(DID)]),
        (DECLARATION, {"bulkDataset": YES, "syntheticContentGeneration": NO}, [OptOut(DID)]),
        (DECLARATION, {"bulkDataset": YES}, [OptOut(DID, allow=True)]),
        (DECLARATION, {"protocolBridging": NO}, []),
        (DECLARATION, {"syntheticContentGeneration": YES}, []),
        (DECLARATION, {"bulkDataset": {"allow": None}}, []),
        (PREFERENCE, {"preferences": {"training": NO}}, [OptOut(DID)]),
        (PREFERENCE, {"preferences": {"training": YES}}, [OptOut(DID, allow=True)]),
        (PREFERENCE, {"preferences": {"inference": NO}}, []),
        (PREFERENCE, {"preferences": 5}, []),
    ],
)
def test_what_authors_want_with_their_data_is_told(
    collection: str, record: object, events: list[Event]
) -> None:
    assert _told(_commit(record, "update", collection)) == events


def test_a_withdrawn_declaration_is_no_consent() -> None:
    assert _told(_commit({}, "delete", DECLARATION)) == []


@st.composite
def bent(draw: st.DrawFn) -> object:
    """A commit with one value of its record or envelope replaced by another."""
    frame = deepcopy(_frame(RECORD, draw(st.sampled_from(["create", "update"]))))
    node: Any = frame
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or draw(st.integers(0, 4)) == 0:
            node[key] = draw(JSON)
            return frame
        node = node[key]


@settings(max_examples=500)
@given(bent())
def test_no_record_makes_anything_but_well_formed_events(frame: object) -> None:
    try:
        message = frames.parse(json.dumps(frame))
    except ValueError:
        return
    if message is None or isinstance(message, frames.Notice):
        return
    for event in meanings(message, cdn="https://cdn", originals=False):
        if isinstance(event, Post):
            event.text.encode()
            assert re.fullmatch(rf"at://{frames.DID.pattern}/[a-z.]+/[\w.:~-]+", event.uri)
            for image in event.images:
                assert re.fullmatch(
                    r"https://cdn/img/[a-z_]+/plain/did:[\w.:-]+/\w+@jpeg", image.url
                )


def test_a_malformed_url_is_the_callers_fault() -> None:
    with pytest.raises(MalformedRequest, match="cdn_url"):
        BlueskySource(pb.BlueskySource(cdn_url="ftp://x"), Web())
    with pytest.raises(MalformedRequest, match="directory_url"):
        BlueskySource(pb.BlueskySource(directory_url="https://"), Web())


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"id": "did:plc:somebodyelse"},
        {"id": DID, "service": 5},
        {"id": DID, "service": [{"id": "#atproto_pds", "serviceEndpoint": "https://h/path?x"}]},
        {"id": DID, "service": [{"id": "#atproto_pds", "serviceEndpoint": "https://user@h"}]},
        {"id": DID, "service": [{"id": "#other", "serviceEndpoint": "https://h"}]},
    ],
)
def test_a_document_without_a_server_is_none(document: object) -> None:
    with pytest.raises(ValueError, match="document"):
        endpoint(document, DID)


async def test_a_crawl_gets_every_post_of_the_network_once() -> None:
    async with _standin(posts=120, disconnect_every=50) as (standin, web):
        events = await _events(standin, web, seconds=6)
        posts = [event for event in events if isinstance(event, Post)]
        truth = {standin.world.uri(p): p for p in standin.truth() if standin.events.created(p)}

    assert len({post.uri for post in posts}) == len(posts)
    found = {post.uri: post for post in posts if post.uri in truth}
    assert found.keys() == truth.keys()
    for uri, post in truth.items():
        assert found[uri].text == post.text
        assert len(found[uri].images) == (0 if post.kind == "video" else len(post.images))
        assert bool(found[uri].flags) == bool(post.sensitive)


@pytest.mark.parametrize("originals", [False, True])
async def test_a_deletion_is_told_well_within_a_second(originals: bool) -> None:
    async with _standin(posts=20) as (standin, web):
        source = _source(standin, web, originals=originals, cursor="")
        post = next(iter(standin.truth()))
        async with asyncio.timeout(5), aclosing(source.pages("", _plan())) as pages:
            waiting = asyncio.create_task(anext(pages))
            while not standin.jetstream.connections:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await standin.emit(standin.events.deletion(post))
            page = await waiting

    assert isinstance(page, Page)
    assert [type(event) for event in page.events] == [Removal]
    assert time.monotonic() - began < 0.8


async def test_originals_are_those_of_their_cid() -> None:
    async with _standin(posts=40) as (standin, web):
        events = await _events(standin, web, seconds=3, originals=True)
        images = [image for e in events if isinstance(e, Post) for image in e.images]
        blobs = [image for image in images if "getBlob" in image.url][:5]
        replies = [await web.get(image.url) for image in blobs]

    assert len(blobs) == 5
    assert [cid(reply.body) for reply in replies] == [image.cid for image in blobs]


async def test_only_posts_that_are_wanted_cost_a_lookup_and_each_author_one() -> None:
    async with _standin(posts=40) as (standin, web):
        await _events(standin, web, seconds=2, originals=True, wanted=False)
        unwanted = standin.stats.kinds["plc"]
        await _events(standin, web, seconds=2, originals=True)

    assert unwanted == 0
    assert 0 < standin.stats.kinds["plc"] <= 40


async def test_a_post_whose_author_the_directory_does_not_know_is_malformed() -> None:
    async with _standin(posts=10) as (standin, web):
        event = standin.events.creation(next(p for p in standin.truth() if p.emoji and p.images))
        event["did"] = DID
        source = _source(standin, web, originals=True, cursor="")
        async with asyncio.timeout(5), aclosing(source.pages("", _plan())) as pages:
            waiting = asyncio.create_task(anext(pages))
            while not standin.jetstream.connections:
                await asyncio.sleep(0.01)
            await standin.emit(event)
            page = await waiting

    (told,) = page.events
    assert isinstance(told, Malformed)
    assert "answered 404" in told.why


def _frame(
    record: object, operation: str, collection: str = "app.bsky.feed.post"
) -> dict[str, Any]:
    commit = {"rev": "3mptbyplwma2l", "operation": operation, "collection": collection}
    commit |= {"rkey": "3mptbxs3hq22j"}
    return {
        "did": DID,
        "time_us": TIME_US,
        "kind": "commit",
        "commit": commit | ({"record": record} if operation != "delete" else {}),
    }


def _commit(
    record: object, operation: str = "create", collection: str = "app.bsky.feed.post"
) -> dict[str, Any]:
    return _frame(record, operation, collection)


def _account(active: bool, status: str) -> dict[str, Any]:
    account = {"active": active, "did": DID, "status": status}
    return {"did": DID, "time_us": TIME_US, "kind": "account", "account": account}


def _told(frame: dict[str, Any]) -> list[Event]:
    message = frames.parse(json.dumps(frame))
    assert isinstance(message, frames.Commit | frames.Account)
    return list(meanings(message, cdn="https://cdn", originals=False))


def _post(event: Event) -> Post:
    assert isinstance(event, Post)
    return event


def _plan(wanted: bool = True) -> Plan:
    return Plan(emoji=[], wanted=lambda _: wanted)


def _source(standin: Standin, web: Web, *, originals: bool, cursor: str) -> BlueskySource:
    spec = pb.BlueskySource(
        jetstream_url=standin.base_url.replace("http", "ws", 1),
        cdn_url=standin.base_url,
        directory_url=standin.base_url,
        originals=originals,
        cursor=cursor,
    )
    return BlueskySource(spec, web)


async def _events(
    standin: Standin, web: Web, *, seconds: float, originals: bool = False, wanted: bool = True
) -> list[Event]:
    events: list[Event] = []
    source = _source(standin, web, originals=originals, cursor="1")
    try:
        async with asyncio.timeout(seconds), aclosing(source.pages("", _plan(wanted))) as pages:
            async for page in pages:
                events += page.events
    except TimeoutError:
        pass
    return events


@asynccontextmanager
async def _standin(posts: int, disconnect_every: int = 0) -> AsyncIterator[tuple[Standin, Web]]:
    world = World(seed=4, posts=posts, edge_px=64)
    loopback = [ipaddress.ip_network("127.0.0.0/8")]
    async with (
        Standin(world, hosts=2, disconnect_every=disconnect_every) as standin,
        Web(allow=loopback) as web,
    ):
        yield standin, web
