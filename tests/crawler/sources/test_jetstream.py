import asyncio
import ipaddress
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
import zstandard
from aiohttp import web as server
from hypothesis import given, settings
from hypothesis import strategies as st

from services.crawler.post import Malformed
from services.crawler.sources import frames, jetstream
from services.crawler.sources.frames import Account, Commit, Notice
from services.crawler.sources.jetstream import Jetstream, Window
from services.crawler.web import Web
from services.shared.errors import BadSource, MalformedRequest, SourceRefused, SourceUnavailable
from tests.standin.standin import Standin
from tests.standin.world import World

pytestmark = pytest.mark.system

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
DID = "did:plc:6aw7u7xjbaiznddugigmdhvc"
TIME_US = 1783175888373482
COMMIT = {
    "rev": "3mptbyplwma2l",
    "operation": "create",
    "collection": "app.bsky.feed.post",
    "rkey": "3mptbxs3hq22j",
    "record": {"$type": "app.bsky.feed.post", "text": "dinner #🍕"},
    "cid": "bafyreib5wrlfg3fjbf4tzllvotvke6cnk6pasjt6eshnert5p6x2fjf7za",
}
ACCOUNT = {"active": False, "did": DID, "seq": 31527015471, "status": "deleted"}
V1 = [
    {"did": DID, "time_us": TIME_US, "kind": "commit", "commit": COMMIT},
    {"did": DID, "time_us": TIME_US, "kind": "account", "account": ACCOUNT},
]
_V2 = {"seq": 12345, "did": DID, "time": "2026-07-04T14:38:08.373482Z"}
_NAME = "network.bsky.jetstream.subscribeEvents"
V2 = [
    {"$type": "message", "payload": _V2 | {"$type": f"{_NAME}#commit"} | COMMIT},
    {"$type": "message", "payload": _V2 | {"$type": f"{_NAME}#account", "account": ACCOUNT}},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def bent(draw: st.DrawFn) -> object:
    """A frame with one value replaced by another, somewhere."""
    frame = json.loads(json.dumps(draw(st.sampled_from(V1 + V2))))
    node = frame
    while True:
        key = draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or draw(st.booleans()):
            node[key] = draw(JSON)
            return frame
        node = node[key]


def test_both_versions_say_the_same() -> None:
    for first, second in zip(V1, V2, strict=True):
        one, two = (frames.parse(json.dumps(frame)) for frame in (first, second))

        assert isinstance(one, Commit | Account)
        assert isinstance(two, Commit | Account)
        assert one[1:] == two[1:]
        assert (one.place, two.place) == (TIME_US, 12345)


def test_kinds_without_a_meaning_are_passed_over_and_notices_are_told() -> None:
    identity = V1[0] | {"kind": "identity"}
    error = {"$type": "error", "error": "ConsumerTooSlow", "message": "hurry"}

    assert frames.parse(json.dumps(identity)) is None
    assert frames.parse(json.dumps(error)) == Notice("ConsumerTooSlow", "hurry", True)


@settings(max_examples=400)
@given(bent() | JSON)
def test_a_frame_with_anything_anywhere_is_read_or_refused(frame: object) -> None:
    try:
        message = frames.parse(json.dumps(frame))
    except ValueError as why:
        str(why).encode()
        return
    if isinstance(message, Commit):
        assert frames.DID.fullmatch(message.did)
        assert frames.RECORD_KEY.fullmatch(message.rkey)


@given(st.binary(max_size=64) | st.text(max_size=64))
def test_no_frame_however_malformed_is_more_than_malformed(frame: bytes | str) -> None:
    batch: list[jetstream.Message] = []

    _stream()._take(frame, Window(), batch)

    assert all(isinstance(message, Malformed) for message in batch)


@pytest.mark.parametrize("frame", ["[" * 100_000, "1" * 100_000, '{"$type":"message"}', "{}"])
def test_deep_nesting_and_huge_numbers_are_harmless(frame: str) -> None:
    batch: list[jetstream.Message] = []

    _stream()._take(frame, Window(), batch)

    assert len(batch) == (frame != "{}")


def test_a_frame_that_unpacks_to_much_more_is_malformed() -> None:
    batch: list[jetstream.Message] = []
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))

    _stream()._take(bomb, Window(), batch)

    assert "unpacks to more" in batch[0].why  # type: ignore[union-attr]


@settings(max_examples=200)
@given(st.data())
def test_a_stream_cut_and_taken_up_anywhere_gives_each_event_once(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.sampled_from([0, 1, 900_000, 4_000_000]), min_size=1, max_size=40))
    times = [TIME_US + sum(gaps[: i + 1]) for i in range(len(gaps))]
    by_time = data.draw(st.booleans())
    events = [(time if by_time else i + 1, time, str(i)) for i, time in enumerate(times)]
    extra = data.draw(st.integers(0, 3))  # servers may begin earlier than asked
    window = Window()
    got: list[str] = []
    while len(got) < len(events):
        places = [place for place, _, _ in events]
        first = next(i for i, place in enumerate(places) if place >= window.start)
        replay = iter(events[max(0, first - extra) :])
        wanted = len(got) + data.draw(st.integers(1, 8))
        while len(got) < min(wanted, len(events)):
            event = next(replay)
            if window.enter(*event):
                got.append(event[2])
        window = Window.load(window.dump())

    assert got == [identity for _, _, identity in events]


