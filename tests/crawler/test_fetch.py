import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web as server
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.crawler import fetch
from services.crawler.fetch import Fetcher, FetchFailed, Outcome
from services.crawler.post import PostImage
from services.crawler.web import Web
from services.shared.pixels import MAX_BYTES
from tests.crawler.test_web import LOOPBACK, Quick, site
from tests.shared.test_addresses import Canary, Names
from tests.standin import misbehaviours
from tests.standin.pictures import Pictures
from tests.standin.standin import Standin
from tests.standin.world import World

pytestmark = pytest.mark.system

JPEG = b"\xff\xd8\xff\xe0" + bytes(1000)
HOSTS = [ip_network(f"127.0.0.{n}/32") for n in range(2, 7)]  # not 127.0.0.1: that is the canary's
BAD_SECONDS = 10.0

# What is not said here ends well, or as the decoder sees it.
OUTCOMES = {
    Outcome.NOT_FOUND: "404 410 redirect-long",
    Outcome.FORBIDDEN: "401 403 451",
    Outcome.GONE_FOR_NOW: (
        "429-seconds 429-date 429-absurd 429-negative 429-garbage 429-silent 429-past-date "
        "429-for-ever 503-seconds 503-date 503-once 500-burst 500-for-ever 502-once 408-once 999 "
        "rst-before-headers rst-in-headers end-before-headers broken-chunked huge-chunk "
        "no-http only-a-body duplicate-content-length negative-content-length length-and-chunks "
        "thousand-headers megabyte-header endless-header"
    ),
    Outcome.ALTERED: "long-content-length unfinished-chunked rst-after-headers rst-mid-body",
    Outcome.TOO_SLOW: (
        "drip-body drip-headers stall-before-headers stall-after-headers stall-mid-body "
        "endless-continue"
    ),
    Outcome.TOO_LARGE: "endless-body large large-unannounced",
    Outcome.EMPTY: "204 empty",
    Outcome.WRONG_CONTENT: (
        "206 304 gzip-bomb gzip br-garbage zstd-garbage unknown-encoding redirect-nowhere "
        "redirect-empty html html-as-image"
    ),
    Outcome.REDIRECT_LOOP: "redirect-endless redirect-self",
    Outcome.BAD_URL: (
        "redirect-metadata redirect-azure redirect-private redirect-canary redirect-localhost "
        "redirect-ipv6-loopback redirect-mapped redirect-nat64 redirect-decimal "
        "redirect-hexadecimal redirect-octal redirect-zero redirect-userinfo redirect-file "
        "redirect-ftp redirect-data"
    ),
    Outcome.OPTED_OUT: "noai noimageai noindex noimageindex noml noai-for-us tdm-reserved",
}
RETRIED = {Outcome.GONE_FOR_NOW, Outcome.TOO_SLOW, Outcome.LIMITED, Outcome.ALTERED}


@asynccontextmanager
async def fetching(web: Web, **options: float) -> AsyncIterator[Fetcher]:
    """A fetcher of little patience, which must have given everything back in the end."""
    patience = {"total_seconds": 4.0, "answer_seconds": 1.5, "grace_seconds": 1.0}
    fetcher = Fetcher(web, **(patience | options))  # type: ignore[arg-type]
    yield fetcher
    assert fetcher.bytes_in_flight == 0
    assert not in_use(web)


def in_use(web: Web) -> int:
    """Connections that somebody has taken from the pool, and not given back."""
    connector = web.session.connector
    assert connector is not None
    return len(connector._acquired)


async def fetched(fetcher: Fetcher, url: str, cid: str = "") -> bytes:
    async with fetcher.fetched(PostImage(url, cid)) as content:
        return content


async def attempt(fetcher: Fetcher, url: str, cid: str = "") -> FetchFailed | None:
    try:
        await fetched(fetcher, url, cid)
    except FetchFailed as failure:
        return failure
    return None


async def outcome(fetcher: Fetcher, url: str, cid: str = "") -> Outcome | None:
    failure = await attempt(fetcher, url, cid)
    return failure.outcome if failure else None


