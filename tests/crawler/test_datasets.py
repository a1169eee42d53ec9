import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import dataset, promises
from services.shared import errors, shards
from tests.crawler.running import Running, brisk, crawler, until  # noqa: F401
from tests.crawler.test_removals import photograph, said, table

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.system]
module_wide = pytest_asyncio.fixture(scope="module", loop_scope="module")
ROWS = [(photograph(number), f"author{number}") for number in range(12)]


@module_wide
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with crawler(tmp_path_factory.mktemp("data")) as served:
        yield served


@module_wide
async def crawl(running: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dozen pictures."""
    return (await running.crawl(table(tmp_path_factory.mktemp("own"), *ROWS))).name


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> "Held":
    held = Held()
    monkeypatch.setattr(dataset, "write", held.write)
    return held


class Held:
    """Freezing of which the first waits, in its thread, until it may go on."""

    def __init__(self) -> None:
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self._write = dataset.write

    def write(self, *arguments: Any, **named: Any) -> dataset.Frozen:
        if not self.began.is_set():
            self.began.set()
            self.may_go_on.wait(10)
        return self._write(*arguments, **named)


def asked(crawl: str, **more: Any) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(crawls=[crawl], **more)


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    code: grpc.StatusCode = raised.value.code()
    return code


async def test_a_crawl_becomes_a_data_set_that_verifies(running: Running, crawl: str) -> None:
    found = await running.freeze(crawl, name="first", validation_share=0.25, test_share=0.25)
    folder = Path(found.uri)
    assert folder == (running.data / "datasets" / "first").resolve()
    assert sum(found.samples.values()) == len(ROWS)
    assert found.digest == shards.facts(folder)["digest"]
    assert found.end_time.ToMilliseconds() >= found.create_time.ToMilliseconds()
    stages = {(c.stage, c.outcome): c.count for c in found.funnel.counts}
    assert stages["post", "kept"] == stages["image", "stored"] == stages["dataset", "sample"] == 12
    promises.verify(folder)
    listed = await running.stub.ListDatasets(pb.ListDatasetsRequest())
    assert found in listed.datasets


async def test_the_same_crawl_frozen_again_gives_the_same_bytes(
    running: Running, crawl: str
) -> None:
    one, two = [Path((await running.freeze(crawl, name=n)).uri) for n in ("again-1", "again-2")]
    differ = {
        path.relative_to(one)
        for path in one.rglob("*")
        if path.is_file() and path.read_bytes() != (two / path.relative_to(one)).read_bytes()
    }
    assert differ <= {Path("dataset.json"), Path("datasheet.md")}  # they say its name


async def test_data_sets_without_a_name_get_one_each(running: Running, crawl: str) -> None:
    names = {(await running.stub.CreateDataset(asked(crawl))).dataset.name for _ in range(3)}
    assert len(names) == 3
    for name in names:
        assert (await running.frozen(name)).state == states.STATE_SUCCEEDED


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "-x", "x" * 65, "a b", "ä", "a\n"])
async def test_a_name_that_could_be_a_path_is_refused(
    running: Running, crawl: str, name: str
) -> None:
    call = running.stub.CreateDataset(asked(crawl, name=name))
    assert await code_of(call) == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
async def test_a_share_that_is_none_is_refused(running: Running, crawl: str, share: float) -> None:
    for field in ("validation_share", "test_share"):
        call = running.stub.CreateDataset(asked(crawl, **{field: share}))
        assert await code_of(call) == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_not_there_cannot_be_frozen(
    running: Running, crawl: str, tmp_path: Path
) -> None:
    create = running.stub.CreateDataset
    empty = await running.crawl(table(tmp_path, (b"no picture", "ann")))
    assert await code_of(create(asked(empty.name))) == grpc.StatusCode.FAILED_PRECONDITION
    assert await code_of(create(asked("nobody"))) == grpc.StatusCode.NOT_FOUND
    assert await code_of(create(pb.CreateDatasetRequest())) == grpc.StatusCode.INVALID_ARGUMENT
    rank = pb.StartCrawlRequest(mode=pb.CRAWL_MODE_RANK, imported=empty.request.imported)
    ranked = await running.crawl(rank)
    assert await code_of(create(asked(ranked.name))) == grpc.StatusCode.INVALID_ARGUMENT
    assert (
        await code_of(running.stub.GetDataset(pb.GetDatasetRequest(name="nobody")))
        == grpc.StatusCode.NOT_FOUND
    )


async def test_a_name_is_taken_once(running: Running, crawl: str) -> None:
    await running.freeze(crawl, name="taken")
    call = running.stub.CreateDataset(asked(crawl, name="taken"))
    assert await code_of(call) == grpc.StatusCode.ALREADY_EXISTS


async def test_watchers_see_a_data_set_being_written_and_complete(
    running: Running, crawl: str, held: Held
) -> None:
    await running.stub.CreateDataset(asked(crawl, name="watched"))
    await until(held.began.is_set)
    seen = []
    async for message in running.stub.WatchDataset(pb.WatchDatasetRequest(name="watched")):
        seen.append(message.dataset.state)
        held.may_go_on.set()
    # Its funnel may be told before its end.
    assert [state for state, _ in groupby(seen)] == [states.STATE_RUNNING, states.STATE_SUCCEEDED]


async def test_a_disk_without_room_fails_a_data_set_and_says_so(
    running: Running, crawl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> dataset.Frozen:
        raise errors.StorageFailed("No space left on device")

    monkeypatch.setattr(dataset, "write", full)
    await running.stub.CreateDataset(asked(crawl, name="full"))
    found = await running.frozen("full")
    assert found.state == states.STATE_FAILED
    assert isinstance(errors.from_proto(found.error), errors.StorageFailed)


async def test_what_is_removed_while_a_data_set_is_written_is_not_in_it(
    running: Running, tmp_path: Path, held: Held
) -> None:
    crawl = await running.crawl(table(tmp_path, *ROWS[:6], name="m"))
    await running.stub.CreateDataset(asked(crawl.name, name="meanwhile"))
    await until(held.began.is_set)
    await running.remove(post=said("import", "m/0"))
    held.may_go_on.set()
    found = await running.frozen("meanwhile")
    assert found.state == states.STATE_SUCCEEDED
    folder = Path(found.uri)
    left = {s.key for each in shards.SPLITS for s in shards.read_samples(folder, each)}
    assert len(left) == 5


async def test_what_is_removed_before_a_data_set_is_known_is_excluded_from_it(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl = await running.crawl(table(tmp_path, *ROWS[6:], name="n"))
    loop, write = asyncio.get_running_loop(), dataset.write

    def overtaken(*arguments: Any, **named: Any) -> dataset.Frozen:
        frozen = write(*arguments, **named)
        gone = running.remove(post=said("import", "n/0"))
        asyncio.run_coroutine_threadsafe(gone, loop).result(10)
        return frozen

    monkeypatch.setattr(dataset, "write", overtaken)
    found = await running.freeze(crawl.name, name="overtaken")
    assert (sum(found.samples.values()), found.excluded) == (6, 1)
    assert len(shards.excluded(Path(found.uri))) == 1
    promises.verify(Path(found.uri))


async def test_two_who_ask_for_rewriting_at_once_do_not_get_into_each_others_way(
    tmp_path: Path,
) -> None:
    async with crawler(tmp_path / "data") as running:
        crawl = await running.crawl(table(tmp_path / "own", *ROWS, name="c"))
        await running.freeze(crawl.name, name="compacted")
        await asyncio.gather(
            *(running.remove(post=said("import", f"c/{n}"), compact=True) for n in range(3))
        )
        ask = pb.GetDatasetRequest(name="compacted")
        found = (await running.stub.GetDataset(ask)).dataset
        assert (found.excluded, sum(found.samples.values())) == (0, 9)
        assert found.digest == shards.facts(Path(found.uri))["digest"]
        promises.verify(Path(found.uri))


async def test_a_data_set_is_completed_by_the_next_process(tmp_path: Path, held: Held) -> None:
    async with crawler(tmp_path / "data") as running:
        crawl = await running.crawl(table(tmp_path / "own", *ROWS))
        await running.stub.CreateDataset(asked(crawl.name, name="late"))
        await until(held.began.is_set)
    async with crawler(tmp_path / "data") as running:
        found = await running.frozen("late")
        assert found.state == states.STATE_SUCCEEDED
        promises.verify(Path(found.uri))
    held.may_go_on.set()
