"""One collecting crawl at work: posts are read and judged; pictures fetched, prescaled, stored.

Reading and fetching go on side by side, and meet in the frontier alone: what is stopped at any
instant goes on from there.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from functools import partial

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import prescaled
from services.crawler.fetch import FetchFailed, Outcome
from services.crawler.frontier import Fate, Queued, Sample
from services.crawler.keep import Caps, Keeper, Verdict, author_hash
from services.crawler.metrics import UNDECODED
from services.crawler.post import Malformed, OptOut, Page, Post, Removal
from services.crawler.reading import pages
from services.crawler.sources import Plan, Source, name_of
from services.crawler.tools import Tools
from services.shared import faults
from services.shared.errors import (
    EmojinetError,
    ImageError,
    Internal,
    Overloaded,
    StorageFailed,
)
from services.shared.queue import Priority

IN_HAND = 24  # pictures of one host on their way from its server into the store
MAX_HOSTS = 256  # served side by side
LEASE = 256  # pictures taken from the frontier at a time
MAX_ATTEMPTS = 5
RETRY_SECONDS = 2.0  # before the second attempt; doubles, with jitter
SETTLE_SECONDS = 0.2  # what was learned in this time is stored in one transaction
LOOK_SECONDS = 0.2  # how often an idle part looks for work
DECODE_PATIENCE_SECONDS = 600.0
MANY = 100_000  # pictures to fetch: more are not counted for show

log = logging.getLogger(__name__)


class Crawling:
    """A crawl from where it stands to its end."""

    def __init__(self, crawl: pb.Crawl, source: Source, emoji: Sequence[str], tools: Tools) -> None:
        self._crawl, self._name = crawl, crawl.name
        self._source, self._source_name, self._emoji = source, name_of(crawl.request), emoji
        self._tools, self._frontier = tools, tools.frontier
        self._fates: list[Fate] = []
        self._after: dict[str, int] = {}  # host -> the last picture taken from the frontier
        self._trying: set[int] = set()  # pictures in hand that are tried again
        self._resting: dict[str, float] = {}  # host -> when it may be asked again
        self._reading = True
        self._failure: EmojinetError | None = None  # of the source

    async def run(self) -> None:
        """Works until everything is read and fetched.

        Raises:
            EmojinetError: it cannot go on; what it has is stored.
        """
        try:
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle_often())
                group.create_task(self._read_beside())
                await group.create_task(self._fetch())
                settling.cancel()
        except* EmojinetError as failures:
            raise _first(failures) from None
        finally:
            with suppress(StorageFailed):  # what is not stored now is fetched again
                self._settle()
        if self._failure:
            raise self._failure

    @property
    def activity(self) -> str:
        """What it is doing, for people."""
        pending = self._frontier.pending(self._name, MANY)
        left = f"{pending:,}{'+' if pending == MANY else ''} pictures to fetch"
        if self._failure:
            return f"{left}, then a pause: {self._failure}"
        return f"reading posts; {left}" if self._reading else left

    # -- reading ----------------------------------------------------------------------------------

    async def _read_beside(self) -> None:
        try:
            await self.read()
        except StorageFailed:
            raise
        except EmojinetError as failure:  # of the source: what it gave is fetched all the same
            log.warning("%s reads no further for now: %s", self._name, failure)
            self._failure = failure
        self._reading = False

    async def read(self) -> None:
        """Reads and judges all posts, without fetching. Raises EmojinetError as the source does."""
        counts = self._frontier.emoji_counts(self._name)
        of_author = partial(self._frontier.author_count, self._name)
        caps = Caps(self._crawl.request.rules, counts, of_author)
        keeper = Keeper(
            self._source_name, self._emoji, self._crawl.request.rules, caps, self._tools.key
        )
        plan = Plan(emoji=self._emoji, wanted=caps.wanted)
        async with aclosing(pages(self._crawl, self._source, self._frontier, plan)) as found:
            async for page in found:
                self._admit(page, keeper)

    def _admit(self, page: Page, keeper: Keeper) -> None:
        """Stores what is worth keeping of a page, and that it was read, in one transaction."""
        tally: Counter[str] = Counter()
        removing = False
        with self._frontier.transaction():
            for event in page.events:
                if isinstance(event, Post | Malformed):
                    tally[self._judge(event, keeper)] += 1
                else:
                    removing |= self._remove(event)
            faults.point("page-begun")
            self._frontier.advance(self._name, page.cursor, tally)
        faults.point("page-stored")
        if removing:
            self._tools.removals.apply()
        for outcome, count in tally.items():
            self._tools.metrics.posts.labels(self._source_name, outcome).inc(count)

    def _judge(self, event: Post | Malformed, keeper: Keeper) -> Verdict:
        if isinstance(event, Malformed):
            log.info("%s: %s: %s", self._name, event.where, event.why)
            return Verdict.MALFORMED
        kept = keeper.judge(event, partial(self._tools.removals.verdict, self._source_name))
        if isinstance(kept, Verdict):
            return kept
        if not self._frontier.add(self._name, kept):
            return Verdict.SEEN
        keeper.caps.count(kept)
        return Verdict.KEPT

    def _remove(self, event: Removal | OptOut) -> bool:
        """Takes down what the source says must be; whether there was any of it."""
        removals, source = self._tools.removals, self._source_name
        if isinstance(event, Removal) and event.uri:
            if not removals.has_posts(source, event.uri):
                return False  # as nearly always in a stream of all deletions
            removals.remove_post(source, event.uri, forever=event.for_good)
            return True
        author = author_hash(source, event.author, self._tools.key)
        if isinstance(event, OptOut):
            removals.opt_out(source, author, allow=event.allow)
        else:
            removals.remove_author(source, author)
        return True

    # -- fetching ---------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Serves hosts side by side until nothing is left to be fetched or read."""
        active: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while self._reading or active or self._fates or self._frontier.pending(self._name):
                for host in self._idle(active):
                    active[host] = group.create_task(self._serve(host))
                    active[host].add_done_callback(partial(_leave, active, host))
                await asyncio.sleep(LOOK_SECONDS)

    def _idle(self, active: Collection[str]) -> list[str]:
        """Hosts that may be served besides."""
        if len(active) >= MAX_HOSTS:
            return []
        idle = [host for host in self._frontier.hosts(self._name) if host not in active]
        random.shuffle(idle)  # or those that have to wait would keep the last from their turn
        return idle[: MAX_HOSTS - len(active)]

    async def _serve(self, host: str) -> None:
        """Fetches a host's pictures until it has none whose time has come."""
        slots = asyncio.Semaphore(IN_HAND)
        in_hand: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while (batch := self._lease(host)) or in_hand:
                for queued in batch:
                    await slots.acquire()
                    task = group.create_task(self._image(host, queued))
                    in_hand.add(task)
                    task.add_done_callback(in_hand.discard)
                    task.add_done_callback(lambda _: slots.release())
                if not batch:
                    await asyncio.sleep(LOOK_SECONDS)

    def _lease(self, host: str) -> list[Queued]:
        if self._resting.get(host, 0.0) > time.time():
            return []
        fresh = self._frontier.fresh(self._name, host, self._after.get(host, 0), LEASE)
        if fresh:
            self._after[host] = fresh[-1].id
        again = self._frontier.again(self._name, host, time.time(), LEASE)
        again = [queued for queued in again if queued.id not in self._trying]
        self._trying.update(queued.id for queued in again)
        return again + fresh

    async def _image(self, host: str, queued: Queued) -> None:
        try:
            with self._tools.metrics.in_hand.track_inprogress():
                async with self._tools.fetcher.fetched(queued.image) as content:
                    faults.point("picture-fetched")
                    fate = await self._taken(queued.id, content)
        except FetchFailed as failure:
            if failure.outcome == Outcome.LIMITED:  # so would be all others of this host
                self._resting[host] = time.time() + (failure.retry_seconds or 0.0)
            fate = _missed(queued, failure)
        except (ImageError, Internal) as error:  # one picture is no reason to stop
            fate = Fate(queued.id, outcome=UNDECODED[type(error)])
        except Overloaded:
            fate = _again(queued, RETRY_SECONDS, queued.attempts)
        self._fates.append(fate)

    async def _taken(self, id: int, content: bytes) -> Fate:
        """The fate of a picture whose bytes are here: its file is written, unless it was before."""
        sha256 = hashlib.sha256(content).digest()
        if known := self._frontier.sample(sha256):
            return Fate(id, sample=known)
        if self._tools.removals.has_image(sha256):
            return Fate(id, outcome=Verdict.REMOVED)
        served = await self._tools.decoders.decode(
            content,
            cost_seconds=self._tools.decoders.check(content),
            priority=Priority.BULK,
            deadline=time.monotonic() + DECODE_PATIENCE_SECONDS,
        )
        seen = prescaled.unpack(served.reply)
        self._tools.store.put(sha256, seen.jpeg)
        faults.point("picture-written")
        return Fate(id, sample=Sample(sha256, seen.pdq, seen.quality, seen.width, seen.height))

    # -- settling ---------------------------------------------------------------------------------

    async def _settle_often(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            self._settle()

    def _settle(self) -> None:
        """Stores the fates of pictures since the last time, in one transaction."""
        fates = [self._unless_removed(fate) for fate in self._fates]
        if not fates:
            return
        with self._frontier.transaction():
            settled = self._frontier.settle(self._name, fates)
            faults.point("fates-begun")
        faults.point("fates-stored")
        self._fates.clear()
        self._trying.difference_update(fate.id for fate in fates)
        for sha256 in settled.unwanted:
            if not self._frontier.sample(sha256):
                self._tools.store.remove(sha256)
        for outcome, count in settled.tally.items():
            self._tools.metrics.images.labels(outcome).inc(count)

    def _unless_removed(self, fate: Fate) -> Fate:
        """The fate, unless its picture, or one that looks like it, was taken down meanwhile."""
        if not fate.sample:
            return fate
        sha256, pdq, quality, *_ = fate.sample
        removals, store = self._tools.removals, self._tools.store
        if removals.has_image(sha256) or removals.has_look(pdq, quality):
            store.remove(sha256)
            return Fate(fate.id, outcome=Verdict.REMOVED)
        if not store.path(sha256).exists():  # it was only another's that went: it is fetched anew
            return Fate(fate.id, attempts=1)
        return fate


def _leave(active: "dict[str, asyncio.Task[None]]", host: str, _: object) -> None:
    del active[host]


def _missed(queued: Queued, failure: FetchFailed) -> Fate:
    """What follows from a picture that could not be had: another attempt, later, or none."""
    made = queued.attempts + (failure.outcome != Outcome.LIMITED)
    if failure.retry_seconds is None or made >= MAX_ATTEMPTS:
        return Fate(queued.id, outcome=failure.outcome)
    return _again(queued, RETRY_SECONDS * 2**made, made, failure.retry_seconds)


def _again(queued: Queued, pause_seconds: float, made: int, told_seconds: float = 0.0) -> Fate:
    """Another attempt: what a host has told us to wait is kept to within a tenth."""
    pause = max(told_seconds * random.uniform(1, 1.1), pause_seconds * random.uniform(1, 1.5))
    return Fate(queued.id, attempts=max(1, made), due_seconds=time.time() + pause)


def _first(failures: BaseExceptionGroup[EmojinetError]) -> EmojinetError:
    """One of the failures, which may be grouped in groups."""
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