@pytest.fixture(scope="module")
def drawn() -> None:
    """The first picture takes the stand-in longer than a fetcher waits on a busy machine."""
    world = World(seed=1, posts=2)
    Pictures(world).of(world.image(0))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("name", misbehaviours.TABLE)
async def test_every_misbehaviour_ends_soon_under_its_name(name: str) -> None:
    expected: set[Outcome | None] = {
        kind for kind, names in OUTCOMES.items() if name in names.split()
    } or {None}
    if name == "short-content-length":  # half a picture, or an end that is none: whichever is first
        expected.add(Outcome.GONE_FOR_NOW)
    async with Standin(World(seed=1, posts=2), hosts=3) as standin, Web(allow=HOSTS) as web:
        async with fetching(web) as fetcher:
            began = time.monotonic()
            failure = await attempt(fetcher, f"{standin.urls[0]}/bad/{name}")
            assert time.monotonic() - began < BAD_SECONDS
            assert (failure.outcome if failure else None) in expected, str(failure)
            if failure:
                assert (failure.retry_seconds is not None) == (failure.outcome in RETRIED)
        assert standin.stats.canary == 0
        assert standin.stats.cookies == 0


@pytest.mark.parametrize("name", ["drip-body", "stall-after-headers", "stall-mid-body"])
async def test_a_body_that_comes_too_slowly_is_given_up_long_before_its_deadline(
    name: str,
) -> None:
    async with (
        Standin(World(seed=1, posts=2), hosts=1) as standin,
        Web(allow=HOSTS) as web,
        fetching(web, total_seconds=60.0, grace_seconds=0.4) as fetcher,
    ):
        url = f"{standin.urls[0]}/bad/{name}"
        async with asyncio.timeout(8):
            assert await outcome(fetcher, url) is Outcome.TOO_SLOW


async def test_pictures_come_as_they_are_from_many_hosts_at_once() -> None:
    world = World(seed=3, posts=60)
    async with Standin(world, hosts=3) as standin, Web(allow=HOSTS) as web:
        async with fetching(web, per_host=3) as fetcher:
            images = [post.images[0] for post in standin.truth() if post.images]
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(outcome(fetcher, standin.image_url(image)))
                    for image in images
                ]
            ends = [task.result() for task in tasks]
        assert set(ends) <= {None, Outcome.OPTED_OUT, Outcome.NOT_FOUND}
        assert ends.count(None) > len(ends) / 2
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            host = standin.stats.hosts[address]
            assert 1 < host.peak <= 3
            assert host.kinds["robots"] == 1


async def test_a_host_in_use_keeps_its_limits_however_many_others_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch, "MAX_HOSTS", 1)
    async with (
        Standin(World(seed=3, posts=40), hosts=3, latency=0.02) as standin,
        Web(allow=HOSTS) as web,
        fetching(web, per_host=2) as fetcher,
    ):
        urls = [f"{standin.urls[n % 3]}/p/{4 * n}_5.jpg" for n in range(36)]
        await asyncio.gather(*(outcome(fetcher, url) for url in urls))
        assert all(host.peak <= 2 for host in standin.stats.hosts.values())


async def test_a_host_that_limits_us_is_never_made_to_refuse() -> None:
    async with (
        Standin(World(seed=3, posts=80), hosts=1, cdn_limit=(20, 2.0)) as standin,
        Web(allow=HOSTS) as web,
        fetching(web) as fetcher,
    ):
        urls = [f"{standin.urls[0]}/p/{4 * n}_5.jpg" for n in range(45)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(fetcher, url)) for url in urls]
        assert {task.result() for task in tasks} <= {None, Outcome.NOT_FOUND, Outcome.OPTED_OUT}
        assert standin.stats.statuses[429] == 0
        assert standin.stats.hosts["127.0.0.2"].requests == 1 + 45


