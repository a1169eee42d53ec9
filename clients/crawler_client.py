"""Calls the crawler from Python, typed by the contract.

    with CrawlerClient("127.0.0.1:50052") as client:
        crawl = client.start_crawl(request)
        for crawl in client.watch_crawl(crawl.name):
            print(crawl.activity)

What goes wrong with a call is an `EmojinetError`. Watching outlives restarts of the server.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

import grpc

from clients.client import channel_options, from_rpc
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from emojinet.v1 import state_pb2 as states
from services.shared.errors import EmojinetError, ServerUnreachable

DEFAULT_SERVER = "127.0.0.1:50052"
TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # with a server that was there and is gone, while watching
RETRY_SECONDS = 0.5
LIVE = (states.STATE_PENDING, states.STATE_RUNNING, states.STATE_PAUSED)

T = TypeVar("T", pb.Crawl, pb.Dataset)
Note = Callable[[str], object]


class CrawlerClient:
    """Calls a server and waits for it, ten seconds at most; threads may share one."""

    def __init__(self, server: str = DEFAULT_SERVER) -> None:
        self._server = server
        # A server that comes back is found soon, not after gRPC's pauses of up to two minutes.
        options = [*channel_options(server), ("grpc.max_reconnect_backoff_ms", 1_000)]
        self._channel = grpc.insecure_channel(server, options=options)
        self._stub = rpc.CrawlerServiceStub(self._channel)

    def start_crawl(self, request: pb.StartCrawlRequest) -> pb.Crawl:
        """The crawl, as accepted. Every method raises EmojinetError for what goes wrong."""
        return self._call(self._stub.StartCrawl, request).crawl

    def get_crawl(self, name: str) -> pb.Crawl:
        """A crawl, with its vocabulary where it has one."""
        return self._call(self._stub.GetCrawl, pb.GetCrawlRequest(name=name)).crawl

    def list_crawls(self) -> list[pb.Crawl]:
        """All crawls, the newest first, without their vocabularies."""
        return list(self._call(self._stub.ListCrawls, pb.ListCrawlsRequest()).crawls)

    def watch_crawl(self, name: str, note: Note = lambda line: None) -> Iterator[pb.Crawl]:
        """The crawl now, after each change, and as it ended; `note` is told of lost connections."""
        request = pb.WatchCrawlRequest(name=name)
        return self._watch(lambda: (r.crawl for r in self._stub.WatchCrawl(request)), note)

    def cancel_crawl(self, name: str) -> pb.Crawl:
        """The crawl as it ended."""
        return self._call(self._stub.CancelCrawl, pb.CancelCrawlRequest(name=name)).crawl

    def create_dataset(self, request: pb.CreateDatasetRequest) -> pb.Dataset:
        """The data set, as accepted."""
        return self._call(self._stub.CreateDataset, request).dataset

    def get_dataset(self, name: str) -> pb.Dataset:
        """A data set."""
        return self._call(self._stub.GetDataset, pb.GetDatasetRequest(name=name)).dataset

    def list_datasets(self) -> list[pb.Dataset]:
        """All data sets, the newest first."""
        return list(self._call(self._stub.ListDatasets, pb.ListDatasetsRequest()).datasets)

    def watch_dataset(self, name: str, note: Note = lambda line: None) -> Iterator[pb.Dataset]:
        """As `watch_crawl`."""
        request = pb.WatchDatasetRequest(name=name)
        return self._watch(lambda: (r.dataset for r in self._stub.WatchDataset(request)), note)

    def remove_content(self, request: pb.RemoveContentRequest) -> pb.RemoveContentResponse:
        """What was taken down."""
        return self._call(self._stub.RemoveContent, request)

    def close(self) -> None:
        """Ends the connection, and with it all watching."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: object) -> Any:
        try:
            return method(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as failure:
            raise self._error(failure) from failure

    def _watch(self, begin: Callable[[], Iterable[T]], note: Note) -> Iterator[T]:
        """What one stream after the other says, without repetitions, until it has ended.

        The server itself ends streams now and then, so that clients find its new replicas.
        """
        last: T | None = None
        losses, lost_seconds = 0, 0.0
        while True:
            error: EmojinetError = self._unreachable()
            try:
                for now in begin():
                    losses = 0
                    if now != last:
                        yield now
                    last = now
            except grpc.RpcError as failure:
                error = self._error(failure)
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise error from failure
            if last and last.state not in LIVE:
                return
            losses += 1
            if losses == 1:
                lost_seconds = time.monotonic()
            elif losses == 2:
                note(f"{self._server} does not answer; trying for {PATIENCE_SECONDS:.0f} s …")
            if time.monotonic() - lost_seconds > PATIENCE_SECONDS:
                raise error
            time.sleep(RETRY_SECONDS)

    def _error(self, failure: grpc.RpcError) -> EmojinetError:
        error = from_rpc(failure, self._server)
        return self._unreachable() if isinstance(error, ServerUnreachable) else error

    def _unreachable(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"No EmojiNet crawler answers at {self._server}: "
            "start one with `python -m services.crawler`."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