def test_who_goes_on_does_so_some_seconds_early_and_takes_what_came_late() -> None:
    window = Window()
    for time_us in range(TIME_US, TIME_US + 20_000_000, 100_000):
        window.enter(time_us, time_us, str(time_us))

    assert jetstream.REWIND_US <= window.end - window.start <= 2.1 * jetstream.REWIND_US
    assert not window.enter(window.start, window.start, str(window.start))
    assert window.enter(window.start + 1, window.start + 1, "late")


def test_a_window_stays_small_whatever_comes() -> None:
    window = Window()
    for number in range(50_000):
        window.enter(TIME_US, TIME_US, str(number))

    assert len(window.dump()) < 120_000


def test_a_cursor_of_another_source_is_refused() -> None:
    for cursor in ("5", "[]", '["", ""]', "nonsense", "[1,2,3,4,5]"):
        with pytest.raises(BadSource, match="no cursor of a Bluesky crawl"):
            Window.load(cursor)


@pytest.mark.parametrize("url", ["", "https://host", "ws://", "host"])
def test_a_url_of_something_else_is_the_callers_fault(url: str) -> None:
    with pytest.raises(MalformedRequest, match="jetstream_url"):
        _stream(url=url)
    with pytest.raises(MalformedRequest, match="cursor"):
        _stream(begin="yesterday")


@pytest.mark.parametrize("path", [jetstream.V1_PATH, jetstream.V2_PATH])
async def test_going_on_after_every_single_event_gives_each_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _standin(posts=30) as (standin, web):
        url = _socket_url(standin) + path
        whole = await _some(_stream(web, url, begin="1"), Window(), seconds=2)
        monkeypatch.setattr(jetstream, "BATCH_FRAMES", 1)
        cursor, single = "", list[jetstream.Message]()
        while len(single) < len(whole):
            window = Window.load(cursor)
            single += await _some(_stream(web, url, begin="1"), window, count=1)
            cursor = window.dump()

    assert len(whole) > 30
    assert single == whole


@pytest.mark.parametrize("path", [jetstream.V1_PATH, jetstream.V2_PATH])
async def test_connections_that_break_lose_and_repeat_nothing(path: str) -> None:
    async with _standin(posts=60) as (standin, web):
        url = _socket_url(standin) + path
        whole = await _some(_stream(web, url, begin="1"), Window(), seconds=2)
        standin.jetstream.disconnect_every = 17

        broken = await _some(_stream(web, url, begin="1"), Window(), count=len(whole))

    assert broken == whole


@pytest.mark.parametrize("path", [jetstream.V1_PATH, jetstream.V2_PATH])
async def test_a_compressed_stream_says_the_same(path: str) -> None:
    async with _standin(posts=20) as (standin, web):
        url, dictionary = _socket_url(standin) + path, standin.jetstream.dictionary.as_bytes()
        plain = await _some(_stream(web, url, begin="1"), Window(), seconds=3)

        packed = await _some(
            _stream(web, url, begin="1", dictionary=dictionary), Window(), count=len(plain)
        )

    assert packed == plain
    assert len(plain) > 20


async def test_a_cursor_that_is_too_old_leads_to_the_oldest_and_is_told() -> None:
    async with _standin(posts=20) as (standin, web):
        standin.jetstream.oldest = 4000

        got = await _some(
            _stream(web, _socket_url(standin) + jetstream.V2_PATH, begin="7"), Window(), seconds=3
        )

    told = [message for message in got if isinstance(message, Malformed)]
    assert "cursor 7 is refused" in told[0].why
    assert min(message.place for message in got if isinstance(message, Commit)) < 6000


async def test_a_reader_who_was_too_slow_comes_back() -> None:
    async with _standin(posts=10) as (standin, web):
        standin.jetstream.error = "ConsumerTooSlow"

        got = await _some(
            _stream(web, _socket_url(standin) + jetstream.V2_PATH, begin="1"), Window(), count=10
        )

    assert standin.jetstream.connections == 1  # the one that was not refused
    assert not any(isinstance(message, Malformed) for message in got)


