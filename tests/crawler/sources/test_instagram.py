import json
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yarl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import limits
from services.crawler.keep import author_hash, mentioned
from services.crawler.limits import Quota
from services.crawler.post import Malformed, Page, Post
from services.crawler.sources import Plan, instagram
from services.crawler.sources.instagram import InstagramSource
from services.crawler.web import Reply, Web, WebFailed
from services.shared.errors import BadSource, EmojinetError, SourceRefused, SourceUnavailable
from tests.standin.clock import Clock
from tests.standin.standin import Standin
from tests.standin.world import World

pytestmark = pytest.mark.system

TOKEN = "secret+t/k=n"
BASE = "https://photos.example/v1"
LOOPBACK = [ip_network("127.0.0.0/8")]
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class SimulatedClock(limits.Clock):
    """The stand-in's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.now()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class Canned(Web):
    """A network of which a function says what it answers."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        super().__init__()
        self._answer = answer
        self.asked: list[str] = []

    async def get(
        self,
        url: str | yarl.URL,
        *,
        quota: Quota | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 0,
    ) -> Reply:
        self.asked.append(str(url))
        answer = self._answer(str(url))
        if isinstance(answer, Reply):
            return answer
        return Reply(200, {}, json.dumps(answer).encode())


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web(allow=LOOPBACK) as web:
        yield web


def source(web: Web, token_file: Path, base_url: str = BASE) -> InstagramSource:
    return InstagramSource(pb.InstagramSource(base_url=base_url, token_file=str(token_file)), web)


def plan(*emoji: str) -> Plan:
    return Plan(emoji=emoji, wanted=lambda emoji: True)


async def pages(of: InstagramSource, *emoji: str, cursor: str = "") -> list[Page]:
    return [page async for page in of.pages(cursor, plan(*emoji))]


def posts(pages: list[Page]) -> dict[str, Post]:
    return {event.uri: event for page in pages for event in page.events if isinstance(event, Post)}


def listed(of: Standin, emoji: str) -> set[str]:
    """The links of the posts that are truly tagged with an emoji."""
    tag = of.world.tag(emoji)
    numbers = [tag.post_number(place) for place in range(len(tag))] if tag else []
    return {f"https://instagram.com/p/{number:x}/" for number in numbers}


def media(**change: Any) -> dict[str, Any]:
    """An element of a page's `data`."""
    picture = {"url": "https://photos.example/1_7.jpg", "width": 612, "height": 612}
    return {
        "type": "image",
        "id": "471_1",
        "link": "https://instagram.com/p/1/",
        "tags": ["☕"],
        "created_time": "1441418343",
        "images": {"standard_resolution": picture, "thumbnail": picture},
        "caption": {"text": "best #🍕", "from": {"id": "2"}},
        "user": {"id": "1", "username": "anna"},
    } | change


def page(*data: Any, next_url: Any = None) -> dict[str, Any]:
    pagination = {"next_url": next_url} if next_url is not None else {}
    return {"pagination": pagination, "meta": {"code": 200}, "data": list(data)}


@pytest.mark.parametrize("carousels", [False, True])
async def test_what_is_read_is_what_was_posted(web: Web, token_file: Path, carousels: bool) -> None:
    world = World(seed=3, posts=400, emoji=6)
    async with Standin(world, carousels=carousels) as standin:
        of = source(web, token_file, f"{standin.base_url}/v1/")
        for emoji in (*world.order, "🛂"):
            found = posts(await pages(of, emoji))
            assert found.keys() == listed(standin, emoji)
            assert await of.count(emoji) == len(world.tag(emoji) or ())
        found = posts(await pages(of, *world.order))
        assert len(found) == 400
        for truth in standin.truth():
            post = found[f"https://instagram.com/p/{truth.number:x}/"]
            assert [post.text, post.author] == [truth.text, str(truth.author.number)]
            assert post.time_seconds == int(truth.time)
            images = truth.images if carousels and len(truth.images) > 1 else truth.images[:1]
            if truth.kind == "video" and len(images) == 1:
                images = ()
            assert [image.url for image in post.images] == [*map(standin.image_url, images)]
            assert {mention.emoji for mention in mentioned(post)} == truth.emoji


