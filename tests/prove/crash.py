"""`make prove-crash`: a crawl that is killed again and again finds what an undisturbed one finds.

The crawler is killed with SIGKILL at random instants, and dies by itself at every named fault
point. The data set of each such crawl is compared, file by file, with that of a crawl nobody
disturbed.
"""

import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import typer
from rich.console import Console
from rich.table import Table

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import promises
from services.crawler.manifest import MANIFEST
from services.shared import faults, shards
from services.shared.errors import BadDataset
from tests.crawler.running import ENDED, Crawler
from tests.standin.child import Child

# No crawl is to wait for its quota: that is for `prove-scale`.
STANDIN = ("--seed=7", "--hosts=4", "--edge-px=300", "--limit=1000000")
NAME = "proof"
LONGEST_SECONDS = 3.0  # between a crawler's first answer and its death
PATIENCE_SECONDS = 120.0
REMOVED = 8  # posts
LATE = [point for point in faults.CRAWLER if point.startswith(("removal", "dataset"))]
EARLY = [point for point in faults.CRAWLER if point not in LATE]
LATE_SHARE = 0.15
# How often a process comes by a point of each kind before it has ended, about.
TIMES = {"": 1, "page": 30, "picture": 30, "fates": 3, "removal": 3, "dataset": 1}


def request(standin: Child, folder: Path) -> pb.StartCrawlRequest:
    """Collects everything that the stand-in's Instagram has."""
    token = folder / "token"
    token.write_text("proof")
    source = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(token))
    return pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT, instagram=source)


def undisturbed(ask: pb.StartCrawlRequest, data: Path) -> list[str]:
    """The reference; returns the posts that are taken down before it is frozen."""
    with Crawler(data) as crawler:
        assert crawler.is_up()
        crawl = crawler.crawl(ask)
        assert crawl.state == states.STATE_SUCCEEDED, crawl
        assert crawler.freeze(crawl.name, "whole").state == states.STATE_SUCCEEDED
        uris = sorted({uri for uri, _ in _pictures(data / "datasets" / "whole")})
        doomed = random.Random(1).sample(uris, REMOVED)
        for uri in doomed:
            remove(crawler, uri)
        assert crawler.freeze(crawl.name, NAME).state == states.STATE_SUCCEEDED
    return doomed


def remove(crawler: Crawler, uri: str) -> None:
    """Takes a post down; again is no harm."""
    post = pb.PostReference(source="instagram-v1", uri=uri)
    crawler.stub.RemoveContent(pb.RemoveContentRequest(post=post), timeout=5)


class Difference(NamedTuple):
    """What a disturbed crawl's data set lacks, has twice, or has wrong."""

    lost: int
    duplicated: int
    torn: int


def compare(reference: Path, folder: Path) -> Difference:
    """Counts by posts and pictures; whatever differs otherwise is torn."""
    whole, found = (_pictures(each) for each in (reference, folder))
    lost = sum((whole - found).values())
    duplicated = sum(max(0, found[each] - whole[each]) for each in found)
    torn = 0
    try:
        promises.verify(folder)
    except BadDataset:
        torn += 1
    if not lost and not duplicated:
        torn += sum(
            (reference / name).read_bytes() != (folder / name).read_bytes()
            for name in shards.facts(reference)["files"]
        )
    return Difference(lost, duplicated, torn)


def _pictures(folder: Path) -> Counter[tuple[str, str]]:
    rows = pq.read_table(folder / MANIFEST, columns=["uri", "sha256"]).to_pylist()
    return Counter((row["uri"], row["sha256"]) for row in rows)


