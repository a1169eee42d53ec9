"""Crawls of the stand-in network, whose truth is known."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import crawl as module
from services.crawler.crawl import Crawling
from services.crawler.fetch import PER_HOST, FetchFailed, Outcome
from services.crawler.post import PostImage
from services.crawler.sources.imported import ImportedSource
from services.shared.errors import Internal
from tests.crawler.running import Running, Unpooled, brisk, collect, crawler, funnel, until  # noqa: F401
from tests.standin.standin import Standin
from tests.standin.truth import wanted
from tests.standin.world import Post, World, folded

WORLD = World(seed=1, posts=400, emoji=40, edge_px=64)
CLOSED = 3  # the host whose robots.txt forbids everything
MOST_USED = 15

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.system]
module_wide = pytest_asyncio.fixture(scope="module", loop_scope="module")


@module_wide
async def standin() -> AsyncIterator[Standin]:
    # Five, since the first pictures of posts have numbers of which each is a multiple of four.
    async with Standin(WORLD, hosts=5, robots={CLOSED: "disallow"}, latency=0.02) as running:
        yield running


@module_wide
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with crawler(tmp_path_factory.mktemp("data")) as served:
        yield served


@module_wide
async def ranked(standin: Standin, running: Running) -> pb.Crawl:
    """The most used emoji."""
    ask = instagram(standin, running.data)
    ask.mode, ask.vocabulary_size = pb.CRAWL_MODE_RANK, MOST_USED
    return await running.crawl(ask)


@module_wide
async def collected(standin: Standin, running: Running, ranked: pb.Crawl) -> pb.Crawl:
    """All there is for them."""
    ask = instagram(standin, running.data, vocabulary_crawl=ranked.name)
    return await running.crawl(ask)


def instagram(standin: Standin, folder: Path, **more: Any) -> pb.StartCrawlRequest:
    token = folder / "token"
    token.write_text("valid")
    source = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(token))
    request = collect(instagram=source)
    request.MergeFrom(pb.StartCrawlRequest(**more))
    return request


def uri(post: Post) -> str:
    return f"https://instagram.com/p/{post.number:x}/"


def listed(vocabulary: set[str]) -> Iterator[Post]:
    """Posts that a crawl comes across, and that the rules keep."""
    tags = {folded(emoji) for emoji in vocabulary}
    for post in WORLD.truth():
        if tags & {folded(tag) for tag in post.tags} and post.emoji & vocabulary and post.keeps():
            yield post


def digest(standin: Standin, post: Post) -> bytes:
    return hashlib.sha256(standin.pictures.of(post.images[0])).digest()


async def test_the_most_used_emoji_are_found_with_their_counts(ranked: pb.Crawl) -> None:
    counts = {emoji: len(tag) for emoji in WORLD.order if (tag := WORLD.tag(emoji))}
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_USED]
    assert [(each.emoji, each.count) for each in ranked.vocabulary] == most


async def test_exactly_the_posts_worth_keeping_are_kept_with_exactly_their_emoji(
    standin: Standin, running: Running, ranked: pb.Crawl, collected: pb.Crawl
) -> None:
    vocabulary = {each.emoji for each in ranked.vocabulary}
    right = {post.post.number for post in wanted(standin, "instagram")}
    expected = {uri(p): p.emoji & vocabulary for p in listed(vocabulary) if p.number in right}
    assert len(expected) > 100
    assert running.kept(collected.name) == expected


async def test_every_post_and_every_picture_is_in_one_count_of_the_funnel(
    standin: Standin, running: Running, ranked: pb.Crawl, collected: pb.Crawl
) -> None:
    posts, images = funnel(collected, "post"), funnel(collected, "image")
    expected, digests = Counter[str](), set[bytes]()
    for post in listed({each.emoji for each in ranked.vocabulary}):
        image = post.images[0]
        if standin.host_closed(image):
            expected["robots"] += 1
        elif post.deleted:
            expected["not_found"] += 1
        elif image.noai:
            expected["opted_out"] += 1
        else:
            expected["stored" if digest(standin, post) not in digests else "duplicate"] += 1
            digests.add(digest(standin, post))
    assert min(expected.values()) > 0 < len(expected) == 5
    assert images == expected
    assert posts["kept"] == images.total()
    assert posts.keys() >= {"no_emoji_in_caption", "too_many_hashtags", "seen_before", "no_image"}
    assert running.files() == len(digests) == images["stored"]


async def test_what_is_counted_is_told_to_prometheus_too(
    running: Running, collected: pb.Crawl
) -> None:
    for outcome, count in funnel(collected, "post").items():
        labels = {"source": "instagram-v1", "outcome": outcome}
        assert running.sample("emojinet_posts_total", **labels) == count, outcome
    for outcome, count in funnel(collected, "image").items():
        assert running.sample("emojinet_images_total", outcome=outcome) == count, outcome


async def test_no_host_is_asked_too_much_and_none_refuses(
    standin: Standin, collected: pb.Crawl
) -> None:
    report = standin.stats.report()
    hosts = [host for name, host in report["hosts"].items() if not name.endswith(".1")]
    assert max(host["peak"] for host in hosts) == PER_HOST
    assert "429" not in report["statuses"]
    assert report["hosts"][f"127.0.0.{2 + CLOSED}"]["kinds"] == {"robots": 1}
    assert report["canary"] == 0
    assert report["images_fetched_again"] == 0


async def test_the_same_pictures_are_linked_to_a_later_crawls_posts_and_not_stored_again(
    standin: Standin, running: Running, collected: pb.Crawl, ranked: pb.Crawl
) -> None:
    files = running.files()
    again = await running.crawl(collected.request)
    images = funnel(again, "image")
    assert images["stored"] == 0
    before = funnel(collected, "image")
    assert images["duplicate"] == before["stored"] + before["duplicate"]
    assert running.kept(again.name) == running.kept(collected.name)
    assert running.files() == files


async def test_caps_bound_the_pictures_of_each_emoji_and_each_author(
    standin: Standin, running: Running
) -> None:
    rules = pb.KeepRules(images_per_emoji=9, images_per_author=3)
    crawl = await running.crawl(instagram(standin, running.data, rules=rules))
    posts = funnel(crawl, "post")
    assert posts["author_cap"] > 0 < posts["emoji_cap"]
    rows = running.tools.database.rows(
        "SELECT author, count(*) FROM post WHERE crawl = ? GROUP BY author", crawl.name
    )
    assert max(count for _, count in rows) == 3
    # A post is kept while any of its emoji lacks pictures: so the most used may go beyond.
    scarce = Counter[str]()
    for (mentions,) in running.tools.database.rows(
        "SELECT mentions FROM post WHERE crawl = ? ORDER BY id", crawl.name
    ):
        emoji = {each for each, _ in json.loads(mentions)}
        assert min(scarce[each] for each in emoji) < 9
        scarce.update(emoji)


async def test_a_crawl_ends_after_so_many_posts(standin: Standin, running: Running) -> None:
    crawl = await running.crawl(instagram(standin, running.data, max_posts=33))
    assert funnel(crawl, "post").total() == 33
    assert funnel(crawl, "image").total() == funnel(crawl, "post")["kept"]


async def test_what_was_used_of_a_quota_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Standin(WORLD, hosts=1, limit=20) as standin:
        ask = instagram(standin, tmp_path)
        for _ in range(2):
            async with crawler(tmp_path) as running:
                if not running.tools.frontier.live():
                    await running.start(ask)
                await until(lambda: any(q.calls == 20 for q in standin.stats.quotas.values()))
                await asyncio.sleep(0.5)
                quota = standin.stats.quotas["valid"]
                assert (quota.calls, quota.refused) == (20, 0)
                (name,) = running.tools.frontier.live()
                assert (await running.get(name)).state == states.STATE_RUNNING
                assert running.sample("emojinet_crawls", state="running") == 1
            left = running.sample("emojinet_source_quota_remaining", source="instagram-v1")
        assert left == 0


# -- with a fetcher of the test's own -------------------------------------------------------------


class Fetching:
    """A fetcher that does as a test wants."""

    def __init__(self, *outcomes: Outcome, seconds: float = 0.0) -> None:
        self.asked = list[str]()
        self.outcomes, self._seconds = list(outcomes), seconds

    @asynccontextmanager
    async def fetched(self, image: PostImage) -> AsyncIterator[bytes]:
        self.asked.append(image.url)
        await asyncio.sleep(0)
        if self.outcomes:
            outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
            raise FetchFailed(outcome, "as the test wants", retry_seconds=self._seconds)
        yield image.url.encode()


def table(folder: Path, *urls: str) -> pb.StartCrawlRequest:
    path = folder / "posts.csv"
    path.write_text("image,text\n" + "".join(f"{url},so good 🍕\n" for url in urls))
    return collect(imported=pb.ImportSource(path=str(path)))


def crawling(running: Running, ask: pb.StartCrawlRequest, fetcher: Fetching) -> Crawling:
    """A crawl with another fetcher, not yet at work."""
    running.tools.frontier.create("collect-1", ask)
    tools = replace(running.tools, fetcher=cast(Any, fetcher))
    crawl = running.tools.frontier.crawl("collect-1")
    return Crawling(crawl, ImportedSource(ask.imported), ["🍕"], tools)


@pytest.mark.timeout(20)
async def test_hosts_that_must_wait_do_not_keep_others_from_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    late = [f"https://{host}.example/1.jpg" for host in "abcdef"]

    class Waiting(Fetching):
        @asynccontextmanager
        async def fetched(self, image: PostImage) -> AsyncIterator[bytes]:
            self.asked.append(image.url)
            if image.url in late:
                raise FetchFailed(Outcome.GONE_FOR_NOW, "down", retry_seconds=3600.0)
            raise FetchFailed(Outcome.NOT_FOUND, "no")
            yield b""

    async with crawler(tmp_path) as running:
        fetcher = Waiting()
        work = crawling(running, table(tmp_path, *late, "https://z.example/1.jpg"), fetcher)
        task = asyncio.create_task(work.run())
        while "https://z.example/1.jpg" not in fetcher.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])


async def test_a_host_that_wants_us_to_wait_is_not_asked_for_each_of_its_pictures(
    tmp_path: Path,
) -> None:
    urls = [f"https://slow.example/{number}.jpg" for number in range(3000)]
    async with crawler(tmp_path) as running:
        fetcher = Fetching(Outcome.LIMITED, seconds=60.0)
        task = asyncio.create_task(crawling(running, table(tmp_path, *urls), fetcher).run())
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.wait([task])
        assert 0 < len(fetcher.asked) <= module.LEASE
        limited = "SELECT max(attempts) FROM image"
        assert running.tools.database.row(limited) == (1,), "waiting is no attempt"


async def test_a_picture_is_given_up_after_five_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with crawler(tmp_path) as running:
        fetcher = Fetching(Outcome.LIMITED, Outcome.GONE_FOR_NOW)
        work = crawling(running, table(tmp_path, "https://a.example/1.jpg"), fetcher)
        await work.run()
        assert len(fetcher.asked) == module.MAX_ATTEMPTS
        crawl = await running.get("collect-1")
        assert funnel(crawl, "image") == {"gone_for_now": 1}
        assert not work._trying


async def test_a_picture_at_which_a_decoder_fails_unforeseen_is_counted_and_harms_no_other(
    tmp_path: Path,
) -> None:
    class Failing(Unpooled):
        def check(self, content: bytes) -> float:
            raise Internal("as the test wants")

    async with crawler(tmp_path, decoders=Failing()) as running:
        urls = [f"https://a.example/{number}.jpg" for number in range(3)]
        await crawling(running, table(tmp_path, *urls), Fetching()).run()
        crawl = await running.get("collect-1")
        assert funnel(crawl, "image") == {"internal": 3}
        assert running.sample("emojinet_images_total", outcome="internal") == 3
