"""A crawler as its operators run it, as a process; and one within the test's own process."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from prometheus_client import CollectorRegistry

from clients.demo import free_port
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from emojinet.v1 import state_pb2 as states
from services.crawler import crawl, prescaled
from services.crawler.database import Database
from services.crawler.fetch import Fetcher
from services.crawler.frontier import Frontier, Quotas
from services.crawler.metrics import Metrics
from services.crawler.removals import Removals
from services.crawler.server import CrawlerService
from services.crawler.store import Store
from services.crawler.tools import Tools
from services.crawler.web import Web
from services.shared import harness, watching
from services.shared.decoders import Decoders
from services.shared.queue import Served

ENDED = (states.STATE_SUCCEEDED, states.STATE_FAILED, states.STATE_CANCELLED)
START_SECONDS = 30.0


class Crawler:
    """A context; leaving it kills the process as `kill -9` does, unless it has ended before."""

    def __init__(
        self, data: Path, *flags: str, module: str = "services.crawler", **environment: str
    ) -> None:
        self.port, self._module = free_port(), module
        self._flags = [f"--data={data}", "--allow-addresses=127.0.0.0/8", *flags]
        self._environment = environment

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", self._module, f"--port={self.port}"]
        self.process = subprocess.Popen(
            [*command, f"--metrics-port={free_port()}", *self._flags],
            env=os.environ | self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Soon found: gRPC waits a second after the first attempt, which comes too early.
        soon = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", soon)
        self.stub = rpc.CrawlerServiceStub(self.channel)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def is_up(self) -> bool:
        """Waits until it answers; false if it died instead."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.stub.ListCrawls(pb.ListCrawlsRequest(), timeout=1)
                return True
            except grpc.RpcError:
                time.sleep(0.02)
        return False

    def crawl(self, request: pb.StartCrawlRequest) -> pb.Crawl:
        """Starts a crawl and waits for its end."""
        started = self.stub.StartCrawl(request, timeout=10).crawl
        for message in self.stub.WatchCrawl(pb.WatchCrawlRequest(name=started.name)):
            found: pb.Crawl = message.crawl
        return found

    def freeze(self, crawl: str, name: str) -> pb.Dataset:
        """Makes a data set of a crawl and waits for its end."""
        self.stub.CreateDataset(pb.CreateDatasetRequest(crawls=[crawl], name=name), timeout=10)
        for message in self.stub.WatchDataset(pb.WatchDatasetRequest(name=name)):
            dataset: pb.Dataset = message.dataset
        return dataset


# -- within the test's own process ----------------------------------------------------------------


class Unpooled(Decoders):
    """Prescales in a thread: the pool's processes take a second to start."""

    def __init__(self) -> None:
        super().__init__(0)

    async def decode(self, content: bytes, **_: object) -> Served:
        def reply() -> bytes:
            return prescaled.pack(prescaled.prescaled(content))

        return Served(await asyncio.to_thread(reply), 0, 1, 0.0, 0.0)


