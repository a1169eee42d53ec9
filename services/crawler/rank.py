"""Which emoji people use most: every emoji of the inventory is counted at a source.

The article asked its source for the 845 counts of tags: ❤ had over a million, 📭 under a hundred. A
source without such counts is read, and the posts that use an emoji in their own words are counted.
"""

from collections import Counter
from contextlib import aclosing

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.keep import Verdict, mentioned
from services.crawler.post import Malformed, Page, Post
from services.crawler.reading import pages
from services.crawler.sources import CountingSource, Plan, Source, name_of
from services.crawler.tools import Tools
from services.shared import vocabulary
from services.shared.vocabulary import Vocabulary

VOCABULARY_SIZE = 500  # the article's


class Ranking:
    """A crawl that counts, from where it stands to its end."""

    def __init__(self, crawl: pb.Crawl, source: Source | CountingSource, tools: Tools) -> None:
        self._crawl, self._source, self._source_name = crawl, source, name_of(crawl.request)
        self._frontier, self._metrics = tools.frontier, tools.metrics

    async def run(self) -> None:
        """Counts until all is counted. Raises EmojinetError where it cannot go on."""
        if isinstance(self._source, CountingSource):
            await self._ask(self._source)
        else:
            await self._read(self._source)

    async def _ask(self, source: CountingSource) -> None:
        counted = self._frontier.emoji_counts(self._crawl.name)
        for emoji in vocabulary.inventory():
            if emoji.text not in counted:
                count = await source.count(emoji.text)
                self._frontier.count_emoji(self._crawl.name, {emoji.text: count})

    async def _read(self, source: Source) -> None:
        every = tuple(emoji.text for emoji in vocabulary.inventory())
        plan = Plan(emoji=every, wanted=lambda emoji: True)
        async with aclosing(pages(self._crawl, source, self._frontier, plan)) as found:
            async for page in found:
                self._count(page)

    def _count(self, page: Page) -> None:
        counts: Counter[str] = Counter()
        tally: Counter[str] = Counter()
        for event in page.events:
            if isinstance(event, Post):
                emoji = {mention.emoji for mention in mentioned(event)}
                counts.update(emoji)
                tally[Verdict.COUNTED if emoji else Verdict.NO_EMOJI] += 1
            elif isinstance(event, Malformed):
                tally[Verdict.MALFORMED] += 1
        with self._frontier.transaction():
            self._frontier.count_emoji(self._crawl.name, counts)
            self._frontier.advance(self._crawl.name, page.cursor, tally)
        for outcome, count in tally.items():
            self._metrics.posts.labels(self._source_name, outcome).inc(count)


def ranked(counts: dict[str, int], size: int) -> Vocabulary | None:
    """The most used of the counted emoji, most used first; None if none was used.

    Ties go by code points, so that the same counts give the same vocabulary.
    """
    used = [(emoji, count) for emoji, count in counts.items() if count]
    most = sorted(used, key=lambda pair: (-pair[1], pair[0]))[: size or VOCABULARY_SIZE]
    if not most:
        return None
    return Vocabulary(tuple(emoji for emoji, _ in most), tuple(count for _, count in most))