async def test_a_host_that_wants_us_to_wait_long_is_not_asked_meanwhile() -> None:
    asked = 0

    async def handler(request: server.Request) -> server.StreamResponse:
        nonlocal asked
        asked += request.path != "/robots.txt"
        return server.Response(status=429, headers={"Retry-After": "120"})

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        with pytest.raises(FetchFailed) as first:
            await fetched(fetcher, str(url / "a"))
        with pytest.raises(FetchFailed) as second:
            await fetched(fetcher, str(url / "b"))
    assert first.value.outcome is Outcome.GONE_FOR_NOW
    assert second.value.outcome is Outcome.LIMITED
    for failure in (first.value, second.value):
        assert failure.retry_seconds == pytest.approx(120, rel=0.1)
    assert asked == 1


async def test_a_delay_that_robots_txt_asks_for_is_kept() -> None:
    times = []

    async def handler(request: server.Request) -> server.StreamResponse:
        if request.path == "/robots.txt":
            return server.Response(text="User-agent: *\nCrawl-delay: 0.2")
        times.append(time.monotonic())
        return server.Response(body=JPEG, content_type="image/jpeg")

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        began = time.monotonic()
        await asyncio.gather(*(fetched(fetcher, str(url / str(n))) for n in range(5)))
    assert all(at - began > 0.2 * n - 0.02 for n, at in enumerate(times))


@pytest.mark.parametrize(
    ("variant", "end", "again"),
    [
        ("allow", None, False),
        ("disallow", Outcome.ROBOTS, False),
        ("disallow-us", Outcome.ROBOTS, False),
        ("missing", None, False),
        ("unavailable", Outcome.ROBOTS, True),
        ("slow", Outcome.GONE_FOR_NOW, True),
    ],
)
async def test_robots_txt_is_asked_before_a_picture(
    variant: str, end: Outcome | None, again: bool
) -> None:
    async with (
        Standin(World(seed=1, posts=4), hosts=2, robots={1: variant}) as standin,
        Web(allow=HOSTS) as web,
        fetching(web) as fetcher,
    ):
        host = standin.urls[1]
        failure = await attempt(fetcher, f"{host}/p/0_7.jpg")
        assert (failure and failure.outcome) == end
        assert bool(failure and failure.retry_seconds) == again
        # Who sends us there does not allow it for them.
        bad = f"{standin.urls[0]}/bad/redirect-other-host"
        assert await outcome(fetcher, bad) == end
        assert standin.stats.hosts["127.0.0.3"].kinds["image"] == (0 if end else 2)


def cid_of(content: bytes) -> str:
    """By the book, not by our code: multibase b, version 1, raw, SHA2-256, 32 bytes."""
    text = base64.b32encode(b"\x01\x55\x12\x20" + hashlib.sha256(content).digest()).decode()
    return "b" + text.lower().rstrip("=")


async def test_bytes_are_checked_against_the_identifier_that_a_source_knows() -> None:
    async def handler(_: server.Request) -> server.StreamResponse:
        return server.Response(body=JPEG, content_type="image/jpeg")

    assert fetch.cid(JPEG) == cid_of(JPEG)
    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        assert await fetched(fetcher, str(url), cid_of(JPEG)) == JPEG
        for other in (cid_of(JPEG + b"1"), cid_of(JPEG).upper(), "QmWrong", "b"):
            assert await outcome(fetcher, str(url), other) is Outcome.ALTERED


async def test_blobs_of_bluesky_have_the_content_that_their_identifiers_name() -> None:
    assert cid_of(b"hello world\n").startswith("bafkrei")
    assert fetch.cid(b"") == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize("size", [1, 131_072, 262_144, 262_145, 1_000_000, MAX_BYTES])
@pytest.mark.parametrize("told", [True, False])
async def test_a_picture_of_any_size_comes_whole(size: int, told: bool) -> None:
    body = os.urandom(size)

    async def handler(request: server.Request) -> server.StreamResponse:
        response = server.StreamResponse(headers={"Content-Type": "image/jpeg"})
        if told:
            response.content_length = size
        await response.prepare(request)
        for start in range(0, size, 60_000):
            await response.write(body[start : start + 60_000])
        return response

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        assert await fetched(fetcher, str(url)) == body