@dataclass
class Running:
    """A crawler that serves, with what is behind it."""

    address: str
    stub: rpc.CrawlerServiceStub
    tools: Tools
    registry: CollectorRegistry

    @property
    def data(self) -> Path:
        return self.tools.folder

    async def start(self, request: pb.StartCrawlRequest) -> str:
        """The name of a new crawl."""
        return (await self.stub.StartCrawl(request)).crawl.name

    async def get(self, name: str) -> pb.Crawl:
        return (await self.stub.GetCrawl(pb.GetCrawlRequest(name=name))).crawl

    async def reached(self, name: str, *wanted: states.State) -> pb.Crawl:
        """The crawl, as soon as it is in one of these states, or has ended."""
        async for message in self.stub.WatchCrawl(pb.WatchCrawlRequest(name=name)):
            if message.crawl.state in (*wanted, *ENDED):
                found: pb.Crawl = message.crawl
                return found
        raise AssertionError("it did not end")

    async def crawl(self, request: pb.StartCrawlRequest) -> pb.Crawl:
        """A crawl that has succeeded."""
        found = await self.reached(await self.start(request))
        assert found.state == states.STATE_SUCCEEDED, found
        return found

    async def frozen(self, name: str) -> pb.Dataset:
        """The data set, as soon as it is complete, or has failed."""
        async for message in self.stub.WatchDataset(pb.WatchDatasetRequest(name=name)):
            if message.dataset.state in ENDED:
                dataset: pb.Dataset = message.dataset
                return dataset
        raise AssertionError("it did not end")

    async def freeze(self, *crawls: str, name: str = "", **more: Any) -> pb.Dataset:
        """A data set that is complete."""
        ask = pb.CreateDatasetRequest(crawls=crawls, name=name, **more)
        dataset = await self.frozen((await self.stub.CreateDataset(ask)).dataset.name)
        assert dataset.state == states.STATE_SUCCEEDED, dataset
        return dataset

    async def remove(self, **what: Any) -> pb.RemoveContentResponse:
        removed: pb.RemoveContentResponse = await self.stub.RemoveContent(
            pb.RemoveContentRequest(**what)
        )
        return removed

    def sample(self, name: str, /, **labels: str) -> float | None:
        """A metric's value; None for one that is not there."""
        return self.registry.get_sample_value(name, labels)

    def kept(self, crawl: str) -> dict[str, set[str]]:
        """The emoji of each post that has a stored picture, by the post's address."""
        return {
            post.uri: {mention.emoji for mention in post.mentions}
            for _, posts in self.tools.frontier.found([crawl])
            for post in posts
        }

    def files(self) -> int:
        """Pictures in the store."""
        return sum(1 for _ in (self.data / "crawler" / "images").glob("*/*.jpg"))


@pytest.fixture(scope="module", autouse=True)
def brisk() -> Iterator[None]:
    """Looks more often than a crawler should, in the modules that import it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watching, "WATCH_SECONDS", 0.03)
        for name in ("LOOK_SECONDS", "SETTLE_SECONDS"):
            patched.setattr(crawl, name, 0.03)
        yield


@asynccontextmanager
async def crawler(data: Path, *, decoders: Decoders | None = None) -> AsyncIterator[Running]:
    """Serves a data folder until the test is done with it; what crawls is stopped then."""
    boundary, registry = harness.Boundary(), CollectorRegistry()
    listening, service = harness.new_server(boundary), CrawlerService()
    rpc.add_CrawlerServiceServicer_to_server(service, listening)
    address = f"127.0.0.1:{harness.bind(listening, '127.0.0.1', 0)}"
    database, store = Database(data / "crawler" / "state.sqlite"), Store(data / "crawler/images")
    async with AsyncExitStack() as stack:
        stack.callback(database.close)
        web = Web(allow=[ip_network("127.0.0.0/8")], quotas=Quotas(database))
        await stack.enter_async_context(web)
        tools = Tools(
            folder=data,
            database=database,
            frontier=Frontier(database),
            removals=Removals(database, store, data / "datasets"),
            store=store,
            web=web,
            fetcher=Fetcher(web),
            decoders=decoders or Unpooled(),
            metrics=Metrics(registry),
            key=b"k" * 32,
        )
        await listening.start()
        stack.push_async_callback(listening.stop, None)
        stack.push_async_callback(service.close)
        service.open(tools)
        options = [("grpc.max_receive_message_length", 32 << 20)]
        channel = grpc.aio.insecure_channel(address, options)
        await stack.enter_async_context(channel)
        yield Running(address, rpc.CrawlerServiceStub(channel), tools, registry)


def collect(**source: Any) -> pb.StartCrawlRequest:
    """Asks for pictures."""
    return pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT, **source)


def funnel(crawl: pb.Crawl, stage: str) -> Counter[str]:
    """What became of posts or pictures."""
    return Counter({c.outcome: c.count for c in crawl.funnel.counts if c.stage == stage})


async def until(found: Callable[[], bool], seconds: float = 10.0) -> float:
    """Waits until something is so; how long that took."""
    began = time.monotonic()
    while not found():
        assert time.monotonic() < began + seconds, "it never happened"
        await asyncio.sleep(0.01)
    return time.monotonic() - began