async def test_an_archive_that_is_not_as_far_as_its_predecessor_is_read_by_time() -> None:
    async def feed(request: server.Request) -> server.StreamResponse:
        socket = server.WebSocketResponse(protocols=(jetstream.V2_PROTOCOL,), compress=False)
        await socket.prepare(request)
        if request.query["cursor"] == str(TIME_US):
            await socket.send_str(json.dumps(V2[0]))
        else:
            info = {"$type": f"{_NAME}#info", "name": "FutureCursor", "message": "now, then"}
            await socket.send_str(json.dumps({"$type": "message", "payload": info}))
        await socket.receive()
        return socket

    window = Window()
    window.enter(10**9, TIME_US, "of the predecessor")
    async with _served(feed, jetstream.V2_PATH) as url, _web() as web:
        told, message = await _some(_stream(web, url + jetstream.V2_PATH), window, count=2)

    assert isinstance(told, Malformed)
    assert "FutureCursor" in told.why
    assert isinstance(message, Commit)
    assert window.end == 12345


async def test_a_bare_host_that_speaks_only_version_2_is_understood() -> None:
    async with _feed([json.dumps(V2[0])], path=jetstream.V2_PATH) as url, _web() as web:
        (message,) = await _some(_stream(web, url), Window(), count=1)

    assert isinstance(message, Commit)


async def test_a_gap_that_version_1_keeps_quiet_about_is_told() -> None:
    window = Window()
    window.enter(TIME_US - 2 * jetstream.SILENCE_US, TIME_US - 2 * jetstream.SILENCE_US, "before")
    async with _feed([json.dumps(V1[0])]) as url, _web() as web:
        told, message = await _some(_stream(web, url), window, count=2)

    assert isinstance(told, Malformed)
    assert "there may have been more" in told.why
    assert isinstance(message, Commit)


async def test_what_came_before_the_end_of_a_connection_is_kept() -> None:
    async with _feed([json.dumps(V1[0])], stays=False) as url, _web() as web:
        (message,) = await _some(_stream(web, url), Window(), count=1)

    assert isinstance(message, Commit)


async def test_who_does_not_even_ping_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(jetstream, "ATTEMPTS", 2)
    async with _feed([]) as url, _web() as web:
        with pytest.raises(SourceUnavailable, match="not even a ping"):
            await _some(_stream(web, url), Window(), count=1)


async def test_who_does_not_let_us_in_refuses() -> None:
    async def forbid(_: server.Request) -> server.StreamResponse:
        return server.Response(status=403)

    async with _served(forbid) as url, _web() as web:
        with pytest.raises(SourceRefused, match="does not let us in"):
            await _some(_stream(web, url), Window(), count=1)


async def test_a_server_of_something_else_is_a_bad_source() -> None:
    async with _feed([], path="/elsewhere") as url, _web() as web:
        with pytest.raises(BadSource, match="gives no stream"):
            await _some(_stream(web, url), Window(), count=1)


async def test_nothing_at_all_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "ATTEMPTS", 2)
    async with _feed([]) as url:
        pass
    async with _web() as web:
        with pytest.raises(SourceUnavailable, match="gives nothing now"):
            await _some(_stream(web, url + "/subscribe"), Window(), count=1)


async def test_an_endless_supply_of_oversized_frames_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "ATTEMPTS", 2)
    async with _feed([os.urandom(1 << 22).hex()]) as url, _web() as web:
        with pytest.raises(SourceUnavailable, match="gives nothing now"):
            await _some(_stream(web, url), Window(), count=1)


def _stream(
    web: Web | None = None, url: str = "ws://host", begin: str = "", dictionary: bytes = b""
) -> Jetstream:
    collections = ("app.bsky.feed.post",)
    return Jetstream(web or Web(), url, collections, begin=begin, dictionary=dictionary)


async def _some(
    stream: Jetstream, window: Window, *, count: int = 10**9, seconds: float = 20
) -> list[jetstream.Message]:
    """So many messages, or what comes in so long."""
    got: list[jetstream.Message] = []
    try:
        async with asyncio.timeout(seconds), aclosing(stream.batches(window)) as batches:
            async for batch in batches:
                got += batch
                if len(got) >= count:
                    break
    except TimeoutError:
        pass
    return got


def _socket_url(standin: Standin) -> str:
    return standin.base_url.replace("http", "ws", 1)


def _web() -> Web:
    return Web(allow=LOOPBACK)


@asynccontextmanager
async def _standin(posts: int) -> AsyncIterator[tuple[Standin, Web]]:
    world = World(seed=2, posts=posts, edge_px=64)
    async with Standin(world, hosts=1) as standin, _web() as web:
        yield standin, web


@asynccontextmanager
async def _feed(
    frames: list[str], *, path: str = jetstream.V1_PATH, stays: bool = True
) -> AsyncIterator[str]:
    async def feed(request: server.Request) -> server.StreamResponse:
        socket = server.WebSocketResponse(protocols=(jetstream.V2_PROTOCOL,), compress=False)
        await socket.prepare(request)
        for frame in frames:
            await socket.send_str(frame)
        if stays:
            await socket.receive()
        return socket

    async with _served(feed, path) as url:
        yield url


@asynccontextmanager
async def _served(
    handler: Callable[[server.Request], object], path: str = jetstream.V1_PATH
) -> AsyncIterator[str]:
    app = server.Application()
    app.router.add_get(path, handler)  # type: ignore[arg-type]
    runner = server.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = server.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