async def test_a_crawl_goes_on_behind_any_page(web: Web, token_file: Path) -> None:
    world = World(seed=3, posts=200, emoji=4)
    async with Standin(world) as standin:
        of = source(web, token_file, f"{standin.base_url}/v1")
        read = await pages(of, *world.order, "🛂")
        assert len(read) > len(world.order)
        for number, page in enumerate(read, 1):
            assert await pages(of, *world.order, "🛂", cursor=page.cursor) == read[number:]
            assert TOKEN not in page.cursor
            assert "secret" not in page.cursor


async def test_a_tag_is_read_no_further_than_is_wanted(web: Web, token_file: Path) -> None:
    world = World(seed=3, posts=400, emoji=3)
    async with Standin(world) as standin:
        of = source(web, token_file, f"{standin.base_url}/v1")
        first, second, third = world.order
        lacks = {first: 2, second: 0, third: 1}

        def wanted(emoji: str) -> bool:
            lacks[emoji] -= 1
            return lacks[emoji] >= 0

        read = [page async for page in of.pages("", Plan(emoji=world.order, wanted=wanted))]

        assert [json.loads(page.cursor)[0] for page in read] == [first, first, third]
        assert posts(read[2:]).keys() <= listed(standin, third)
        assert standin.stats.kinds["media"] == 3


async def test_no_call_is_refused_however_narrow_the_window(token_file: Path) -> None:
    world = World(seed=3, posts=600, emoji=3)
    clock = Clock(start=1_800_000_000.0)
    async with (
        Standin(world, limit=8, clock=clock) as standin,
        Web(allow=LOOPBACK, clock=SimulatedClock(clock)) as web,
    ):
        found = posts(await pages(source(web, token_file, f"{standin.base_url}/v1"), *world.order))
        (quota,) = standin.stats.quotas.values()
        assert quota.refused == 0
        assert quota.calls > 3 * 8
        assert len(found) == 600


async def test_a_tag_that_leads_back_to_its_beginning_ends(web: Web, token_file: Path) -> None:
    world = World(seed=3, posts=400, emoji=3)
    async with Standin(world) as standin:
        standin.instagram.loop_tag = world.order[0]
        of = source(web, token_file, f"{standin.base_url}/v1")
        read = await pages(of, *world.order)
        assert listed(standin, world.order[1]) <= posts(read).keys()
        assert sum(json.loads(page.cursor)[0] == world.order[0] for page in read) <= 3


async def test_a_tag_whose_pages_bring_nothing_new_ends(token_file: Path) -> None:
    server: Canned = Canned(lambda url: page(media(), next_url=f"{BASE}/x?n={len(server.asked)}"))
    assert len(await pages(source(server, token_file), "🍕", "☕")) == 2 * (
        instagram.STALE_PAGES + 1
    )


async def test_the_next_page_is_asked_for_as_the_server_says(token_file: Path) -> None:
    tag = f"{BASE}/tags/%F0%9F%8D%95/media/recent"
    following = f"{tag}?count=33&access_token=secret%2Bt%2Fk%3Dn&max_tag_id=1370433362010"
    bodies = [
        page(media(), next_url=following),
        page(media(link="2"), next_url=f"{tag}?m=1"),
        page(),
    ]
    server: Canned = Canned(lambda url: bodies[len(server.asked) - 1])

    read = await pages(source(server, token_file), "🍕")

    token = "access_token=secret%2Bt%2Fk%3Dn"
    assert server.asked == [f"{tag}?{token}", following, f"{tag}?m=1&{token}"]
    assert "secret" not in "".join(page.cursor for page in read)


async def test_a_new_token_takes_the_place_of_the_old_one(token_file: Path) -> None:
    following = f"{BASE}/next?access_token=secret&max_tag_id=1"
    web = Canned(lambda url: page(media(link=url), next_url=following if "media" in url else None))
    of = source(web, token_file)
    read = of.pages("", plan("🍕"))
    await anext(read)
    token_file.write_text("new")
    await anext(read)
    assert web.asked[1] == f"{BASE}/next?access_token=new&max_tag_id=1"


