"""Reading a source within the bounds of a crawl, from where it stopped to where it ends."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.frontier import Frontier
from services.crawler.post import Event, Malformed, Page, Post
from services.crawler.sources import Plan, Source


async def pages(
    crawl: pb.Crawl, source: Source, frontier: Frontier, plan: Plan
) -> AsyncGenerator[Page, None]:
    """The pages that are left to read; the crawl counts as read when that was all.

    Whoever takes them must store each before asking for the next, without waiting for anything in
    between: the time limit falls only where a page is waited for.

    Raises as `Source.pages`.
    """
    cursor, read_all = frontier.cursor(crawl.name)
    if read_all:
        return
    try:
        async with (
            asyncio.timeout(_left_seconds(crawl)) as limit,
            aclosing(cast(AsyncGenerator[Page, None], source.pages(cursor, plan))) as found,
        ):
            while (left := _left_posts(crawl, frontier)) > 0 and (page := await anext(found, None)):
                yield Page(_first(page.events, left), page.cursor)
                await asyncio.sleep(0)  # fetching goes on beside reading
    except TimeoutError:
        if not limit.expired():  # it is the source's own, and there may be more to read
            raise
    frontier.finish_reading(crawl.name)


def _left_seconds(crawl: pb.Crawl) -> float | None:
    if not crawl.request.HasField("max_duration"):
        return None
    began = crawl.create_time.ToMilliseconds() / 1000
    return max(0.0, began + crawl.request.max_duration.ToMilliseconds() / 1000 - time.time())


def _left_posts(crawl: pb.Crawl, frontier: Frontier) -> float:
    most = crawl.request.max_posts
    return most - frontier.posts_read(crawl.name) if most else math.inf


def _first(events: Sequence[Event], posts: float) -> list[Event]:
    """Events up to so many posts, and all that are none."""
    kept = []
    for event in events:
        counts = isinstance(event, Post | Malformed)
        posts -= counts
        if posts >= 0 or not counts:
            kept.append(event)
    return kept
