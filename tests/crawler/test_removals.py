"""What is taken down goes at once, from everywhere, and never comes back."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from PIL import Image as Pillow

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import crawl as module
from services.crawler import promises
from services.crawler.keep import author_hash
from services.crawler.manifest import MANIFEST
from services.crawler.store import Store
from services.shared import shards
from services.shared.decoders import Decoders
from services.shared.queue import Served
from tests.crawler.running import Running, Unpooled, brisk, collect, crawler, funnel, until  # noqa: F401
from tests.standin.pictures import Pictures
from tests.standin.standin import Standin
from tests.standin.world import Post, World

WORLD = World(
    seed=1,
    posts=200,
    emoji=10,
    edge_px=64,
    authors=40,
    noai=0,
    duplicates=0,
    fates=0,
    sensitive=0,
    deleted=0,
)
KEEPING = [post for post in WORLD.truth() if post.keeps()]
PICTURES = Pictures(WORLD)
AUTHOR = WORLD.author(0)  # who has most posts
THEIRS = [post for post in KEEPING if post.author == AUTHOR]
OTHERS = [post for post in KEEPING if post.author != AUTHOR]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.system]
module_wide = pytest_asyncio.fixture(scope="module", loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def standin() -> AsyncIterator[Standin]:
    async with Standin(WORLD, hosts=2, past=0.0) as running:
        yield running


class Live:
    """A crawl of what happens on Bluesky now."""

    def __init__(self, running: Running, standin: Standin, name: str) -> None:
        self.running, self.name, self._standin = running, name, standin

    async def post(self, *posts: Post) -> None:
        """They are made, and their pictures are stored."""
        for post in posts:
            await self._standin.emit(self._standin.events.creation(post))
        await until(lambda: all(self.has(post) for post in posts))
        await until(lambda: not self.running.tools.frontier.pending(self.name))

    def has(self, post: Post) -> bool:
        return WORLD.uri(post) in self.running.kept(self.name)

    def frontier_has(self, post: Post) -> bool:
        return self.running.tools.removals.has_posts("bluesky", WORLD.uri(post))

    async def verdicts(self, outcome: str, count: int) -> None:
        """Waits until so many posts have met a fate."""
        funnel_of = self.running.tools.frontier.funnel
        await until(
            lambda: any(
                (each.stage, each.outcome, each.count) == ("post", outcome, count)
                for each in funnel_of([self.name]).counts
            )
        )


def bluesky(standin: Standin, **more: Any) -> pb.StartCrawlRequest:
    source = pb.BlueskySource(
        jetstream_url=standin.base_url.replace("http", "ws"),
        cdn_url=standin.urls[0],
        directory_url=standin.base_url,
    )
    return collect(bluesky=source, **more)


class Stoppable(Unpooled):
    """Decoders that can be kept from going on."""

    stopped, waiting = False, 0

    async def decode(self, content: bytes, **more: object) -> Served:
        self.waiting += 1
        while self.stopped:
            await asyncio.sleep(0.01)
        self.waiting -= 1
        return await super().decode(content, **more)


@asynccontextmanager
async def going(
    standin: Standin, data: Path, decoders: Decoders | None = None, **more: Any
) -> AsyncIterator[Live]:
    async with crawler(data, decoders=decoders) as running:
        before = standin.jetstream.connections
        name = await running.start(bluesky(standin, **more))
        await until(lambda: standin.jetstream.connections > before)
        yield Live(running, standin, name)


def keys_of(data: Path, name: str, uri: str) -> set[str]:
    """The samples of a data set that show a post."""
    rows = pq.read_table(data / "datasets" / name / MANIFEST, columns=["uri", "key"]).to_pylist()
    found = {row["key"] for row in rows if row["uri"] == uri}
    assert found
    return found


def is_out(data: Path, name: str, keys: set[str]) -> bool:
    return keys <= shards.excluded(data / "datasets" / name)


def jpeg(content: bytes, scale: float = 1.0, quality: int = 75) -> bytes:
    """The same picture, saved anew."""
    picture, file = Pillow.open(BytesIO(content)).convert("RGB"), BytesIO()
    size = round(picture.width * scale), round(picture.height * scale)
    picture.resize(size).save(file, "JPEG", quality=quality)
    return file.getvalue()


def photograph(number: int) -> bytes:
    return PICTURES.of(WORLD.image(4 * number))


def table(folder: Path, *rows: tuple[bytes, str], name: str = "posts") -> pb.StartCrawlRequest:
    """Pictures with their authors, as files of the user's own."""
    folder.mkdir(exist_ok=True)
    lines = ["image,text,author,id"]
    for number, (content, author) in enumerate(rows):
        (folder / f"{name}{number}.jpg").write_bytes(content)
        lines.append(f"{name}{number}.jpg,so good 🍕,{author},{name}/{number}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines))
    return collect(imported=pb.ImportSource(path=str(path)))


def said(source: str, uri: str) -> pb.PostReference:
    return pb.PostReference(source=source, uri=uri)


# -- live -----------------------------------------------------------------------------------------


async def test_what_is_posted_now_is_kept_and_what_is_deleted_is_gone_within_a_second(
    standin: Standin, tmp_path: Path
) -> None:
    posts = KEEPING[:12]
    async with going(standin, tmp_path) as live:
        await live.post(*posts)
        assert live.running.kept(live.name) == {WORLD.uri(p): set(p.emoji) for p in posts}
        await live.running.freeze(live.name, name="frozen")
        files = live.running.files()
        lasted = []
        for post in posts[:3]:
            keys = keys_of(tmp_path, "frozen", WORLD.uri(post))
            await standin.emit(standin.events.deletion(post))
            lasted.append(await until(lambda: is_out(tmp_path, "frozen", keys)))  # noqa: B023
            assert not live.has(post)
            assert not live.frontier_has(post)
        assert sorted(lasted)[1] < 1.0, lasted
        gone = sum(len(post.images) for post in posts[:3])
        await until(lambda: live.running.files() == files - gone)
        found = await live.running.stub.GetDataset(pb.GetDatasetRequest(name="frozen"))
        assert found.dataset.excluded == gone
        promises.verify(tmp_path / "datasets" / "frozen")
        samples = {
            s.key
            for split in shards.SPLITS
            for s in shards.read_samples(tmp_path / "datasets" / "frozen", split)
        }
        assert not samples & shards.excluded(tmp_path / "datasets" / "frozen")


async def test_an_account_that_goes_takes_all_its_posts_along_and_posts_no_more(
    standin: Standin, tmp_path: Path
) -> None:
    first, second, third, *_ = THEIRS
    other = OTHERS[0]
    async with going(standin, tmp_path) as live:
        await live.post(first, second, other)
        await standin.emit(standin.events.account(AUTHOR, "deleted"))
        await until(lambda: not live.has(first) and not live.has(second))
        await standin.emit(standin.events.creation(third))
        await live.verdicts("removed", 1)
        assert live.has(other)
        await until(lambda: live.running.files() == len(other.images))


async def test_who_opts_out_is_out_until_they_opt_in_again(
    standin: Standin, tmp_path: Path
) -> None:
    first, second, third, *_ = THEIRS
    async with going(standin, tmp_path) as live:
        await live.post(first)
        await standin.emit(standin.events.intent(AUTHOR, allow=False))
        await until(lambda: not live.has(first))
        await standin.emit(standin.events.creation(second))
        await live.verdicts("opted_out", 1)
        await standin.emit(standin.events.intent(AUTHOR, allow=True))
        await live.post(third)
        assert not live.has(second)


async def test_a_live_crawl_ends_when_its_time_is_over(standin: Standin, tmp_path: Path) -> None:
    async with going(standin, tmp_path, max_duration=Duration(seconds=2)) as live:
        await live.post(KEEPING[0])
        crawl = await live.running.reached(live.name)
        assert crawl.state == states.STATE_SUCCEEDED
        lasted = crawl.end_time.ToMilliseconds() - crawl.create_time.ToMilliseconds()
        assert 2000 <= lasted < 5000
        assert funnel(crawl, "image") == {"stored": len(KEEPING[0].images)}


async def test_a_live_crawl_goes_on_where_it_was_after_a_restart(
    standin: Standin, tmp_path: Path
) -> None:
    first, second, third = KEEPING[:3]
    async with going(standin, tmp_path) as live:
        await live.post(first, second)
        name = live.name
    await standin.emit(standin.events.deletion(first))
    await standin.emit(standin.events.creation(third))
    async with crawler(tmp_path) as running:
        live = Live(running, standin, name)
        await until(lambda: live.has(third) and not live.has(first))
        crawl = await running.get(name)
        assert funnel(crawl, "post") == {"kept": 3}


async def test_a_post_that_is_deleted_while_its_picture_is_on_its_way_leaves_nothing(
    standin: Standin, tmp_path: Path
) -> None:
    other, post = [post for post in KEEPING if len(post.images) == 1][:2]
    decoders = Stoppable()
    async with going(standin, tmp_path, decoders) as live:
        await live.post(other)
        decoders.stopped = True
        await standin.emit(standin.events.creation(post))
        await until(lambda: decoders.waiting > 0)
        await standin.emit(standin.events.deletion(post))
        await until(lambda: not live.frontier_has(post))
        decoders.stopped = False
        await until(lambda: decoders.waiting == 0)
        await asyncio.sleep(0.5)
        assert live.running.files() == 1
        assert len(live.running.tools.database.rows("SELECT 1 FROM sample")) == 1
        crawl = await live.running.get(live.name)
        assert crawl.state == states.STATE_RUNNING
        assert funnel(crawl, "image") == {"stored": 1}


# -- by request -----------------------------------------------------------------------------------


@module_wide
async def imported(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Running, str]]:
    """Ten pictures of five authors, frozen."""
    folder = tmp_path_factory.mktemp("own")
    async with crawler(tmp_path_factory.mktemp("data")) as running:
        rows = [(photograph(number), f"author{number // 2}") for number in range(10)]
        crawl = await running.crawl(table(folder, *rows))
        await running.freeze(crawl.name, name="one")
        await running.freeze(crawl.name, name="two")
        yield running, crawl.name


