import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.database import Database
from services.crawler.frontier import Frontier
from services.crawler.post import Event, Malformed, Page, Post, Removal
from services.crawler.reading import pages
from services.crawler.sources import Plan
from services.shared.errors import BadSource

CRAWL = "collect-1"
PLAN = Plan(emoji=["🍕"], wanted=lambda emoji: True)
REMOVAL = Removal(uri="at://0")


def post(number: int) -> Post:
    return Post(uri=str(number), text="", images=[])


class Pages:
    """A source of three posts a page; its cursors are the numbers of its pages."""

    def __init__(self, count: int = 4, events: Callable[[int], Sequence[Event]] | None = None):
        self._count, self._events = count, events or (lambda n: [post(3 * n + i) for i in range(3)])
        self.asked = list[str]()
        self.given = 0

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        self.asked.append(cursor)
        for number in range(int(cursor or 0), self._count):
            self.given += 1
            yield Page(self._events(number), str(number + 1))


class Endless(Pages):
    """A source that waits for posts after its last page, and fails if it is told to."""

    failure: Exception | None = None

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        async for page in super().pages(cursor, plan):
            yield page
        if self.failure:
            raise self.failure
        await asyncio.sleep(1000)


@pytest.fixture
def frontier(tmp_path: Path) -> Iterator[Frontier]:
    database = Database(tmp_path / "crawler.db")
    yield Frontier(database)
    database.close()


def started(frontier: Frontier, **request: int) -> pb.Crawl:
    asked = pb.StartCrawlRequest(max_posts=request.get("max_posts", 0))
    if "seconds" in request:
        asked.max_duration.FromSeconds(request["seconds"])
    frontier.create(CRAWL, asked)
    return frontier.crawl(CRAWL)


async def read(crawl: pb.Crawl, source: Pages, frontier: Frontier, most: int = 99) -> list[Event]:
    """Takes pages as a crawl does; at most so many, as if the process had died then."""
    found: list[Event] = []
    async with aclosing(pages(crawl, source, frontier, PLAN)) as given:
        async for page in given:
            posts = sum(isinstance(event, Post | Malformed) for event in page.events)
            frontier.advance(CRAWL, page.cursor, Counter(kept=posts))
            found += page.events
            most -= 1
            if not most:
                break
    return found


async def test_everything_is_read_once(frontier: Frontier) -> None:
    crawl, source = started(frontier), Pages()

    assert await read(crawl, source, frontier) == [post(number) for number in range(12)]
    assert frontier.cursor(CRAWL) == ("4", True)

    assert await read(crawl, source, frontier) == []
    assert source.asked == [""]


async def test_reading_goes_on_where_it_stopped(frontier: Frontier) -> None:
    crawl, source = started(frontier), Pages()
    first = await read(crawl, source, frontier, most=2)
    assert frontier.cursor(CRAWL) == ("2", False)

    rest = await read(crawl, source, frontier)

    assert first + rest == [post(number) for number in range(12)]
    assert source.asked == ["", "2"]


@pytest.mark.parametrize(("most", "given"), [(1, 1), (3, 1), (4, 2), (12, 4), (13, 4)])
async def test_a_crawl_reads_no_more_posts_than_it_may(
    frontier: Frontier, most: int, given: int
) -> None:
    crawl, source = started(frontier, max_posts=most), Pages()

    assert await read(crawl, source, frontier) == [post(number) for number in range(min(most, 12))]
    assert source.given == given
    assert frontier.cursor(CRAWL)[1]


async def test_what_is_no_post_comes_however_many_posts_there_were(frontier: Frontier) -> None:
    events: list[Event] = [post(1), Malformed("2", "no post"), post(3), REMOVAL]
    crawl, source = started(frontier, max_posts=2), Pages(events=lambda _: events)

    assert await read(crawl, source, frontier) == [events[0], events[1], REMOVAL]


async def test_a_crawl_that_had_all_its_posts_when_it_died_asks_for_no_more(
    frontier: Frontier,
) -> None:
    crawl, source = started(frontier, max_posts=3), Endless()
    await read(crawl, source, frontier, most=1)
    assert frontier.cursor(CRAWL) == ("1", False)

    assert await read(crawl, source, frontier) == []
    assert source.given == 1
    assert frontier.cursor(CRAWL) == ("1", True)


async def test_a_crawl_ends_when_its_time_is_up(frontier: Frontier) -> None:
    crawl = started(frontier, seconds=3600)
    crawl.create_time.FromMilliseconds(int(time.time() * 1000) - 3_599_700)

    async with asyncio.timeout(30):
        found = await read(crawl, Endless(), frontier)

    assert len(found) == 12
    assert frontier.cursor(CRAWL) == ("4", True)


async def test_a_crawl_whose_time_was_up_before_reads_nothing(frontier: Frontier) -> None:
    crawl = started(frontier, seconds=1)
    crawl.create_time.FromMilliseconds(1)

    async with asyncio.timeout(30):
        assert await read(crawl, Endless(0), frontier) == []
    assert frontier.cursor(CRAWL) == ("", True)


@pytest.mark.parametrize("failure", [BadSource("It is down."), TimeoutError()])
async def test_a_source_that_fails_was_not_read_to_its_end(
    frontier: Frontier, failure: Exception
) -> None:
    crawl, source = started(frontier, seconds=3600), Endless()
    source.failure = failure

    with pytest.raises(type(failure)):
        await read(crawl, source, frontier)

    assert frontier.cursor(CRAWL) == ("4", False)
