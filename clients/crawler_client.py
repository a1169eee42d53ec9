"""Calls the crawler from Python, typed by the contract.

    with CrawlerClient("127.0.0.1:50052") as client:
        crawl = client.start_crawl(request)
        for crawl in client.watch_crawl(crawl.name):
            print(crawl.activity)

What goes wrong with a call is an `EmojinetError`. Watching outlives restarts of the server.
"""

from collections.abc import Iterator

from clients.calling import Calling, Note
from clients.credentials import Credentials
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc

DEFAULT_SERVER = "127.0.0.1:50052"


class CrawlerClient(Calling):
    """Calls a server and waits for it; threads may share one."""

    SERVICE = "crawler"

    def __init__(
        self, server: str = DEFAULT_SERVER, credentials: Credentials | None = None
    ) -> None:
        super().__init__(server, rpc.CrawlerServiceStub, credentials)

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