@pytest.mark.parametrize("told", [True, False])
async def test_a_byte_more_than_the_most_is_too_much(told: bool) -> None:
    async def handler(request: server.Request) -> server.StreamResponse:
        response = server.StreamResponse(headers={"Content-Type": "image/jpeg"})
        if told:
            response.content_length = MAX_BYTES + 1
        await response.prepare(request)
        await response.write(bytes(MAX_BYTES + 1))
        return response

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        assert await outcome(fetcher, str(url)) is Outcome.TOO_LARGE


async def test_no_more_bytes_are_in_flight_than_the_budget_has() -> None:
    size, budget, most = 4 << 20, 40 << 20, 0

    async def handler(request: server.Request) -> server.StreamResponse:
        response = server.StreamResponse(headers={"Content-Type": "image/jpeg"})
        if request.path[-1] in "13579":
            response.content_length = size
        await response.prepare(request)
        await response.write(bytes(size))
        return response

    async with (
        site(handler) as url,
        Web(allow=LOOPBACK) as web,
        fetching(web, bytes_in_flight=budget, total_seconds=60) as fetcher,
    ):
        held = 0

        async def consume(n: int) -> None:
            nonlocal held, most
            async with fetcher.fetched(PostImage(str(url / str(n)))) as content:
                held += len(content)
                most = max(most, held)
                assert held <= fetcher.bytes_in_flight <= budget
                await asyncio.sleep(0.02)
                held -= len(content)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for n in range(60):
                group.create_task(consume(n))
    assert most > 2 * size


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, MAX_BYTES), min_size=1, max_size=120))
@example(sizes=[MAX_BYTES] * 120)
def test_a_budget_is_kept_and_never_stuck_whatever_the_sizes(sizes: list[int]) -> None:
    async def scene() -> None:
        budget = fetch.Budget(32 << 20)

        async def picture(size: int) -> None:
            held = fetch.Held(budget)
            await held.grow(fetch.FIRST_BYTES)
            await asyncio.sleep(0)
            await held.grow(size if size % 3 else MAX_BYTES + fetch.FIRST_BYTES)
            assert budget.free >= 0
            await asyncio.sleep(0)
            held.shrink(size)
            await asyncio.sleep(0)
            held.shrink(0)

        tasks = [asyncio.create_task(picture(size)) for size in sizes]
        await asyncio.sleep(0)
        for task in tasks[::7]:
            task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait(tasks)
        # Cancelled ones keep what they held here; `fetched` gives it back.
        assert budget.free >= budget.total - len(tasks[::7]) * (MAX_BYTES + fetch.FIRST_BYTES)
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    asyncio.run(scene())


async def test_who_stops_waiting_leaves_nothing_behind() -> None:
    async def handler(request: server.Request) -> server.StreamResponse:
        response = server.StreamResponse(headers={"Content-Type": "image/jpeg"})
        await response.prepare(request)
        await response.write(bytes(300_000))
        await asyncio.sleep(5)
        return response

    async with (
        site(handler) as url,
        Web(allow=LOOPBACK) as web,
        fetching(web, grace_seconds=5.0) as fetcher,
    ):
        for wait in (0.0, 0.01, 0.1, 0.3):
            pictures = [fetched(fetcher, str(url / str(n))) for n in range(20)]
            tasks = [asyncio.create_task(picture) for picture in pictures]
            await asyncio.sleep(wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_connections_are_used_again() -> None:
    peers = set()

    async def handler(request: server.Request) -> server.StreamResponse:
        assert request.transport
        peers.add(request.transport.get_extra_info("peername"))
        if request.path == "/moved":
            raise server.HTTPFound("/a")
        return server.Response(body=JPEG, content_type="image/jpeg")

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        for path in ("a", "moved") * 20:
            await fetched(fetcher, str(url / path))
    assert len(peers) <= 21


async def test_a_name_that_turns_private_between_two_requests_reaches_nobody() -> None:
    async with Canary().listening() as canary, Web(allow=HOSTS, clock=Quick()) as web:
        connector = web.session.connector
        assert isinstance(connector, aiohttp.TCPConnector)
        connector._resolver = Names("127.0.0.2", "127.0.0.1")
        connector._use_dns_cache = False

        async def handler(_: server.Request) -> server.StreamResponse:
            return server.Response(body=JPEG, headers={"Connection": "close"})

        async with (
            site(handler, address="127.0.0.2", port=canary.port) as url,
            fetching(web) as fetcher,
        ):
            turning = str(url.with_host("rebind.test"))
            # robots.txt is asked of the first address, the picture of the second.
            assert await outcome(fetcher, turning) is Outcome.BAD_URL
        assert canary.calls == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "ftp://127.0.0.2/a.jpg",
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        "http://user:password@127.0.0.2/a.jpg",
        "http://127.0.0.1:9/a.jpg",
        "http://[::1]/a.jpg",
        "http://10.0.0.1/a.jpg",
        "http://2130706433/a.jpg",
        "http://[/a.jpg",
        "//127.0.0.2/a.jpg",
        "FILE:///etc/hostname",
    ],
)
async def test_a_url_that_leads_nowhere_good_is_a_bad_one(url: str) -> None:
    async with Web(allow=HOSTS) as web, fetching(web) as fetcher:
        with pytest.raises(FetchFailed) as failure:
            await fetched(fetcher, url)
    assert failure.value.outcome is Outcome.BAD_URL