class Victim:
    """A crawl that is killed until it has ended all the same."""

    def __init__(
        self,
        ask: pb.StartCrawlRequest,
        doomed: list[str],
        data: Path,
        draw: random.Random,
        faults: tuple[Iterator[str], Iterator[str]],
    ) -> None:
        self._ask, self._doomed, self._data, self._draw = ask, list(doomed), data, draw
        self._faults = faults
        self.kills: list[str] = []

    def live(self, most: int) -> None:
        """Dies up to `most` times, each in its own way, and then comes to its end."""
        frozen = False
        while not frozen:
            dying = len(self.kills) < most
            point = self._fault() if dying and self._draw.random() < 0.5 else ""
            times = TIMES[point.partition("-")[0]]
            how = {"EMOJINET_FAULT": f"{point}:{self._draw.randint(1, times)}"} if point else {}
            with Crawler(self._data, **how) as crawler:
                frozen = self._go_on(crawler, dying and not point)
            if not frozen:
                self.kills.append(point or "SIGKILL")

    def _fault(self) -> str:
        """Mostly one of the crawl: those that come when it has ended kill once in its life."""
        return next(self._faults[self._draw.random() < LATE_SHARE])

    def _go_on(self, crawler: Crawler, kill: bool) -> bool:
        """Whether the crawl and its data set came to their end before the process did."""
        end = time.monotonic() + PATIENCE_SECONDS
        death = time.monotonic() + self._draw.uniform(0.05, LONGEST_SECONDS) if kill else end
        if not kill and not crawler.is_up():
            return False
        while time.monotonic() < end:
            if time.monotonic() > death:
                crawler.process.send_signal(signal.SIGKILL)
                return False
            if crawler.process.poll() is not None:
                return False
            try:
                if self._step(crawler):
                    return True
            except Exception:  # it is not up yet, or not any more
                time.sleep(0.02)
            time.sleep(0.02)
        raise TimeoutError("the crawl does not come to its end")

    def _step(self, crawler: Crawler) -> bool:
        """Does what is next: start, wait, freeze, wait; whether all is done."""
        crawls = crawler.stub.ListCrawls(pb.ListCrawlsRequest(), timeout=2).crawls
        if not crawls:
            crawler.stub.StartCrawl(self._ask, timeout=5)
            return False
        if crawls[0].state not in ENDED:
            return False
        assert crawls[0].state == states.STATE_SUCCEEDED, crawls[0]
        while self._doomed:
            remove(crawler, self._doomed[-1])
            self._doomed.pop()
        datasets = crawler.stub.ListDatasets(pb.ListDatasetsRequest(), timeout=2).datasets
        if not datasets:
            ask = pb.CreateDatasetRequest(crawls=[crawls[0].name], name=NAME)
            crawler.stub.CreateDataset(ask, timeout=5)
            return False
        return datasets[0].state == states.STATE_SUCCEEDED


def prove(kills: int, posts: int, folder: Path, seed: int = 1) -> dict[str, int]:
    """Kills crawls until so many kills are made; what went wrong, which is nothing."""
    draw, tally = random.Random(seed), Counter[str]()
    turns = cycle(EARLY), cycle(LATE)  # each fault point in its turn, over all crawls
    result = Counter(kills=0, crawls=0, lost=0, duplicated=0, torn=0)
    with Child(*STANDIN, f"--posts={posts}") as standin:
        ask = request(standin, folder)
        doomed = undisturbed(ask, folder / "reference")
        while result["kills"] < kills:
            data = folder / "victim"
            victim = Victim(ask, doomed, data, draw, turns)
            # Authors are hashed with the key of a data folder: the same one, or no two are alike.
            (data / "crawler").mkdir(parents=True)
            shutil.copy(folder / "reference" / "crawler" / "author.key", data / "crawler")
            victim.live(kills - result["kills"])
            found = compare(folder / "reference" / "datasets" / NAME, data / "datasets" / NAME)
            result.update(found._asdict() | {"kills": len(victim.kills), "crawls": 1})
            tally.update(victim.kills)
            shutil.rmtree(data)
            print(f"{result['kills']} kills in {result['crawls']} crawls: {found}", flush=True)
    show(tally)
    return {**result, "fault_points": len(set(tally) - {"SIGKILL"})}


def show(tally: Counter[str]) -> None:
    """How the crawlers died."""
    table = Table("died of", "times")
    for how, times in sorted(tally.items()):
        table.add_row(how, str(times))
    Console().print(table)


def main(
    kills: Annotated[int, typer.Option(min=1)] = 200,
    posts: Annotated[int, typer.Option(min=10)] = 1000,
) -> None:
    """Kills crawls, and compares what they find with what an undisturbed crawl finds."""
    with tempfile.TemporaryDirectory() as folder:
        print("RESULT", json.dumps(prove(kills, posts, Path(folder))))


if __name__ == "__main__":
    typer.run(main)
