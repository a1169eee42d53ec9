import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from grpc_status import rpc_status

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import crawls as module
from services.crawler.crawls import Crawls
from services.shared import errors
from tests.crawler.running import Running, brisk, collect, crawler, funnel, until  # noqa: F401
from tests.standin.standin import Standin
from tests.standin.world import World

WORLD = World(seed=1, posts=300, emoji=20, edge_px=48, noai=0.0, deleted=0.0)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.system]
module_wide = pytest_asyncio.fixture(scope="module", loop_scope="module")


@module_wide
async def standin() -> AsyncIterator[Standin]:
    async with Standin(WORLD, hosts=3) as running:
        yield running


@module_wide
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """For tests that leave nothing running."""
    async with crawler(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.3)
    monkeypatch.setattr("services.crawler.web.ATTEMPTS", 1)


@pytest.fixture
async def slow(standin: Standin) -> AsyncIterator[Standin]:
    """Pictures take their time, so that crawls can be caught at work."""
    standin.cdn.latency = 0.2
    yield standin
    standin.cdn.latency = 0.0


def instagram(standin: Standin, folder: Path, token: str = "valid") -> pb.StartCrawlRequest:
    path = folder / "token"
    path.write_text(token)
    source = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(path))
    return collect(instagram=source)


def table(standin: Standin, path: Path, *rows: str) -> pb.StartCrawlRequest:
    """A file of the user's own: numbers of posts, or whole lines."""
    lines = [
        f"{standin.image_url(WORLD.image(4 * int(row)))},so good 🍕" if row.isdecimal() else row
        for row in rows
    ]
    path.write_text("\n".join(["image,text", *lines]))
    return collect(imported=pb.ImportSource(path=str(path)))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, str, str]:
    """Code, reason, field and message."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = rpc_status.from_call(cast(grpc.Call, raised.value))
    assert status
    info = errors.info(status.details)
    field = info.metadata.get("field", "")
    return raised.value.code(), info.reason.removeprefix("ERROR_REASON_"), field, status.message


# -- starting -------------------------------------------------------------------------------------

RANK, COLLECT = pb.CRAWL_MODE_RANK, pb.CRAWL_MODE_COLLECT
IMPORT: dict[str, Any] = {"imported": pb.ImportSource(path="posts.csv")}
BLUESKY: dict[str, Any] = {"bluesky": pb.BlueskySource()}


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("mode", pb.StartCrawlRequest(**IMPORT)),
        ("mode", pb.StartCrawlRequest(mode=7, **IMPORT)),  # type: ignore[arg-type]
        ("source", pb.StartCrawlRequest(mode=COLLECT)),
        ("vocabulary_size", pb.StartCrawlRequest(mode=RANK, vocabulary_size=-1, **BLUESKY)),
        ("max_posts", collect(max_posts=-1, **BLUESKY)),
        ("max_duration", collect(max_duration=Duration(seconds=-1), **BLUESKY)),
        ("rules.max_hashtags", collect(rules=pb.KeepRules(max_hashtags=-1), **BLUESKY)),
        ("rules.images_per_emoji", collect(rules=pb.KeepRules(images_per_emoji=-1), **BLUESKY)),
        ("rules.images_per_author", collect(rules=pb.KeepRules(images_per_author=-1), **BLUESKY)),
        ("vocabulary_crawl", pb.StartCrawlRequest(mode=RANK, vocabulary_crawl="x", **BLUESKY)),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(
    shared: Running, field: str, request_: pb.StartCrawlRequest
) -> None:
    code, reason, named, message = await refusal(shared.stub.StartCrawl(request_))
    assert (code, reason, named) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MALFORMED_REQUEST",
        field,
    )
    assert field in message


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"imported": pb.ImportSource()}, "`path` is empty"),
        ({"imported": pb.ImportSource(path="/nowhere/posts.csv")}, "is no file or folder"),
        ({"instagram": pb.InstagramSource(base_url="nonsense")}, "`base_url` is 'nonsense'"),
        ({"bluesky": pb.BlueskySource(jetstream_url="http://x")}, "jetstream_url"),
    ],
)
async def test_a_source_that_cannot_be_is_refused_at_once(
    shared: Running, source: dict[str, Any], told: str
) -> None:
    *_, message = await refusal(shared.stub.StartCrawl(collect(**source)))
    assert told in message


async def test_a_table_without_the_columns_is_refused_at_once(
    shared: Running, tmp_path: Path
) -> None:
    path = tmp_path / "posts.csv"
    path.write_text("image,written\n1.jpg,so good 🍕\n")
    request = collect(imported=pb.ImportSource(path=str(path)))
    code, reason, _, message = await refusal(shared.stub.StartCrawl(request))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BAD_SOURCE")
    assert "its columns are image, written" in message
    request.imported.columns["text"] = "written"
    assert (await shared.crawl(request)).state == states.STATE_SUCCEEDED


async def test_a_vocabulary_must_be_there(shared: Running, tmp_path: Path) -> None:
    ask = collect(vocabulary_crawl="rank-1", **BLUESKY)
    assert (await refusal(shared.stub.StartCrawl(ask)))[:2] == (
        grpc.StatusCode.NOT_FOUND,
        "UNKNOWN_CRAWL",
    )
    path = tmp_path / "posts.csv"
    path.write_text("image,text\n1.jpg,so good 🍕\n")
    (other,) = [await shared.crawl(collect(imported=pb.ImportSource(path=str(path))))]
    ask.vocabulary_crawl = other.name
    assert (await refusal(shared.stub.StartCrawl(ask)))[:2] == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NOT_READY",
    )


async def test_a_crawl_that_there_is_not_is_not_found(shared: Running) -> None:
    stub = shared.stub
    for call in (
        stub.GetCrawl(pb.GetCrawlRequest(name="nobody")),
        stub.CancelCrawl(pb.CancelCrawlRequest(name="nobody")),
        stub.WatchCrawl(pb.WatchCrawlRequest(name="nobody")).read(),
    ):
        code, reason, _, message = await refusal(call)
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_CRAWL")
        assert "'nobody'" in message


# -- importing ------------------------------------------------------------------------------------


async def test_rows_that_are_no_posts_are_counted_and_named_in_the_log(
    shared: Running, standin: Standin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    request = table(standin, tmp_path / "a.csv", "1", ",no picture 🍕", "2", "x.jpg,🍕,more", "3")
    crawl = await shared.crawl(request)
    assert funnel(crawl, "post") == {"kept": 3, "malformed": 2}
    assert funnel(crawl, "image") == {"stored": 3}
    assert "a.csv line 3: it has no image" in caplog.text
    assert "a.csv line 5: it has 3 fields, and the header 2" in caplog.text


async def test_crawls_are_listed_the_newest_first(shared: Running, tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_text("image,text\n1.jpg,so good 🍕\n")
    names = [(await shared.crawl(collect(imported=pb.ImportSource(path=str(path))))).name]
    names.insert(0, (await shared.crawl(collect(imported=pb.ImportSource(path=str(path))))).name)
    listed = await shared.stub.ListCrawls(pb.ListCrawlsRequest())
    assert [crawl.name for crawl in listed.crawls][:2] == names


# -- watching and cancelling ----------------------------------------------------------------------


async def test_watchers_see_the_state_of_now_then_changes_then_the_end(
    slow: Standin, tmp_path: Path
) -> None:
    async with crawler(tmp_path) as running:
        name = await running.start(table(slow, tmp_path / "posts.csv", *map(str, range(60))))
        await asyncio.sleep(0.1)
        seen = [m.crawl async for m in running.stub.WatchCrawl(pb.WatchCrawlRequest(name=name))]
        assert [crawl.state for crawl in seen[:-1]] == [states.STATE_RUNNING] * (len(seen) - 1)
        assert seen[-1].state == states.STATE_SUCCEEDED
        assert len(seen) > 2
        assert all(one != other for one, other in pairwise(seen))
        assert any("pictures to fetch" in crawl.activity for crawl in seen)
        assert seen[-1].end_time.ToMilliseconds() >= seen[-1].create_time.ToMilliseconds()
        assert funnel(seen[-1], "image").total() == 60
        watched = running.stub.WatchCrawl(pb.WatchCrawlRequest(name=name))
        assert [message.crawl async for message in watched] == seen[-1:]


async def test_who_stops_watching_harms_nothing(slow: Standin, tmp_path: Path) -> None:
    async with crawler(tmp_path) as running:
        name = await running.start(table(slow, tmp_path / "posts.csv", *map(str, range(30))))
        watching = running.stub.WatchCrawl(pb.WatchCrawlRequest(name=name))
        await watching.read()
        watching.cancel()
        assert (await running.reached(name)).state == states.STATE_SUCCEEDED


async def test_cancelling_keeps_what_was_found_and_cancelling_again_changes_nothing(
    slow: Standin, tmp_path: Path
) -> None:
    async with crawler(tmp_path) as running:
        name = await running.start(table(slow, tmp_path / "posts.csv", *map(str, range(200))))
        await until(running.files)  # type: ignore[arg-type]
        ask = pb.CancelCrawlRequest(name=name)
        crawl = (await running.stub.CancelCrawl(ask)).crawl
        assert crawl.state == states.STATE_CANCELLED
        assert 0 < funnel(crawl, "image")["stored"] < 200
        assert len(running.kept(name)) == funnel(crawl, "image").total()
        assert (await running.stub.CancelCrawl(ask)).crawl == crawl
        await asyncio.sleep(0.5)
        assert await running.get(name) == crawl
        assert running.files() == funnel(crawl, "image")["stored"]
    async with crawler(tmp_path) as running:
        await asyncio.sleep(0.1)
        assert await running.get(name) == crawl


async def test_a_crawl_is_cancelled_even_if_who_asked_has_gone(
    slow: Standin, tmp_path: Path
) -> None:
    async with crawler(tmp_path) as running:
        crawls = Crawls(running.tools)
        crawls.go_on()
        request = table(slow, tmp_path / "posts.csv", *map(str, range(200)))
        name = (await crawls.start(request)).name
        await until(lambda: bool(running.tools.frontier.pending(name)))
        call = asyncio.create_task(crawls.cancel(name))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert (await running.get(name)).state == states.STATE_CANCELLED
        await crawls.close()


# -- going on -------------------------------------------------------------------------------------


async def test_a_crawl_goes_on_after_a_restart_and_finds_what_there_is_once(
    slow: Standin, tmp_path: Path
) -> None:
    rows = [str(number) for number in range(250)]
    request = table(slow, tmp_path / "posts.csv", *rows)
    async with crawler(tmp_path) as running:
        name = await running.start(request)
        await until(running.files)  # type: ignore[arg-type]
    slow.cdn.latency = 0.0
    async with crawler(tmp_path) as running:
        crawl = await running.get(name)
        assert crawl.state == states.STATE_RUNNING
        assert 0 < funnel(crawl, "image").total() < 250
        crawl = await running.reached(name)
        assert funnel(crawl, "post") == {"kept": 250}
        assert funnel(crawl, "image").total() == 250
        assert running.files() == funnel(crawl, "image")["stored"]


async def test_a_token_that_expired_pauses_a_crawl_until_it_is_replaced(
    standin: Standin, tmp_path: Path
) -> None:
    request = instagram(standin, tmp_path, "expired-1")
    token = Path(request.instagram.token_file)
    async with crawler(tmp_path) as running:
        name = await running.start(request)
        crawl = await running.reached(name, states.STATE_PAUSED)
        await until(lambda: running.sample("emojinet_crawls", state="running") == 0)
        assert running.sample("emojinet_crawls", state="paused") == 1
        error = errors.from_proto(crawl.error)
        assert isinstance(error, errors.SourceRefused)
        assert f"put a valid access token into {token}" in str(error)
        token.unlink()
        while "cannot be read" not in (await running.get(name)).error.message:
            await asyncio.sleep(0.02)
        token.write_text("valid\n")
        crawl = await running.reached(name)
        assert crawl.state == states.STATE_SUCCEEDED
        assert not crawl.HasField("error")
        assert len(running.kept(name)) > 100


async def test_what_was_read_before_a_token_expired_is_fetched_meanwhile(
    slow: Standin, tmp_path: Path
) -> None:
    request = instagram(slow, tmp_path)
    async with crawler(tmp_path) as running:
        name = await running.start(request)
        await until(lambda: bool(running.tools.frontier.pending(name)))
        Path(request.instagram.token_file).write_text("expired-2")
        crawl = await running.reached(name, states.STATE_PAUSED)
        assert crawl.state == states.STATE_PAUSED
        assert funnel(crawl, "image").total() == funnel(crawl, "post")["kept"] > 0
        Path(request.instagram.token_file).write_text("valid")
        slow.cdn.latency = 0.0
        assert (await running.reached(name)).state == states.STATE_SUCCEEDED


async def test_a_source_that_is_down_pauses_a_crawl_until_it_is_back(tmp_path: Path) -> None:
    async with Standin(WORLD, hosts=1) as standin:
        request = instagram(standin, tmp_path)
    request.instagram.base_url = "http://127.0.0.1:1/v1"
    async with crawler(tmp_path) as running:
        name = await running.start(request)
        crawl = await running.reached(name, states.STATE_PAUSED)
        assert crawl.state == states.STATE_PAUSED
        error = errors.from_proto(crawl.error)
        assert isinstance(error, errors.SourceUnavailable)
        assert "127.0.0.1:1" in str(error)
        async with Standin(WORLD, hosts=1) as standin:
            request.instagram.base_url = f"{standin.base_url}/v1"
            running.tools.database.run(
                "UPDATE crawl SET request = ? WHERE name = ?", request.SerializeToString(), name
            )
            assert (await running.reached(name)).state == states.STATE_SUCCEEDED


# -- a full disk ----------------------------------------------------------------------------------


async def test_a_disk_without_room_for_pictures_pauses_a_crawl_and_nothing_is_lost(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    request = table(standin, tmp_path / "posts.csv", *map(str, range(100)))
    async with crawler(tmp_path) as running:
        with monkeypatch.context() as patched:
            patched.setattr("services.crawler.store._write", full)
            name = await running.start(request)
            crawl = await running.reached(name, states.STATE_PAUSED)
            error = errors.from_proto(crawl.error)
            assert isinstance(error, errors.StorageFailed)
            assert "No space left on device" in str(error)
        crawl = await running.reached(name)
        assert crawl.state == states.STATE_SUCCEEDED
        assert funnel(crawl, "image").total() == funnel(crawl, "post")["kept"] == 100
        assert running.files() == funnel(crawl, "image")["stored"]


async def test_a_disk_without_room_for_the_database_pauses_a_crawl_and_nothing_is_lost(
    standin: Standin, tmp_path: Path
) -> None:
    request = table(standin, tmp_path / "posts.csv", *map(str, range(250)))
    async with crawler(tmp_path) as running:
        database = running.tools.database
        ((pages,),) = database.rows("PRAGMA page_count")
        database.run(f"PRAGMA max_page_count = {pages + 4}")
        name = await running.start(request)
        crawl = await running.reached(name, states.STATE_PAUSED)
        assert crawl.state == states.STATE_PAUSED
        assert "database or disk is full" in errors.from_proto(crawl.error).args[0]
        database.run("PRAGMA max_page_count = 1000000")
        crawl = await running.reached(name)
        assert crawl.state == states.STATE_SUCCEEDED
        assert funnel(crawl, "post") == {"kept": 250}
        assert funnel(crawl, "image").total() == 250
