"""The gRPC face of the crawler: wire in, wire out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from services.crawler.crawls import Crawls
from services.crawler.datasets import Datasets
from services.crawler.tools import Tools
from services.shared import errors, watching

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CrawlerService(rpc.CrawlerServiceServicer):
    """Implements `emojinet.v1.CrawlerService`."""

    def __init__(self) -> None:
        self._ready: tuple[Crawls, Datasets] | None = None

    def open(self, tools: Tools) -> None:
        """Begins to answer, and goes on with what an earlier process left."""
        crawls = Crawls(tools)
        datasets = Datasets(tools, crawls)
        self._ready = crawls, datasets
        crawls.go_on()
        datasets.go_on()

    async def close(self) -> None:
        """Stops working; the next process goes on."""
        if self._ready:
            crawls, datasets = self._ready
            self._ready = None
            await asyncio.gather(crawls.close(), datasets.close())

    async def StartCrawl(
        self, request: pb.StartCrawlRequest, context: Context
    ) -> pb.StartCrawlResponse:
        return pb.StartCrawlResponse(crawl=await self._crawls.start(request))

    async def GetCrawl(self, request: pb.GetCrawlRequest, context: Context) -> pb.GetCrawlResponse:
        return pb.GetCrawlResponse(crawl=self._crawls.get(request.name))

    async def ListCrawls(
        self, request: pb.ListCrawlsRequest, context: Context
    ) -> pb.ListCrawlsResponse:
        return pb.ListCrawlsResponse(crawls=self._crawls.list())

    async def WatchCrawl(
        self, request: pb.WatchCrawlRequest, context: Context
    ) -> AsyncIterator[pb.WatchCrawlResponse]:
        async for crawl in watching.changes(lambda: self._crawls.get(request.name)):
            yield pb.WatchCrawlResponse(crawl=crawl)

    async def CancelCrawl(
        self, request: pb.CancelCrawlRequest, context: Context
    ) -> pb.CancelCrawlResponse:
        return pb.CancelCrawlResponse(crawl=await self._crawls.cancel(request.name))

    async def CreateDataset(
        self, request: pb.CreateDatasetRequest, context: Context
    ) -> pb.CreateDatasetResponse:
        return pb.CreateDatasetResponse(dataset=self._datasets.create(request))

    async def GetDataset(
        self, request: pb.GetDatasetRequest, context: Context
    ) -> pb.GetDatasetResponse:
        return pb.GetDatasetResponse(dataset=self._datasets.get(request.name))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        return pb.ListDatasetsResponse(datasets=self._datasets.list())

    async def WatchDataset(
        self, request: pb.WatchDatasetRequest, context: Context
    ) -> AsyncIterator[pb.WatchDatasetResponse]:
        async for dataset in watching.changes(lambda: self._datasets.get(request.name)):
            yield pb.WatchDatasetResponse(dataset=dataset)

    async def RemoveContent(
        self, request: pb.RemoveContentRequest, context: Context
    ) -> pb.RemoveContentResponse:
        return await self._datasets.remove(request)

    @property
    def _crawls(self) -> Crawls:
        return self._opened()[0]

    @property
    def _datasets(self) -> Datasets:
        return self._opened()[1]

    def _opened(self) -> tuple[Crawls, Datasets]:
        if self._ready is None:
            raise errors.Draining("This server is starting or shutting down. Try again soon.")
        return self._ready
