"""`make prove-crash`: a crawl that is killed again and again finds what an undisturbed one finds.

The crawler is killed with SIGKILL at random instants, and dies by itself at every named fault
point. The data set of each such crawl is compared, file by file, with that of a crawl nobody
disturbed. The proof goes on from `--state` where it was stopped.
"""

import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import dataset, faults, manifest
from tests.crawler.running import ENDED, Crawler
from tests.standin.child import Child

STANDIN = ("--seed=7", "--hosts=4", "--bank=300")
NAME = "proof"
LONGEST_SECONDS = 3.0  # between a crawler's first answer and its death
PATIENCE_SECONDS = 120.0


def request(standin: Child, folder: Path) -> pb.StartCrawlRequest:
    """Collects everything that the stand-in's Instagram has."""
    token = folder / "token"
    token.write_text("proof")
    source = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(token))
    return pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT, instagram=source)


def undisturbed(ask: pb.StartCrawlRequest, data: Path) -> None:
    """The reference."""
    with Crawler(data) as crawler:
        assert crawler.is_up()
        crawl = crawler.crawl(ask)
        assert crawl.state == states.STATE_SUCCEEDED, crawl
        assert crawler.freeze(crawl.name, NAME).state == states.STATE_SUCCEEDED


class Victim:
    """A crawl that is killed until it has ended all the same."""

    def __init__(self, ask: pb.StartCrawlRequest, data: Path, draw: random.Random) -> None:
        self._ask, self._data, self._draw = ask, data, draw
        self.kills: list[str] = []

    def live(self, most: int) -> None:
        """Dies up to `most` times, each in its own way, and then comes to its end."""
        frozen = False
        while not frozen:
            dying = len(self.kills) < most
            point = self._draw.choice(faults.POINTS) if dying and self._draw.random() < 0.5 else ""
            how = {"EMOJINET_FAULT": f"{point}:{self._draw.randint(1, 30)}"} if point else {}
            with Crawler(self._data, **how) as crawler:
                frozen = self._go_on(crawler, dying and not point)
            if not frozen:
                self.kills.append(point or "SIGKILL")

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
        datasets = crawler.stub.ListDatasets(pb.ListDatasetsRequest(), timeout=2).datasets
        if not datasets:
            ask = pb.CreateDatasetRequest(crawls=[crawls[0].name], name=NAME)
            crawler.stub.CreateDataset(ask, timeout=5)
            return False
        return datasets[0].state == states.STATE_SUCCEEDED