async def test_a_post_is_taken_down_by_its_address(imported: tuple[Running, str]) -> None:
    running, crawl = imported
    keys = [keys_of(running.data, name, "posts/0") for name in ("one", "two")]
    files = running.files()
    gone = await running.remove(post=said("import", "posts/0"))
    assert (gone.removed_images, gone.excluded_samples) == (1, 2)
    assert list(gone.datasets) == ["one", "two"]
    assert running.files() == files - 1
    assert "posts/0" not in running.kept(crawl)
    assert is_out(running.data, "one", keys[0])
    assert is_out(running.data, "two", keys[1])
    again = await running.remove(post=said("import", "posts/0"))
    assert (again.removed_images, again.excluded_samples) == (0, 0)


async def test_an_author_is_taken_down_by_name_and_data_sets_are_rewritten_if_asked(
    imported: tuple[Running, str],
) -> None:
    running, _ = imported
    before = (await running.stub.GetDataset(pb.GetDatasetRequest(name="one"))).dataset
    author = pb.AuthorReference(source="import", author="author1")
    gone = await running.remove(author=author, compact=True)
    assert (gone.removed_images, gone.excluded_samples) == (2, 4)
    for name in ("one", "two"):
        folder = running.data / "datasets" / name
        found = (await running.stub.GetDataset(pb.GetDatasetRequest(name=name))).dataset
        assert found.excluded == 0
        assert sum(found.samples.values()) == 10 - 1 - 2  # with what had only been excluded
        assert found.digest == shards.facts(folder)["digest"]
        assert not shards.excluded(folder)
        promises.verify(folder)
    assert found.digest != before.digest


