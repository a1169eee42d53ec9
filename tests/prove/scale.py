"""`make prove-scale`: the article's crawl in simulated time, its metadata through every rule.

The article counted 845 tags and gathered 1,075,376 pictures of 500 of them, from an API that
allows 5,000 calls an hour. Here the hours pass at once: whoever would wait for the quota moves the
stand-in's clock instead. Pictures are queued, as in any crawl, but not fetched.
"""

import asyncio
import ipaddress
import json
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import __main__ as program
from services.crawler.crawl import Crawling
from services.crawler.limits import Clock
from services.crawler.rank import Ranking, ranked
from services.crawler.sources.instagram import InstagramSource
from services.crawler.tools import Tools
from services.crawler.web import Web
from tests.standin.child import Child
from tests.standin.world import EPOCH

POSTS = 1_075_376
LIMIT = 5000  # calls in an hour
MANY = 1 << 30  # a cap that nothing reaches: the article's posts are all to pass the rules
LOOK_SECONDS = 1.0


class SimulatedClock(Clock):
    """Waiting moves the stand-in's time, and costs none of ours."""

    def __init__(self, standin: Child) -> None:
        self._standin, self._now, self.waits = standin, EPOCH, 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.waits += 1
        self._now = await asyncio.to_thread(self._standin.advance, seconds)


async def prove(posts: int, folder: Path) -> dict[str, float]:
    """Ranks and reads everything; the figures."""
    options = ("--seed=3", f"--posts={posts}", f"--clock={EPOCH}", f"--limit={LIMIT}")
    with Child(*options) as standin:
        clock = SimulatedClock(standin)
        async with AsyncExitStack() as stack:
            tools = await program.opened(_options(folder), CollectorRegistry(), stack)
            allow = (ipaddress.ip_network("127.0.0.0/8"),)
            web = await stack.enter_async_context(Web(allow=allow, clock=clock))
            (folder / "token").write_text("scale")
            ask = pb.InstagramSource(
                base_url=f"{standin.base_url}/v1", token_file=str(folder / "token")
            )
            began, spent = time.monotonic(), _cpu_seconds()
            counted = await rank(ask, web, tools)
            funnel = await collect(ask, web, tools, counted, posts)
            seconds, cpu_seconds = time.monotonic() - began, _cpu_seconds() - spent
        quota = standin.stats()["quotas"]["scale"]
    show(funnel)
    return {
        "posts": sum(count.count for count in funnel.counts if count.stage == "post"),
        "kept": sum(count.count for count in funnel.counts if count.outcome == "kept"),
        "minutes": round(seconds / 60, 2),
        "cpu_minutes": round(cpu_seconds / 60, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "simulated_hours": round((clock.now() - EPOCH) / 3600, 2),
        "calls": quota["calls"],
        "refused_calls": quota["refused"],
        "quota_used_share": round(_used_share(quota["calls"], clock.now() - EPOCH), 4),
    }


async def rank(ask: pb.InstagramSource, web: Web, tools: Tools) -> tuple[str, ...]:
    """The 500 most used emoji."""
    request = pb.StartCrawlRequest(mode=pb.CRAWL_MODE_RANK, instagram=ask)
    tools.frontier.create("rank", request)
    await Ranking(tools.frontier.crawl("rank"), InstagramSource(ask, web), tools).run()
    found = ranked(tools.frontier.emoji_counts("rank"), 500)
    assert found
    return found.emoji


async def collect(
    ask: pb.InstagramSource, web: Web, tools: Tools, emoji: tuple[str, ...], posts: int
) -> pb.Funnel:
    """All their posts through the rules."""
    rules = pb.KeepRules(images_per_emoji=MANY, images_per_author=MANY)
    request = pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT, instagram=ask, rules=rules)
    tools.frontier.create("collect", request)
    crawling = Crawling(tools.frontier.crawl("collect"), InstagramSource(ask, web), emoji, tools)
    with Progress(transient=True) as progress:
        bar = progress.add_task("posts", total=posts)
        reading = asyncio.create_task(crawling.read())
        while not reading.done():
            await asyncio.wait([reading], timeout=LOOK_SECONDS)
            progress.update(bar, completed=tools.frontier.posts_read("collect"))
    reading.result()
    return tools.frontier.funnel(["collect"])


def _options(folder: Path) -> program.Options:
    return program.Options(
        host="", port=0, metrics_port=0, data=folder, allow=(), ca_file=None, contact=""
    )


def _used_share(calls: int, seconds: float) -> float:
    """The least time in which so many calls are allowed, as a share of the time they took."""
    least = 3600 * ((calls - 1) // LIMIT)
    return least / seconds if least else 1.0


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def show(funnel: pb.Funnel) -> None:
    """The funnel for people."""
    table = Table("stage", "outcome", "count", title="funnel")
    for count in funnel.counts:
        table.add_row(count.stage, count.outcome, f"{count.count:,}")
    Console().print(table)


def main(posts: Annotated[int, typer.Option(min=100)] = POSTS) -> None:
    """Takes the metadata of the article's crawl through frontier and rules."""
    with tempfile.TemporaryDirectory() as folder:
        print("RESULT", json.dumps(uvloop.run(prove(posts, Path(folder)))))


if __name__ == "__main__":
    typer.run(main)
