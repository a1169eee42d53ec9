import asyncio
import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from typing import Any

import aiohttp
import numpy as np
import pdqhash  # type: ignore[import-untyped]
import pytest
import zstandard
from PIL import Image as Pillow

from services.shared import vocabulary
from tests.standin import events, robots
from tests.standin.child import Child
from tests.standin.clock import Clock
from tests.standin.misbehaviours import TABLE, Ends
from tests.standin.pictures import Pictures
from tests.standin.standin import Standin
from tests.standin.truth import wanted
from tests.standin.world import Post, World

pytestmark = pytest.mark.system

SMALL = World(seed=1, posts=600, emoji=30, edge_px=64)
FIRST = "/subscribe?wantedCollections=app.bsky.feed.post"
SECOND = "/xrpc/network.bsky.jetstream.subscribeEvents"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def pages(client: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    """All pages from here on, as a crawler follows them."""
    found: list[dict[str, Any]] = []
    while url:
        async with client.get(url) as response:
            found.append(await response.json())
        url = found[-1]["pagination"].get("next_url", "")
    return found


END = {"did": "did:plc:end", "kind": "account", "account": {"did": "did:plc:end", "active": True}}
END_COMMIT = {
    "did": "did:plc:end",
    "kind": "commit",
    "commit": {"operation": "delete", "collection": events.POST, "rkey": "end"},
}


async def received(
    standin: Standin, socket: aiohttp.ClientWebSocketResponse, end: events.Event = END
) -> list[Any]:
    """All events up to one that marks the end, or until the connection breaks."""
    last = await standin.emit(end)
    found: list[Any] = []
    while True:
        message = await asyncio.wait_for(socket.receive(), 20)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return found
        event = json.loads(message.data)
        body = event.get("payload", event)
        if body.get("cursor", body.get("seq")) == last:
            return found
        if body.get("did") != "did:plc:end":
            found.append(event)


# --- the world ---


def test_the_truth_agrees_with_our_reading_of_twenty_thousand_captions() -> None:
    for post in World(seed=5, posts=20_000).truth():
        tags = vocabulary.hashtags(post.text)
        assert [hashtag.content for hashtag in post.hashtags] == tags, post.text
        in_tags = [emoji for tag in tags for emoji in vocabulary.find(tag, hashtag=True)]
        assert in_tags == [m.emoji for m in post.mentions if m.hashtag], post.text
        counted = [m.emoji for m in post.mentions if not m.bare]
        assert vocabulary.find(post.text) == counted, post.text


def test_a_post_depends_on_seed_and_number_alone() -> None:
    large, again = World(seed=2, posts=1_000_000), World(seed=2, posts=1_000_000)
    numbers = range(0, 1_000_000, 9973)
    assert [large.post(n) for n in numbers] == [again.post(n) for n in reversed(numbers)][::-1]
    assert large.post(77) != World(seed=3, posts=1_000_000).post(77)


def test_every_post_is_listed_under_the_emoji_it_is_tagged_with() -> None:
    listed: dict[int, set[str]] = {}
    for emoji in SMALL.order:
        tag = SMALL.tag(emoji)
        assert tag is not None
        for place in range(len(tag)):
            listed.setdefault(tag.post_number(place), set()).add(emoji.replace("\ufe0f", ""))
            assert tag.place_after(tag.tag_id(place)) == place + 1
    inventory = {emoji.replace("\ufe0f", "") for emoji in SMALL.order}
    for post in SMALL.truth():
        assert listed[post.number] == {tag.replace("\ufe0f", "") for tag in post.tags} & inventory


def test_emoji_are_used_by_zipfs_law() -> None:
    world = World(posts=100_000)
    heart, mailbox = world.tag("❤"), world.tag("📭")
    assert heart
    assert mailbox
    assert len(heart) > 100 * len(mailbox) > 0
    assert len(world.order) == 845


def test_the_captions_have_every_trap() -> None:
    posts = list(World(seed=1, posts=5_000).truth())
    text = "\n".join(post.text for post in posts)
    for trap in ("\ufe0e", "\u200d", "🏽", "©", "#️⃣", "1️⃣", "🇧🇷", "🇯🇵🇰🇷", "#👩‍🚀", "🦀", "@"):
        assert trap in text, trap
    assert any(post.caption is None for post in posts)
    assert any(len(post.hashtags) > 5 for post in posts)
    assert any(post.comment and not post.emoji for post in posts)
    assert any(m.bare and m.hashtag for post in posts for m in post.mentions)
    assert 0.6 < sum(post.keeps() for post in posts) / len(posts) < 0.95


def test_authors_can_be_found_by_did_and_by_post() -> None:
    world = World(seed=1, posts=5_000)
    for number in (0, 1, 250, world.author_count - 1):
        author = world.author(number)
        assert world.author_by_did(author.did) == author
        expected = [n for n in range(world.posts) if world.author_of(n) == number]
        assert sorted(world.posts_of(number)) == expected
    assert world.author_by_did("did:plc:" + "a" * 24) is None
    assert world.author_by_did("did:web:example.com") is None


def test_a_million_posts_are_no_burden() -> None:
    world = World(posts=1_075_376)
    start = time.process_time()
    for number in range(0, 1_075_376, 1_000):
        world.post(number)
    assert time.process_time() - start < 1.0  # 1,076 posts; measured 0.06


def test_pictures_differ_and_duplicates_do_not() -> None:
    world = World(posts=400, edge_px=240)
    pictures = Pictures(world)
    images = [image for post in world.truth() for image in post.images][:160]
    hashes = np.array([pdq(pictures.of(image)) for image in images])
    roots = np.array([image.root for image in images])
    apart = (hashes[:, None] != hashes[None]).sum(-1)
    assert apart[roots[:, None] != roots[None]].min() > 60
    for image, its in zip(images, hashes, strict=True):
        with Pillow.open(BytesIO(pictures.of(image))) as picture:
            assert picture.size == (image.width, image.height)
        if image.variant == "same":
            assert pictures.of(image) == pictures.of(world.image(image.root))
        elif image.variant in ("quality", "scale"):
            assert (its != pdq(pictures.of(world.image(image.root)))).sum() <= 31


def test_pictures_are_the_same_again() -> None:
    images = [SMALL.image(n) for n in (0, 4, 400)]
    assert [Pictures(SMALL).of(i) for i in images] == [Pictures(SMALL).of(i) for i in images]
    banked = Pictures(SMALL, bank=2)
    assert len({banked.of(SMALL.image(n)) for n in range(0, 80, 4) if SMALL.image(n).root == n}) > 5


def pdq(content: bytes) -> Any:
    with Pillow.open(BytesIO(content)) as picture:
        return pdqhash.compute(np.asarray(picture.convert("RGB")))[0]


# --- Instagram ---


async def test_a_tags_pages_hold_its_posts_with_all_documented_fields(
    client: aiohttp.ClientSession,
) -> None:
    async with Standin(SMALL) as standin:
        tag = SMALL.tag("❤️")
        assert tag
        url = standin.base_url + "/v1/tags/%E2%9D%A4%EF%B8%8F"
        async with client.get(url, params={"access_token": "T"}) as response:
            assert response.headers["X-Ratelimit-Limit"] == "5000"
            assert response.headers["X-Ratelimit-Remaining"] == "4999"
            assert await response.json() == {
                "meta": {"code": 200},
                "data": {"media_count": len(tag), "name": "❤️"},
            }
        all_pages = await pages(client, url + "/media/recent?access_token=T")
    media = [m for page in all_pages for m in page["data"]]
    expected = [tag.post_number(place) for place in range(len(tag))]
    numbers = [int(m["id"].split("_")[0]) - 471425689728724453 for m in media]
    assert list(dict.fromkeys(numbers)) == list(dict.fromkeys(expected))
    assert len(numbers) > len(expected), "no post came twice"
    assert all_pages[-1] == {"pagination": {}, "meta": {"code": 200}, "data": []}
    first = all_pages[0]["pagination"]
    assert first.keys() == {
        "next_max_tag_id", "next_max_id", "deprecation_warning", "next_min_id", "min_tag_id",
        "next_url",
    }  # fmt: skip
    for number, entry in zip(numbers, media, strict=True):
        check_media(SMALL.post(number), entry)


def check_media(post: Post, entry: dict[str, Any]) -> None:
    """Every field that the documentation showed, with the truth in it."""
    fields = {
        "attribution", "type", "filter", "tags", "location", "comments", "created_time", "link",
        "likes", "images", "users_in_photo", "caption", "user_has_liked", "id", "user",
    }  # fmt: skip
    assert entry.keys() == fields | ({"videos"} if post.kind == "video" else set())
    assert entry["type"] == post.kind
    assert entry["tags"] == list(post.tags)
    assert entry["created_time"] == str(int(post.time))
    assert (entry["caption"] or {"text": ""})["text"] == post.text
    assert (entry["caption"] is None) == (post.caption is None)
    assert entry["images"].keys() == {"low_resolution", "thumbnail", "standard_resolution"}
    largest = entry["images"]["standard_resolution"]
    assert (largest["width"], largest["height"]) == (post.images[0].width, post.images[0].height)


async def test_newer_posts_are_found_by_min_tag_id(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL, hidden=0.3, overlap=0) as standin:
        url = standin.base_url + "/v1/tags/😂/media/recent?access_token=T&count=10"
        before = await pages(client, url)
        newest = before[0]["pagination"]["min_tag_id"]
        assert not (await pages(client, f"{url}&min_tag_id={newest}"))[0]["data"]
        standin.instagram.reveal()
        after = await pages(client, f"{url}&min_tag_id={newest}")
    tag = SMALL.tag("😂")
    assert tag
    shown = [[m["id"] for page in each for m in page["data"]] for each in (after, before)]
    assert len(shown[0]) + len(shown[1]) == len(tag)
    assert len(shown[0]) == int(len(tag) * 0.3)


async def test_the_window_of_calls_is_enforced_and_slides(client: aiohttp.ClientSession) -> None:
    clock = Clock(start=1_000_000)
    async with Standin(SMALL, clock=clock, limit=3) as standin:
        url = standin.base_url + "/v1/tags/😂?access_token="

        async def ask(token: str) -> int:
            async with client.get(url + token) as response:
                if response.status == 429:
                    meta = (await response.json())["meta"]
                    assert (meta["error_type"], meta["code"]) == ("OAuthRateLimitException", 429)
                return response.status

        assert [await ask("A") for _ in range(2)] == [200, 200]
        clock.advance(1800)
        assert [await ask("A") for _ in range(2)] == [200, 429]
        assert await ask("B") == 200
        clock.advance(1799)
        assert await ask("A") == 429
        clock.advance(1)
        assert [await ask("A") for _ in range(3)] == [200, 200, 429]
        quota = standin.stats.quotas["A"]
        assert (quota.calls, quota.refused, quota.peak) == (5, 3, 3)
        assert quota.used_share == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("access_token=expired-1", "OAuthAccessTokenException"),
        ("", "OAuthParameterException"),
        ("access_token=T&count=many", "APIInvalidParametersError"),
    ],
)
async def test_errors_come_in_their_envelope(
    client: aiohttp.ClientSession, query: str, error: str
) -> None:
    async with (
        Standin(SMALL) as standin,
        client.get(f"{standin.base_url}/v1/tags/😂/media/recent?{query}") as response,
    ):
        assert response.status == 400
        meta = (await response.json())["meta"]
        assert (meta["error_type"], meta["code"]) == (error, 400)


