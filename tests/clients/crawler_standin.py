"""A crawler that speaks the contract and does what a test tells it to, on a port of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from emojinet.v1 import state_pb2 as states
from services.shared import errors
from tests.clients.standin import Context, fail

BEGUN_SECONDS = 1_795_000_000
FUNNEL = (
    ("post", "no_emoji_in_caption", 750),
    ("post", "kept", 250),
    ("image", "stored", 240),
    ("image", "not_found", 10),
)
VOCABULARY = (("😂", 1_000_000), ("🍕", 4_000), ("📭", 90))
IMPORT = pb.StartCrawlRequest(
    mode=pb.CRAWL_MODE_COLLECT,
    rules=pb.KeepRules(max_hashtags=5),
    imported=pb.ImportSource(path="/posts.csv", columns={"text": "caption"}),
)


def crawl(
    state: states.State = states.STATE_RUNNING,
    name: str = "collect-1",
    activity: str = "reading posts",
    posts: int = 0,
    vocabulary: bool = False,
    error: errors.EmojinetError | None = None,
) -> pb.Crawl:
    """A crawl that has met `FUNNEL` and as many posts more."""
    made = pb.Crawl(name=name, state=state, request=IMPORT, activity=activity)
    made.funnel.counts.extend(pb.FunnelCount(stage=s, outcome=o, count=c) for s, o, c in FUNNEL)
    made.funnel.counts[0].count += posts
    made.create_time.FromSeconds(BEGUN_SECONDS)
    if state not in (states.STATE_RUNNING, states.STATE_PAUSED):
        made.end_time.FromSeconds(BEGUN_SECONDS + 90)
    if vocabulary:
        made.vocabulary.extend(pb.EmojiCount(emoji=e, count=c) for e, c in VOCABULARY)
    if error:
        made.error.CopyFrom(errors.to_proto(error))
    return made


def dataset(state: states.State = states.STATE_SUCCEEDED, name: str = "first") -> pb.Dataset:
    """A data set of 100 samples."""
    made = pb.Dataset(name=name, state=state, uri=f"/data/datasets/{name}", digest="ab" * 32)
    made.request.crawls.append("collect-1")
    made.samples.update(train=80, validation=10, test=10)
    made.funnel.CopyFrom(crawl().funnel)
    made.create_time.FromSeconds(BEGUN_SECONDS)
    return made


class CrawlerStandin(rpc.CrawlerServiceServicer):
    """Answers with `works`, the last of each name where one is asked for.

    Args:
        works: the states of crawls and data sets that watchers are sent, in their order.
        between: called between two of them; may wait, or fail the call.
    """

    def __init__(
        self,
        *works: Any,
        between: Callable[[Context], Any] = lambda context: None,
        port: int = 0,
    ) -> None:
        self.requests: list[Message] = []
        self._works, self._between, self._port = works, between, port

    def _of(self, kind: Any, name: str, context: Context) -> list[Any]:
        found = [work for work in self._works if isinstance(work, kind) and work.name == name]
        if not found:
            fail(context, errors.UnknownCrawl(f"There is no {name}.", name=name))
        return found

    def _watched(self, works: list[Any], context: Context) -> Iterator[Any]:
        for number, work in enumerate(works):
            if number:
                self._between(context)
            yield work

    def StartCrawl(self, request: pb.StartCrawlRequest, context: Context) -> pb.StartCrawlResponse:
        self.requests.append(request)
        return pb.StartCrawlResponse(crawl=self._works[0])

    def GetCrawl(self, request: pb.GetCrawlRequest, context: Context) -> pb.GetCrawlResponse:
        return pb.GetCrawlResponse(crawl=self._of(pb.Crawl, request.name, context)[-1])

    def ListCrawls(self, request: pb.ListCrawlsRequest, context: Context) -> pb.ListCrawlsResponse:
        return pb.ListCrawlsResponse(crawls=[w for w in self._works if isinstance(w, pb.Crawl)])

    def WatchCrawl(
        self, request: pb.WatchCrawlRequest, context: Context
    ) -> Iterator[pb.WatchCrawlResponse]:
        for now in self._watched(self._of(pb.Crawl, request.name, context), context):
            yield pb.WatchCrawlResponse(crawl=now)

    def CancelCrawl(
        self, request: pb.CancelCrawlRequest, context: Context
    ) -> pb.CancelCrawlResponse:
        self.requests.append(request)
        return pb.CancelCrawlResponse(crawl=crawl(states.STATE_CANCELLED, request.name))

    def CreateDataset(
        self, request: pb.CreateDatasetRequest, context: Context
    ) -> pb.CreateDatasetResponse:
        self.requests.append(request)
        return pb.CreateDatasetResponse(dataset=self._works[0])

    def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        return pb.GetDatasetResponse(dataset=self._of(pb.Dataset, request.name, context)[-1])

    def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        found = [work for work in self._works if isinstance(work, pb.Dataset)]
        return pb.ListDatasetsResponse(datasets=found)

    def WatchDataset(
        self, request: pb.WatchDatasetRequest, context: Context
    ) -> Iterator[pb.WatchDatasetResponse]:
        for now in self._watched(self._of(pb.Dataset, request.name, context), context):
            yield pb.WatchDatasetResponse(dataset=now)

    def RemoveContent(
        self, request: pb.RemoveContentRequest, context: Context
    ) -> pb.RemoveContentResponse:
        self.requests.append(request)
        return pb.RemoveContentResponse(removed_images=3, excluded_samples=2, datasets=["first"])

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        rpc.add_CrawlerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
