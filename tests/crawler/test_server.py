from pathlib import Path

import grpc
import pytest

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from services.crawler.fetch import Outcome
from services.crawler.keep import Verdict
from services.crawler.server import CrawlerService
from services.shared import harness
from tests.crawler.running import brisk, crawler  # noqa: F401

SOURCES = ("import", "instagram-v1", "bluesky")
UNDECODED = (
    "empty_image undecodable_image unsupported_format image_too_large decode_limit decoder_died"
)


async def test_all_series_are_there_at_zero_from_the_start(tmp_path: Path) -> None:
    async with crawler(tmp_path) as running:
        for source in SOURCES:
            for verdict in Verdict:
                labels = {"source": source, "outcome": verdict}
                assert running.sample("emojinet_posts_total", **labels) == 0, labels
        for outcome in (*Outcome, "stored", "duplicate", "removed", *UNDECODED.split()):
            assert running.sample("emojinet_images_total", outcome=outcome) == 0, outcome
        for state in ("queued", "in_hand"):
            assert running.sample("emojinet_frontier_depth", state=state) == 0


async def test_a_service_that_is_still_starting_says_so() -> None:
    server = harness.new_server(harness.Boundary())
    rpc.add_CrawlerServiceServicer_to_server(CrawlerService(), server)
    port = harness.bind(server, "127.0.0.1", 0)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="starting or shutting down") as raised:
            await rpc.CrawlerServiceStub(channel).ListCrawls(pb.ListCrawlsRequest())
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


async def test_nothing_is_listed_before_there_is_anything(tmp_path: Path) -> None:
    async with crawler(tmp_path) as running:
        assert not (await running.stub.ListCrawls(pb.ListCrawlsRequest())).crawls
        assert not (await running.stub.ListDatasets(pb.ListDatasetsRequest())).datasets
