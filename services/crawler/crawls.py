"""The crawls of a service: started, gone on with after a restart, paused, cancelled."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import cast

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler.crawl import MANY, Crawling
from services.crawler.post import Page
from services.crawler.rank import Ranking, ranked
from services.crawler.sources import Plan, Source, name_of
from services.crawler.sources.bluesky import BlueskySource
from services.crawler.sources.imported import ImportedSource
from services.crawler.sources.instagram import InstagramSource
from services.crawler.tools import Tools
from services.shared import errors, vocabulary
from services.shared.errors import EmojinetError, MalformedRequest, NotReady
from services.shared.queue import internal
from services.shared.vocabulary import Vocabulary

PAUSE_SECONDS = 30.0  # before what waits for a person is tried again
MEASURE_SECONDS = 5.0  # between looks at how much there is to do
MODES = {pb.CRAWL_MODE_RANK: "rank", pb.CRAWL_MODE_COLLECT: "collect"}
# A full disk gets room, a token is replaced, a server comes back: pauses end without a restart.
PAUSING = (errors.StorageFailed, errors.SourceRefused, errors.SourceUnavailable)

log = logging.getLogger(__name__)


class Crawls:
    """All crawls of one data folder, each a task while it lives."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._frontier = tools, tools.frontier
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._at_work: dict[str, Crawling] = {}

    def go_on(self) -> None:
        """Continues what an earlier process of this service began."""
        for name in self._frontier.live():
            self._begin(name)
        self._measuring = asyncio.create_task(self._measure())
        self._tools.metrics.show_crawls(lambda: len(self._at_work), self._waiting)

    async def start(self, request: pb.StartCrawlRequest) -> pb.Crawl:
        """A new crawl, at work from now on.

        Raises:
            MalformedRequest: a field breaks its rule.
            BadSource, SourceRefused, UnknownCrawl, NotReady: what it names is not there.
        """
        _check(request)
        source = self._opened(request)
        plan = Plan(emoji=self._emoji(request), wanted=lambda emoji: True)
        if isinstance(source, ImportedSource):  # whoever waits can say at once what they meant
            pages = cast(AsyncGenerator[Page, None], source.pages("", plan))
            async with contextlib.aclosing(pages):
                await anext(pages, None)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        name = f"{MODES[request.mode]}-{stamp}-{secrets.token_hex(2)}"
        self._frontier.create(name, request)
        self._begin(name)
        return self.get(name)

    def get(self, name: str) -> pb.Crawl:
        """A crawl as it is now, with its vocabulary if it has ranked one."""
        crawl = self.described(self._frontier.crawl(name))
        if found := self._vocabulary(crawl):
            crawl.vocabulary.extend(
                pb.EmojiCount(emoji=emoji, count=count)
                for emoji, count in zip(found.emoji, found.counts, strict=True)
            )
        return crawl

    def list(self) -> Sequence[pb.Crawl]:
        """All crawls, the newest first, without vocabularies."""
        return [self.described(crawl) for crawl in self._frontier.crawls()]

    def described(self, crawl: pb.Crawl) -> pb.Crawl:
        """The crawl with what it is doing now."""
        if crawling := self._at_work.get(crawl.name):
            crawl.activity = crawling.activity
        return crawl

    async def cancel(self, name: str) -> pb.Crawl:
        """Ends a crawl for good; one that has ended stays as it is."""
        crawl = self._frontier.crawl(name)
        # First of all: whoever asked may go away while the crawl comes to its end.
        self._frontier.set_state(crawl.name, states.STATE_CANCELLED)
        if task := self._tasks.get(name):
            task.cancel()
            await asyncio.wait([task])
        return self.get(name)

    async def close(self) -> None:
        """Stops working; what is not done is gone on with by the next process."""
        tasks = [self._measuring, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def vocabulary(self, request: pb.StartCrawlRequest) -> Vocabulary | None:
        """What a collecting crawl collects; none for the whole inventory.

        Raises:
            UnknownCrawl, NotReady: there is no such vocabulary, or not yet.
        """
        if not request.vocabulary_crawl:
            return None
        found = self._vocabulary(self._frontier.crawl(request.vocabulary_crawl))
        if not found:
            raise NotReady(
                f"{request.vocabulary_crawl} has no vocabulary: it must be a `rank` crawl that "
                "has succeeded and counted something."
            )
        return found

    def _vocabulary(self, crawl: pb.Crawl) -> Vocabulary | None:
        ready = crawl.state == states.STATE_SUCCEEDED
        if crawl.request.mode != pb.CRAWL_MODE_RANK or not ready:
            return None
        return ranked(self._frontier.emoji_counts(crawl.name), crawl.request.vocabulary_size)

    def _emoji(self, request: pb.StartCrawlRequest) -> Sequence[str]:
        found = self.vocabulary(request)
        return found.emoji if found else tuple(emoji.text for emoji in vocabulary.inventory())

    def _opened(self, request: pb.StartCrawlRequest) -> Source:
        match request.WhichOneof("source"):
            case "imported":
                return ImportedSource(request.imported)
            case "instagram":
                return InstagramSource(request.instagram, self._tools.web)
            case _:
                return BlueskySource(request.bluesky, self._tools.web)

    def _waiting(self) -> int:
        living = sum(not task.done() for task in list(self._tasks.values()))
        return max(0, living - len(self._at_work))

    async def _measure(self) -> None:
        """Keeps the gauges of metrics up to date."""
        metrics = self._tools.metrics
        while True:
            with contextlib.suppress(errors.StorageFailed):
                metrics.queued.set(sum(self._frontier.pending(n, MANY) for n in self._at_work))
                metrics.show(self._tools.web.quotas)
            await asyncio.sleep(MEASURE_SECONDS)

    # -- at work ----------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._live(name), name=name)

    async def _live(self, name: str) -> None:
        """A crawl's life in this process, with pauses, until it ends."""
        while True:
            failure: EmojinetError
            try:
                self._frontier.set_state(name, states.STATE_RUNNING)
                await self._work(self._frontier.crawl(name))
                self._frontier.set_state(name, states.STATE_SUCCEEDED)
                log.info("%s has succeeded", name)
                return
            except EmojinetError as error:
                failure = error
            except Exception as error:
                failure = internal(error)
            finally:
                self._at_work.pop(name, None)
            log.warning("%s: %s", name, failure)
            pausing = isinstance(failure, PAUSING)
            state = states.STATE_PAUSED if pausing else states.STATE_FAILED
            with contextlib.suppress(errors.StorageFailed):  # tried again all the same
                self._frontier.set_state(name, state, errors.to_proto(failure).SerializeToString())
            if not pausing:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _work(self, crawl: pb.Crawl) -> None:
        source = self._opened(crawl.request)
        if crawl.request.mode == pb.CRAWL_MODE_RANK:
            await Ranking(crawl, source, self._tools).run()
            return
        crawling = Crawling(crawl, source, self._emoji(crawl.request), self._tools)
        self._at_work[crawl.name] = crawling
        await crawling.run()


def _check(request: pb.StartCrawlRequest) -> None:
    if request.mode not in MODES:
        raise MalformedRequest("`mode` is CRAWL_MODE_RANK or CRAWL_MODE_COLLECT.", field="mode")
    if not name_of(request):
        raise MalformedRequest(
            "`source` is one of `imported`, `instagram` and `bluesky`.", field="source"
        )
    numbers = {
        "vocabulary_size": request.vocabulary_size,
        "max_posts": request.max_posts,
        "max_duration": request.max_duration.ToNanoseconds(),
        "rules.max_hashtags": request.rules.max_hashtags,
        "rules.images_per_emoji": request.rules.images_per_emoji,
        "rules.images_per_author": request.rules.images_per_author,
    }
    for field, number in numbers.items():
        if number < 0:
            raise MalformedRequest(f"`{field}` is not negative; 0 is the default.", field=field)
    if request.mode == pb.CRAWL_MODE_RANK and request.vocabulary_crawl:
        raise MalformedRequest(
            "`vocabulary_crawl` is for collecting: ranking counts the whole inventory.",
            field="vocabulary_crawl",
        )