async def test_a_trap_of_pages_never_ends(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        standin.instagram.loop_tag = "❤️"
        url = standin.base_url + "/v1/tags/❤️/media/recent?access_token=T"
        seen = []
        for _ in range(5):
            async with client.get(url) as response:
                page = await response.json()
            seen.append([m["id"] for m in page["data"]])
            url = page["pagination"]["next_url"]
    assert seen[1:] == [seen[0]] * 4


# --- Bluesky ---


async def test_the_stream_tells_all_that_happened(client: aiohttp.ClientSession) -> None:
    world = World(seed=4, posts=600, emoji=30, edge_px=64, fates=0.4)
    async with Standin(world) as standin:
        async with client.ws_connect(standin.base_url + FIRST + "&cursor=1") as socket:
            told = await received(standin, socket)
        created = [
            e for e in told if e["kind"] == "commit" and "embed" in e["commit"].get("record", {})
        ]
        expected = {world.uri(p) for p in world.truth() if standin.events.created(p)}
        assert {uri_of(e) for e in created} == expected
        assert len(created) == len(expected)
        deleted = {uri_of(e) for e in told if e.get("commit", {}).get("operation") == "delete"}
        assert deleted == {
            world.uri(p) for p in world.truth() if p.deleted and standin.events.created(p)
        }
        left = {e["did"]: e["account"]["status"] for e in told if e["kind"] == "account"}
        authors = [world.author(number) for number in range(world.author_count)]
        assert left == {a.did: a.fate for a in authors if a.fate in events.LEAVING}
        assert any(e["kind"] == "identity" for e in told)
        times = [e["time_us"] for e in told]
        assert times == sorted(times)
        assert all(t >= 10**15 for t in times)
        kinds = Counter(e["commit"]["record"]["embed"]["$type"].split(".")[-1] for e in created)
        assert kinds.keys() == {"images", "gallery", "recordWithMedia", "video"}


def uri_of(event: Any) -> str:
    return f"at://{event['did']}/{event['commit']['collection']}/{event['commit']['rkey']}"


async def test_wishes_about_data_sets_come_with_their_collections(
    client: aiohttp.ClientSession,
) -> None:
    world = World(seed=4, posts=600, emoji=30, edge_px=64, fates=0.5)
    async with Standin(world) as standin:
        wanted = f"&wantedCollections={events.INTENTS}&wantedCollections=community.lexicon.*"
        url = standin.base_url + FIRST + wanted + "&cursor=1"
        async with client.ws_connect(url) as socket:
            told = await received(standin, socket)
    will: dict[str, bool] = {}
    for event in told:
        if event["kind"] == "commit" and event["commit"]["rkey"] == "self":
            record = event["commit"]["record"]
            stated = record.get("preferences", record)
            will[event["did"]] = stated.get("training", stated.get("bulkDataset"))["allow"]
    authors = [world.author(number) for number in range(world.author_count)]
    assert will == {a.did: a.fate == "opted_back_in" for a in authors if a.fate.startswith("opted")}
    assert {True, False} == set(will.values())


async def test_a_cursor_replays_and_live_events_follow(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL, rewind=3) as standin:
        async with client.ws_connect(standin.base_url + FIRST + "&cursor=1") as socket:
            told = await received(standin, socket)
        half = told[len(told) // 2]
        for cursor, slack in ((half["cursor"], 13), (half["time_us"], 13)):
            url = f"{standin.base_url}{FIRST}&cursor={cursor}"
            async with client.ws_connect(url) as socket:
                again = await received(standin, socket)
            at = again.index(told[len(told) // 2 + 1])
            assert 0 < at <= slack, "what came before is repeated, but not much of it"
            assert again[at:] == told[len(told) // 2 + 1 :]
        async with client.ws_connect(standin.base_url + FIRST) as socket:
            await asyncio.sleep(0.1)
            number = await standin.emit(standin.events.deletion(SMALL.post(5)))
            event = await socket.receive_json(timeout=2)
        assert event["cursor"] == number
        assert event["time_us"] >= told[-1]["time_us"]
        assert uri_of(event) == SMALL.uri(SMALL.post(5))
        async with client.ws_connect(f"{standin.base_url}{FIRST}&cursor={number - 1}") as socket:
            assert (await received(standin, socket))[-1] == event


async def test_connections_break_and_nothing_is_lost(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL, disconnect_every=100) as standin:
        found: dict[str, Any] = {}
        cursor, count = 1, 0
        for _ in range(20):
            url = f"{standin.base_url}{FIRST}&cursor={cursor}"
            async with client.ws_connect(url) as socket:
                told = await received(standin, socket)
            count += len(told)
            found |= {f"{e['time_us']} {e['did']}": e for e in told}
            cursor = told[-1]["time_us"]
            if len(told) < 95:
                break
        created = [e for e in found.values() if "embed" in e.get("commit", {}).get("record", {})]
        assert len(created) == sum(map(standin.events.created, SMALL.truth()))
        assert count > len(found), "nothing was repeated"
        assert standin.jetstream.connections > 5


async def test_frames_can_be_compressed(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        async with client.get(standin.base_url + "/_dictionary") as response:
            dictionary = zstandard.ZstdCompressionDict(await response.read())
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
        url = standin.base_url + FIRST + "&cursor=1&compress=true"
        async with client.ws_connect(url) as socket:
            event = json.loads(decompressor.decompress(await socket.receive_bytes(timeout=5)))
        assert event["kind"] == "commit"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
            await client.ws_connect(url, compress=15)


async def test_options_can_be_changed_while_connected(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        async with client.ws_connect(standin.base_url + FIRST + "&requireHello=true&cursor=1") as s:
            assert not await received_some(s)
        async with client.ws_connect(standin.base_url + FIRST + "&requireHello=true&cursor=1") as s:
            options = {"wantedCollections": ["app.bsky.feed.like"], "wantedDids": []}
            await s.send_json({"type": "options_update", "payload": options})
            told = await received(standin, s)
    assert {e["commit"]["collection"] for e in told if e["kind"] == "commit"} == {events.LIKE}


async def received_some(socket: aiohttp.ClientWebSocketResponse) -> bool:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(socket.receive(), 0.2)
    return False


async def test_the_second_version_has_its_own_frames(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        url = standin.base_url + SECOND
        query = "?collections=app.bsky.feed.post&kinds=commit&cursor=1"
        async with client.ws_connect(url + query, protocols=("xrpc.v1.json",)) as socket:
            assert socket.protocol == "xrpc.v1.json"
            frames = await received(standin, socket, END_COMMIT)
        payload = frames[0]["payload"]
        assert frames[0]["$type"] == "message"
        assert payload["$type"] == "network.bsky.jetstream.subscribeEvents#commit"
        assert payload.keys() == {
            "$type", "seq", "did", "time", "rev", "operation", "collection", "rkey", "cid",
            "record",
        }  # fmt: skip
        numbers = [f["payload"]["seq"] for f in frames]
        assert numbers == sorted(set(numbers))
        middle = numbers[len(numbers) // 2]
        later = f"?collections=app.bsky.feed.post&kinds=commit&cursor={middle}"
        async with client.ws_connect(url + later) as socket:
            assert [f["payload"]["seq"] for f in await received(standin, socket, END_COMMIT)] == [
                n for n in numbers if n > middle
            ]
        standin.jetstream.error = "ConsumerTooSlow"
        async with client.ws_connect(url) as socket:
            assert (await received(standin, socket))[0]["error"] == "ConsumerTooSlow"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("wantedCollections=app.bsky.feed.post", "InvalidRequest"),
        ("cursor=soon", "InvalidRequest"),
        ("cursor=5", "CursorTooOld"),
        ("zstdDictionary=1", "UnknownZstdDictionary"),
    ],
)
async def test_the_second_version_refuses_before_the_upgrade(
    client: aiohttp.ClientSession, query: str, error: str
) -> None:
    async with Standin(SMALL) as standin:
        standin.jetstream.oldest = 1000
        async with client.get(f"{standin.base_url}{SECOND}?{query}") as response:
            assert response.status == 400
            assert (await response.json())["error"] == error


async def test_a_blob_is_found_through_the_directory_and_verified_by_its_cid(
    client: aiohttp.ClientSession,
) -> None:
    post = next(p for p in SMALL.truth() if len(p.images) > 1 and not p.author.fate)
    async with Standin(SMALL) as standin:
        async with client.get(f"{standin.base_url}/{post.author.did}") as response:
            document = await response.json()
        (service,) = document["service"]
        assert (document["id"], service["id"]) == (post.author.did, "#atproto_pds")
        assert service["serviceEndpoint"] in standin.urls
        for image in post.images:  # not told by a stream before
            link = standin.events.cid_of(image)
            params = {"did": post.author.did, "cid": link}
            url = service["serviceEndpoint"] + "/xrpc/com.atproto.sync.getBlob"
            async with client.get(url, params=params) as response:
                content = await response.read()
            assert events.cid(content) == link
            proxied = f"/img/feed_fullsize/plain/{post.author.did}/{link}@jpeg"
            async with client.get(standin.urls[0] + proxied) as response:
                assert response.content_type == "image/jpeg"
                assert events.cid(await response.read()) != link
        standin.atproto.taken_down[post.author.did] = "RepoTakendown"
        assert await error_of(client, url, params) == "RepoTakendown"
        standin.atproto.taken_down.clear()
        assert await error_of(client, url, params | {"cid": events.cid(b"x")}) == "BlobNotFound"
        nobody = {"did": "did:plc:" + "a" * 24}
        assert await error_of(client, url, params | nobody) == "RepoNotFound"
        async with client.ws_connect(standin.base_url + FIRST) as socket:
            await standin.emit(standin.events.deletion(post))
            await socket.receive(timeout=2)
        assert await error_of(client, url, params) == "BlobNotFound"


async def error_of(client: aiohttp.ClientSession, url: str, params: dict[str, str]) -> str:
    async with client.get(url, params=params) as response:
        assert response.status == 400
        error: str = (await response.json())["error"]
        return error


def test_a_cid_holds_the_digest_of_its_bytes() -> None:
    link = events.cid(b"hello world")
    decoded = base64.b32decode(link[1:].upper() + "=" * (-len(link[1:]) % 8))
    assert link.startswith("bafkrei"), "as all CIDs of raw bytes with SHA-256"
    assert decoded == bytes([1, 0x55, 0x12, 0x20]) + sha256(b"hello world").digest()


# --- hosts of pictures ---


async def test_hosts_have_limits_etags_and_robots(client: aiohttp.ClientSession) -> None:
    image = next(i for p in SMALL.truth() if not p.deleted for i in p.images if not i.noai)
    async with Standin(SMALL, cdn_limit=(3, 1.0), robots={1: "disallow", 2: "broken"}) as standin:
        url = f"{standin.urls[0]}/p/{image.number}_7.jpg"
        async with client.get(url) as response:
            assert (
                sha256(await response.read()).digest()
                == sha256(standin.pictures.of(image)).digest()
            )
            assert response.headers["RateLimit-Remaining"] == "2"
            tag = response.headers["ETag"]
        async with client.get(url, headers={"If-None-Match": tag}) as response:
            assert response.status == 304
        statuses = []
        for _ in range(2):
            async with client.get(url) as response:
                statuses.append(response.status)
        assert statuses == [200, 429]
        assert response.headers["Retry-After"] == "1"
        async with client.get(url.replace("127.0.0.2", "127.0.0.3")) as response:
            assert response.status == 200, "another host has its own limit"
        for index, expected in ((0, robots.ALLOW), (1, robots.DISALLOW)):
            async with client.get(standin.urls[index] + "/robots.txt") as response:
                assert await response.text() == expected
        async with client.get(standin.urls[2] + "/robots.txt") as response:
            assert response.status == 500
        report = standin.stats.report()
        assert report["hosts"]["127.0.0.2"]["refused"] == 1
        assert report["hosts"]["127.0.0.2"]["kinds"]["image"] == 4
        assert standin.stats.fetches(image.number) == 3
        assert standin.host_closed(SMALL.image(1))


async def test_peaks_of_concurrency_are_seen(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL, latency=0.1) as standin:
        url = standin.urls[0] + "/p/0_7.jpg"

        async def get() -> None:
            async with client.get(url) as response:
                await response.read()

        await asyncio.gather(*(get() for _ in range(7)))
        assert standin.stats.hosts["127.0.0.2"].peak == 7


async def test_pictures_are_served_over_https_too() -> None:
    async with Standin(SMALL, tls=True) as standin:
        context = ssl.create_default_context(cafile=standin.ca_file)
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as client:
            image = next(i for p in SMALL.truth() if not p.deleted for i in p.images)
            assert standin.image_url(image).startswith("https://127.0.0.")
            async with client.get(standin.image_url(image)) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                async with client.get(standin.https_urls[0] + "/bad/rst-mid-body") as response:
                    await response.read()
            url = standin.https_urls[0] + "/bad/redirect-to-http"
            async with client.get(url, allow_redirects=False) as response:
                assert response.headers["Location"] == standin.urls[0] + "/p/0_7.jpg"
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await client.get(standin.bad_https_url + "/p/0_7.jpg")


# --- misbehaviours ---

PATIENT, IMPATIENT = aiohttp.ClientTimeout(total=20), aiohttp.ClientTimeout(total=0.3)
ENDLESS = {name for name in TABLE if name.startswith(("drip", "stall", "endless"))}


def test_there_are_more_than_forty_misbehaviours() -> None:
    assert len(TABLE) >= 100
    assert Counter(entry.ends for entry in TABLE.values())[Ends.PICTURE] >= 20


async def test_the_canary_counts_who_comes(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        for number, name in enumerate(("canary", "mapped", "localhost", "userinfo")):
            with pytest.raises(aiohttp.ClientError):
                await client.get(f"{standin.urls[0]}/bad/redirect-{name}")
            await asyncio.sleep(0.05)
            assert standin.stats.canary > number


async def test_who_waits_as_asked_is_told_apart(client: aiohttp.ClientSession) -> None:
    clock = Clock(start=1_000_000)
    async with Standin(SMALL, clock=clock) as standin:
        url = f"{standin.urls[0]}/bad/429-seconds/0_7.jpg"
        for seconds, status in ((0.0, 429), (1.0, 429), (1.1, 200)):
            clock.advance(seconds)
            async with client.get(url) as response:
                assert response.status == status
                assert (response.headers.get("Retry-After") in ("1", "2")) == (status == 429)
        assert standin.stats.early == 1
        assert standin.stats.lateness == [pytest.approx(0.05)]


async def test_cookies_that_travel_are_counted(client: aiohttp.ClientSession) -> None:
    async with Standin(SMALL) as standin:
        async with client.get(f"{standin.urls[0]}/bad/cookies/0_7.jpg") as response:
            assert response.status == 200
        assert standin.stats.cookies == 0
        await client.get(standin.urls[0] + "/p/0_7.jpg", headers={"Cookie": "session=s3cret"})
        assert standin.stats.cookies == 1


@pytest.mark.parametrize("variant", sorted(set(robots.VARIANTS) - {"slow", "endless", "reset"}))
async def test_each_variant_of_robots_txt_answers(
    client: aiohttp.ClientSession, variant: str
) -> None:
    async with Standin(SMALL, robots={0: variant}) as standin:
        url = standin.urls[0] + "/robots.txt"
        async with client.get(url, allow_redirects=variant != "redirect-loop") as response:
            body = await response.text("utf-8-sig", "replace")
    if variant in robots.CLOSED:
        assert "\nDisallow: /\n" in body.replace("User-agent: *\nAllow: /\n", "")
    elif response.status == 200 and variant in ("allow", "disallow-others"):
        assert "User-agent: *\nAllow: /\n" in body


async def test_a_share_of_images_misbehaves_and_the_truth_knows(
    client: aiohttp.ClientSession,
) -> None:
    world = World(seed=1, posts=200, emoji=9, edge_px=64, bad=("404", "webp"), bad_share=0.5)
    async with Standin(world, robots={2: "disallow"}) as standin:
        taken = {each.image.number: each for each in wanted(standin, "instagram")}
        assert taken
        assert len(list(wanted(standin, "bluesky", max_hashtags=2))) > 0
        for post in world.truth():
            image = post.images[0]
            async with client.get(standin.image_url(image)) as response:
                refused = any(h in response.headers for h in ("X-Robots-Tag", "TDM-Reservation"))
                may = response.status == 200 and not refused and not standin.host_closed(image)
            assert (image.number in taken) == (may and post.keeps())


@pytest.mark.parametrize("name", TABLE)
async def test_each_misbehaviour_ends_as_it_says(name: str) -> None:
    clock = Clock(start=1_000_000)
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            auto_decompress=False,
            timeout=IMPATIENT if name in ENDLESS else PATIENT,
        ) as client,
        Standin(SMALL, clock=clock) as standin,
    ):
        url = f"{standin.urls[0]}/bad/{name}/0_7.jpg"
        got = [await outcome(client, url)]
        while got[-1] != "picture" and len(got) < 3:
            clock.advance(2.5)
            got.append(await outcome(client, url))
        ends = TABLE[name].ends
        if ends in (Ends.PICTURE, Ends.OPTED_OUT):
            assert got[-1] == "picture", got
        elif ends is Ends.NOTHING:
            assert "picture" not in got, got
        assert standin.stats.canary == 0, "the client here follows no redirect to it"
        assert standin.stats.early == 0
        assert standin.stats.bad[name] >= 1


async def outcome(client: aiohttp.ClientSession, url: str) -> str:
    """What a careful client makes of a URL: it reads at most 10 MB, and stays on these hosts."""
    for _ in range(5):
        try:
            async with client.get(url, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    to = response.headers.get("Location", "")
                    if not to or not to.startswith(("/p/", "/bad/", "../../p/", "http://127.0.0.")):
                        return "led away"
                    if "http://127.0.0.1:" in to:
                        return "led away"
                    url = str(response.url.join(response.url.__class__(to)))
                    continue
                if response.status != 200 or "Content-Encoding" in response.headers:
                    return str(response.status)
                content = await response.content.read(10_000_000)
                while len(content) < 10_000_000 and (more := await response.content.read(1 << 20)):
                    content += more
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return type(error).__name__
        return judged(content)
    return "too many redirects"


def judged(content: bytes) -> str:
    if len(content) >= 10_000_000:
        return "too large"
    try:
        with Pillow.open(BytesIO(content)) as picture:
            if max(picture.size) > 10_000 or min(picture.size) < 16:
                return "of no good size"
            picture.load()
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError):
        return "no picture"
    return "picture"


# --- in a process of its own ---


def test_a_child_can_be_asked_and_told() -> None:
    with Child("--posts", "50", "--clock", "1000000", "--hosts", "2", "--edge-px", "64") as child:
        assert len(child.urls) == 2
        assert child.stats()["events"] == 0
        assert child.advance(60) == 1_000_060
        assert child.emit({"delete": 7}) > 50 * 4 * 256
        child.set(**{"cdn.latency": 0.5, "robots": {0: "disallow"}})
    assert child.process.returncode == 0


def test_a_child_ends_with_its_input() -> None:
    with Child("--posts", "50") as child:
        assert child.process.stdin
        child.process.stdin.close()
        assert child.process.wait(10) == 0