async def test_a_picture_is_taken_down_by_its_bytes_with_those_that_look_like_it(
    imported: tuple[Running, str], tmp_path: Path
) -> None:
    running, crawl = imported
    content = photograph(9)
    other = await running.crawl(table(tmp_path / "b", (jpeg(content, 0.8), "z"), name="b"))
    assert funnel(other, "image") == {"stored": 1}
    gone = await running.remove(image_sha256=hashlib.sha256(content).hexdigest().upper())
    assert gone.removed_images == 2
    assert gone.excluded_samples == 2
    assert "posts/9" not in running.kept(crawl)
    assert not running.kept(other.name)


async def test_what_there_is_not_can_be_taken_down_beforehand(
    imported: tuple[Running, str], tmp_path: Path
) -> None:
    running, _ = imported
    content = photograph(50)
    gone = await running.remove(image_sha256=hashlib.sha256(content).hexdigest())
    assert (gone.removed_images, gone.excluded_samples, list(gone.datasets)) == (0, 0, [])
    crawl = await running.crawl(table(tmp_path / "c", (content, "z"), name="c"))
    assert funnel(crawl, "image") == {"removed": 1}


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"post": said("import", "")},
        {"post": said("nowhere", "posts/0")},
        {"author": pb.AuthorReference(source="import")},
        {"image_sha256": "0" * 63},
        {"image_sha256": "x" * 64},
    ],
)
async def test_what_names_nothing_is_refused(
    imported: tuple[Running, str], what: dict[str, Any]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await imported[0].remove(**what)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_was_removed_never_comes_back_by_an_import(tmp_path: Path) -> None:
    content = photograph(2)
    async with crawler(tmp_path / "data") as running:
        first = await running.crawl(table(tmp_path / "a", (content, "ann")))
        await running.remove(post=said("import", "posts/0"))
        rows = [(content, "ben"), (jpeg(content), "cem"), (jpeg(content, 0.6, 60), "dan")]
        again = await running.crawl(table(tmp_path / "b", *rows, name="b"))
        assert funnel(again, "post") == {"kept": 3}
        assert funnel(again, "image") == {"removed": 3}
        assert running.files() == 0
        same = await running.crawl(first.request)
        assert funnel(same, "post") == {"removed": 1}


# -- in between -----------------------------------------------------------------------------------


def flat() -> bytes:
    """A picture that looks like any other of its kind: only its bytes tell what it is."""
    file = BytesIO()
    Pillow.new("RGB", (80, 80), (90, 140, 220)).save(file, "JPEG")
    return file.getvalue()


async def _overtaken(
    running: Running, folder: Path, content: bytes, take_down: Callable[[], Any]
) -> pb.Crawl:
    """Another's crawl of the same picture, of which `take_down` comes before it is settled."""
    before = running.files()
    name = await running.start(table(folder, (content, "ben"), name="b"))
    await until(lambda: bool(running.tools.frontier.pending(name)))
    await asyncio.sleep(0.2)  # fetched, and not yet settled
    assert running.files() == before
    await take_down()
    return await running.reached(name)


async def test_a_picture_that_is_removed_while_another_crawl_meets_it_stays_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crawler(tmp_path / "data") as running:
        await running.crawl(table(tmp_path / "a", (flat(), "ann")))
        monkeypatch.setattr(module, "SETTLE_SECONDS", 2.0)
        crawl = await _overtaken(
            running,
            tmp_path / "b",
            flat(),
            lambda: running.remove(post=said("import", "posts/0")),
        )
        assert funnel(crawl, "image") == {"removed": 1}
        assert running.files() == 0
        assert not running.kept(crawl.name)


async def test_a_picture_that_is_removed_while_it_is_decoded_stays_away(tmp_path: Path) -> None:
    decoders = Stoppable()
    async with crawler(tmp_path / "data", decoders=decoders) as running:
        decoders.stopped = True
        name = await running.start(table(tmp_path / "a", (flat(), "ann")))
        await until(lambda: decoders.waiting > 0)
        await running.remove(image_sha256=hashlib.sha256(flat()).hexdigest())
        decoders.stopped = False
        crawl = await running.reached(name)
        assert funnel(crawl, "image") == {"removed": 1}
        assert running.files() == 0


async def opt_out(running: Running, author: str) -> None:
    removals = running.tools.removals
    with running.tools.database.transaction():
        hashed = author_hash("import", author, running.tools.key)
        removals.opt_out("import", hashed, allow=False)
    removals.apply()


async def test_a_picture_whose_first_author_opts_out_meanwhile_is_fetched_anew_for_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crawler(tmp_path / "data") as running:
        await running.crawl(table(tmp_path / "a", (flat(), "ann")))
        monkeypatch.setattr(module, "SETTLE_SECONDS", 2.0)
        crawl = await _overtaken(running, tmp_path / "b", flat(), lambda: opt_out(running, "ann"))
        assert funnel(crawl, "image") == {"stored": 1}
        assert running.files() == 1
        await running.freeze(crawl.name)


async def test_who_opts_out_takes_nothing_of_others_along(tmp_path: Path) -> None:
    async with crawler(tmp_path / "data") as running:
        crawl = await running.crawl(table(tmp_path / "a", (flat(), "ann"), (flat(), "ben")))
        await opt_out(running, "ann")
        assert running.kept(crawl.name).keys() == {"posts/1"}
        assert running.files() == 1


async def test_a_picture_that_came_back_before_its_file_was_deleted_keeps_it(
    tmp_path: Path,
) -> None:
    async with crawler(tmp_path / "data") as running:
        await running.crawl(table(tmp_path / "a", (flat(), "ann")))
        with running.tools.database.transaction():
            hashed = author_hash("import", "ann", running.tools.key)
            running.tools.removals.opt_out("import", hashed, allow=False)
        crawl = await running.crawl(table(tmp_path / "b", (flat(), "ben"), name="b"))
        assert running.tools.removals.apply().images == 0
        assert running.files() == 1
        await running.freeze(crawl.name)


async def test_a_data_set_that_is_damaged_keeps_nothing_else_from_going(tmp_path: Path) -> None:
    rows = [(photograph(number), f"author{number}") for number in range(3)]
    async with crawler(tmp_path / "data") as running:
        crawl = await running.crawl(table(tmp_path / "a", *rows))
        await running.freeze(crawl.name, name="damaged")
        await running.freeze(crawl.name, name="whole")
        keys = keys_of(running.data, "whole", "posts/0")
        (running.data / "datasets" / "damaged" / shards.EXCLUDED).write_text("nonsense")
        with pytest.raises(grpc.aio.AioRpcError, match="damaged"):
            await running.remove(post=said("import", "posts/0"))
        assert is_out(running.data, "whole", keys)
        assert running.files() == 2
    async with crawler(tmp_path / "data") as running:  # nor the service from starting
        assert (await running.get(crawl.name)).state == states.STATE_SUCCEEDED


async def test_a_picture_in_hand_when_the_process_died_leaves_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "crawler" / "images")
    store.put(b"1" * 32, b"half done")
    async with crawler(tmp_path):
        assert not store.path(b"1" * 32).exists()
