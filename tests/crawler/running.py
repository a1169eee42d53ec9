"""A crawler as its operators run it: a process with a folder, ports of its own, and a channel."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import grpc

from clients.demo import free_port
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from emojinet.v1 import state_pb2 as states

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
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
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
            crawl: pb.Crawl = message.crawl
        return crawl

    def freeze(self, crawl: str, name: str) -> pb.Dataset:
        """Makes a data set of a crawl and waits for its end."""
        self.stub.CreateDataset(pb.CreateDatasetRequest(crawls=[crawl], name=name), timeout=10)
        for message in self.stub.WatchDataset(pb.WatchDatasetRequest(name=name)):
            dataset: pb.Dataset = message.dataset
        return dataset