async def test_a_file_is_read_if_it_is_a_plain_one(tmp_path: Path) -> None:
    def put(name: str, size: int) -> str:
        (tmp_path / name).write_bytes(JPEG[:size] + bytes(max(0, size - len(JPEG))))
        return (tmp_path / name).as_uri()

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("a 🍕 #1?.jpg")
    async with Web() as web, fetching(web) as fetcher:
        name = put("a 🍕 #1?.jpg", len(JPEG))
        assert await fetched(fetcher, name) == JPEG
        assert await fetched(fetcher, name, cid_of(JPEG)) == JPEG
        assert await outcome(fetcher, name, cid_of(b"")) is Outcome.ALTERED
        assert await fetched(fetcher, (tmp_path / "link").as_uri()) == JPEG
        assert len(await fetched(fetcher, put("most", MAX_BYTES))) == MAX_BYTES
        assert await outcome(fetcher, put("more", MAX_BYTES + 1)) is Outcome.TOO_LARGE
        assert await outcome(fetcher, put("none", 0)) is Outcome.EMPTY
        for other in ("pipe", "missing", "", "a" * 300):
            url = (tmp_path / other).as_uri()
            assert await outcome(fetcher, url) is Outcome.UNREADABLE_FILE
        for odd in ("file:///dev/zero", "file:///proc/self/mem", "file:///%00", "file:"):
            assert await outcome(fetcher, odd) is Outcome.UNREADABLE_FILE


async def test_a_host_that_is_not_there_is_gone_for_now() -> None:
    async with (
        Standin(World(seed=1, posts=2), hosts=1, tls=True) as standin,
        Web(allow=LOOPBACK, ca_file=Path(standin.ca_file)) as web,
        fetching(web) as fetcher,
    ):
        bad_certificate = f"{standin.bad_https_url}/p/0_7.jpg"
        for url in ("http://127.0.0.9:9/a.jpg", "http://nobody.invalid/a.jpg", bad_certificate):
            failure = await attempt(fetcher, url)
            assert failure
            assert failure.outcome is Outcome.GONE_FOR_NOW
            assert failure.retry_seconds == pytest.approx(30, abs=1)
        assert await fetched(fetcher, f"{standin.https_urls[0]}/p/0_7.jpg")
        down = await attempt(fetcher, f"{standin.https_urls[0]}/bad/redirect-to-http")
        assert down
        assert down.outcome is Outcome.BAD_URL


async def test_a_failure_says_what_was_wrong_and_no_secret() -> None:
    async def handler(_: server.Request) -> server.StreamResponse:
        return server.Response(status=404)

    async with site(handler) as url, Web(allow=LOOPBACK) as web, fetching(web) as fetcher:
        with pytest.raises(FetchFailed) as failure:
            await fetched(fetcher, str((url / "a.jpg") % {"signature": "s3cret"}))
    assert str(failure.value) == f"{url}a.jpg answered 404"