@pytest.mark.parametrize(
    "next_url",
    [
        "https://elsewhere.example/v1/tags/x/media/recent?access_token=secret",
        "http://photos.example/v1/tags/x",
        "https://photos.example:8443/v1/tags/x",
        "https://photos.example.elsewhere.example/",
        "https://photos.example@elsewhere.example/",
        "https://photos.example\\@elsewhere.example/",
        "//elsewhere.example/",
        "/v1/tags/x",
        "file:///etc/passwd",
        "https://photos.example/" + "x" * 5000,
        "https://[",
        17,
        ["https://photos.example/"],
        {"url": ""},
    ],
)
async def test_a_token_follows_no_link_to_another_server(token_file: Path, next_url: Any) -> None:
    web = Canned(lambda url: page(media(), next_url=next_url))
    with pytest.raises(BadSource, match="which is not on the same server"):
        await pages(source(web, token_file), "🍕")
    assert len(web.asked) == 1


@pytest.mark.parametrize("kind", ["APINotFoundError", "APINotAllowedError"])
async def test_a_tag_that_is_not_there_has_no_posts(token_file: Path, kind: str) -> None:
    body = {"meta": {"error_type": kind, "code": 400, "error_message": "no"}}
    web = Canned(lambda url: Reply(400, {}, json.dumps(body).encode()))
    of = source(web, token_file)
    assert await of.count("🍆") == 0
    assert posts(await pages(of, "🍆", "☕")) == {}
    assert len(web.asked) == 3


async def test_a_token_that_has_expired_is_refused_and_not_told(web: Web, token_file: Path) -> None:
    token_file.write_text("expired-7f3a")
    async with Standin(World(posts=50)) as standin:
        of = source(web, token_file, f"{standin.base_url}/v1")
        with pytest.raises(SourceRefused, match=r"OAuthAccessTokenException.* valid access token"):
            await of.count("🍕")
        with pytest.raises(SourceRefused) as refused:
            await pages(of, "🍕")
    assert "7f3a" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff", "cannot be")],
)
async def test_without_a_token_nothing_is_asked(
    token_file: Path, content: bytes | None, why: str
) -> None:
    token_file.unlink()
    if content is not None:
        token_file.write_bytes(content)
    web = Canned(lambda url: page())
    with pytest.raises(SourceRefused, match=f"{why}.*: it should hold the access token for http"):
        await source(web, token_file).count("🍕")
    assert not web.asked


@pytest.mark.parametrize("url", ["", "photos.example/v1", "ftp://photos.example", "https://["])
async def test_the_base_url_is_an_http_url(token_file: Path, url: str) -> None:
    with pytest.raises(BadSource, match=r"`base_url` is .* should be like https://api"):
        source(Canned(page), token_file, url)


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        (401, b"<html>", SourceRefused, "does not let us in"),
        (403, b"{}", SourceRefused, "does not let us in"),
        (400, b'{"meta":{"error_type":"APIInvalidParametersError"}}', SourceRefused, "APIInvalid"),
        (200, b'{"meta":{"error_type":["x"]}}', SourceRefused, "does not let us in"),
        (200, b'{"meta":{"error_type":"E","error_message":"secret+t/k=n"}}', SourceRefused, "E: …"),
        (404, b"<html>not found", BadSource, "answered 404 with b'<html>not found'"),
        (200, b"", BadSource, 'with a JSON object that has "data"'),
        (200, b"[" * 100_000, BadSource, "a JSON object"),
        (200, b'{"meta":{"code":200}}', BadSource, "a JSON object"),
        (200, b'{"data":{}}', BadSource, "where a page's `data` should be, a list of posts"),
        (200, b'{"data":null}', BadSource, "a list of posts"),
        (200, b'{"data":[],"pagination":7}', BadSource, "where a page's `pagination` should be"),
    ],
)
async def test_other_answers_are_errors_that_say_what_would_be_right(
    token_file: Path, status: int, body: bytes, kind: type[EmojinetError], why: str
) -> None:
    web = Canned(lambda url: Reply(status, {}, body))
    with pytest.raises(kind) as error:
        await pages(source(web, token_file), "🍕")
    assert why in str(error.value)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("count", [None, -1, True, "472", 1.5, 10**30, [], {}])
async def test_a_count_is_a_number(token_file: Path, count: Any) -> None:
    web = Canned(lambda url: {"data": {"media_count": count}})
    with pytest.raises(BadSource, match="`media_count`"):
        await source(web, token_file).count("🍕")


