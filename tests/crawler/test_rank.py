from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.database import Database
from services.crawler.frontier import Frontier
from services.crawler.metrics import Metrics
from services.crawler.post import Malformed, Page, Post, Removal
from services.crawler.rank import Ranking, ranked
from services.crawler.sources import Plan
from services.crawler.tools import Tools
from services.shared import vocabulary
from services.shared.errors import BadSource, StorageFailed

RANK = "rank-1"
EVERY = [emoji.text for emoji in vocabulary.inventory()]


@pytest.fixture
def frontier(tmp_path: Path) -> Iterator[Frontier]:
    database = Database(tmp_path / "crawler.db")
    made = Frontier(database)
    made.create(RANK, pb.StartCrawlRequest(bluesky=pb.BlueskySource()))
    yield made
    database.close()


class Reading:
    """A source of pages, which fails at the page that is an error."""

    def __init__(self, *pages: Page | Exception) -> None:
        self._pages = pages
        self.closed = False

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        assert list(plan.emoji) == EVERY
        try:
            for page in self._pages[int(cursor or 0) :]:
                if isinstance(page, Exception):
                    raise page
                yield page
        finally:
            self.closed = True


class Counting(Reading):
    """A source that knows its counts."""

    def __init__(self, counts: dict[str, int], fails_at: str = "") -> None:
        super().__init__()
        self._counts, self.fails_at, self.asked = counts, fails_at, list[str]()

    async def count(self, emoji: str) -> int:
        if emoji == self.fails_at:
            raise BadSource("It is down.")
        self.asked.append(emoji)
        return self._counts.get(emoji, 0)


def ranking(
    frontier: Frontier, source: Reading, registry: CollectorRegistry | None = None
) -> Ranking:
    tools = SimpleNamespace(frontier=frontier, metrics=Metrics(registry or CollectorRegistry()))
    return Ranking(frontier.crawl(RANK), source, cast(Tools, tools))


def page(number: int, *texts: str, more: Sequence[Any] = ()) -> Page:
    posts = [Post(uri=text, text=text, images=[]) for text in texts]
    return Page([*posts, *more], str(number))


async def test_a_source_that_counts_is_asked_for_every_emoji_once(frontier: Frontier) -> None:
    source = Counting({"🍕": 7, "❤️": 9}, fails_at=EVERY[500])
    with pytest.raises(BadSource):
        await ranking(frontier, source).run()
    assert source.asked == EVERY[:500]

    source.fails_at = ""
    await ranking(frontier, source).run()

    assert source.asked == EVERY
    counted = frontier.emoji_counts(RANK)
    assert counted.keys() == {*EVERY}
    assert {emoji: count for emoji, count in counted.items() if count} == {"🍕": 7, "❤️": 9}


async def test_posts_are_counted_once_for_each_emoji_in_their_own_words(frontier: Frontier) -> None:
    registry = CollectorRegistry()
    source = Reading(
        page(1, "🍕🍕 #🍕", "❤ is text", "#❤ 🍕", more=[Malformed("1", "no post"), Removal("x")]),
        page(2, "🐕"),
    )
    await ranking(frontier, source, registry).run()

    assert frontier.emoji_counts(RANK) == {"🍕": 2, "❤️": 1, "🐕": 1}
    funnel = {c.outcome: c.count for c in frontier.funnel([RANK]).counts}
    assert funnel == {"counted": 3, "no_emoji_in_caption": 1, "malformed": 1}
    assert frontier.cursor(RANK) == ("2", True)
    labels = {"source": "bluesky", "outcome": "counted"}
    assert registry.get_sample_value("emojinet_posts_total", labels) == 3


async def test_counting_goes_on_behind_the_last_page_that_was_stored(frontier: Frontier) -> None:
    pages = [page(1, "🍕"), page(2, "🍕"), page(3, "🍕")]
    with pytest.raises(BadSource):
        await ranking(frontier, Reading(pages[0], pages[1], BadSource("It is down."))).run()
    assert frontier.cursor(RANK) == ("2", False)

    await ranking(frontier, Reading(*pages)).run()
    await ranking(frontier, Reading(*pages)).run()

    assert frontier.emoji_counts(RANK) == {"🍕": 3}


async def test_a_page_that_cannot_be_stored_is_not_counted_and_its_source_is_closed(
    frontier: Frontier,
) -> None:
    class Full(Frontier):
        def advance(self, *args: object) -> None:
            raise StorageFailed("The disk is full.")

    full = Full(frontier._database)
    source = Reading(page(1, "🍕"))

    with pytest.raises(StorageFailed):
        await ranking(full, source).run()

    assert source.closed
    assert frontier.emoji_counts(RANK) == {}
    assert frontier.cursor(RANK) == ("", False)


def test_the_most_used_emoji_come_first_and_ties_by_code_points() -> None:
    found = ranked({"🍕": 2, "🐕": 5, "❤️": 2, "📭": 0, "☕": 9}, 3)

    assert found is not None
    assert found.emoji == ("☕", "🐕", "❤️")
    assert found.counts == (9, 5, 2)


def test_nothing_used_is_no_vocabulary() -> None:
    assert ranked({}, 0) is None
    assert ranked({"📭": 0}, 5) is None


def test_a_vocabulary_has_five_hundred_emoji_unless_told_otherwise() -> None:
    counts = dict.fromkeys(EVERY, 1)

    assert [len(found) for size in (0, 7, 9999) if (found := ranked(counts, size))] == [500, 7, 845]


@given(st.dictionaries(st.sampled_from(EVERY), st.integers(0, 5), max_size=20), st.randoms())
def test_the_same_counts_give_the_same_vocabulary(counts: dict[str, int], draw: Any) -> None:
    shuffled = list(counts.items())
    draw.shuffle(shuffled)

    assert ranked(dict(shuffled), 5) == ranked(counts, 5)