@pytest.mark.parametrize(("retryable", "kind"), [(True, SourceUnavailable), (False, BadSource)])
async def test_what_may_pass_pauses_a_crawl_and_what_does_not_ends_it(
    token_file: Path, retryable: bool, kind: type[EmojinetError]
) -> None:
    def fail(url: str) -> None:
        raise WebFailed(503, "photos.example answered 503", retryable)

    with pytest.raises(kind, match="answered 503"):
        await source(Canned(fail), token_file).count("🍕")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (media(caption=None), {"text": ""}),
        (media(caption={"text": None}), {"text": ""}),
        (media(caption={"text": "half \ud83c"}), {"text": "half ?"}),
        (media(type="video", videos={}), {"images": []}),
        (media(user=None), {"author": ""}),
        (media(user={"id": 17}), {"author": "17"}),
        (media(created_time=1441418343.5), {"time_seconds": 1441418343.5}),
        (media(created_time="soon"), {"time_seconds": 0.0}),
        (media(created_time=10**400), {"time_seconds": 0.0}),
        (media(created_time=float("nan")), {"time_seconds": 0.0}),
        (media(link=None), {"uri": "471_1"}),
        (media(type="carousel", carousel_media=[{"type": "video"}]), {"images": []}),
    ],
)
async def test_whatever_a_post_lacks_it_is_one_with_a_name_and_a_picture(
    token_file: Path, item: dict[str, Any], expected: dict[str, Any]
) -> None:
    (read,) = await pages(source(Canned(lambda url: page(item)), token_file), "🍕")
    (post,) = read.events
    assert {key: getattr(post, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (None, "it is None, and should be an object"),
        (media(link="", id=None), "neither a `link` nor an `id`"),
        (media(images=None), "no `images.standard_resolution.url` of http(s)"),
        (media(images={"standard_resolution": {"url": "file:///etc/passwd"}}), "of http(s)"),
    ],
)
async def test_a_broken_post_harms_no_other(token_file: Path, item: Any, why: str) -> None:
    (read,) = await pages(source(Canned(lambda url: page(media(), item)), token_file), "🍕")
    good, bad = read.events
    assert isinstance(good, Post)
    assert isinstance(bad, Malformed)
    assert bad.where == "🍕, 2 of a page"
    assert why in bad.why


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["\ud83c", "https://[", BASE, "video", "APINotFoundError"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where all the values of a JSON value are."""
    inner = (
        value
        if isinstance(value, dict)
        else dict(enumerate(value if isinstance(value, list) else ()))
    )
    return [path, *(found for key in inner for found in places(inner[key], (*path, key)))]


BODY = page(
    media(carousel_media=[{"type": "image", "images": media()["images"]}]), next_url=f"{BASE}/n"
) | {"meta": {"code": 200, "error_type": "", "error_message": ""}}


@QUICK
@given(st.sampled_from(places(BODY)), JSON)
async def test_no_json_anywhere_breaks_a_crawl(
    token_file: Path, place: tuple[Any, ...], value: Any
) -> None:
    body = json.loads(json.dumps(BODY))
    if place:
        inner = body
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    else:
        body = value
    of = source(Canned(lambda url: body if "media" in url else page()), token_file)
    try:
        read = await pages(of, "🍕")
    except (BadSource, SourceRefused):
        return
    for one in read:
        one.cursor.encode()
        for event in one.events:
            if isinstance(event, Malformed):
                event.why.encode()
                continue
            assert isinstance(event, Post)
            mentioned(event)
            author_hash("instagram-v1", event.author, b"key")
            for text in (event.uri, event.text, *(image.url for image in event.images)):
                text.encode()


@QUICK
@given(st.text(st.characters()) | st.text().map(lambda text: f"{BASE}/{text}"))
async def test_no_link_breaks_a_crawl_or_leaves_the_server(token_file: Path, link: str) -> None:
    web = Canned(lambda url: page(media(), next_url=link) if "media" in url else page())
    try:
        await pages(source(web, token_file), "🍕")
    except BadSource:
        return
    for url in web.asked:
        assert yarl.URL(url).origin() == yarl.URL(BASE).origin()
