"""`GET /api/service`: the totals that the page draws, from a real server's metrics."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from emojinet.v1 import inference_service_pb2 as pb
from services.shared import photographs
from tests.clients.web.serving import form, serving
from tests.inference.running import inference

CAT = next(path for path in photographs.installed() if path.name == "chelsea.png").read_bytes()


@contextmanager
def metrics(registry: CollectorRegistry) -> Iterator[str]:
    """The URL of a page of metrics."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_the_totals_are_those_of_the_service(tiny: Path) -> None:
    async with inference(tiny, "timed:20ms") as running:
        with metrics(running.registry) as url:
            async with serving(running.address, url) as page:
                began = time.monotonic()
                for _ in range(3):
                    assert (await page.suggest(form(("cat.png", CAT))))[0] == 200
                took = time.monotonic() - began
                status, _, told = await page.get("/api/service")
    assert status == 200
    assert told["images"] == told["waits"] == told["calls"]["OK"] == 3
    assert told["refused"] == 0
    assert told["model"]["name"] == "tiny"
    assert told["stages"]["device"]["slots"] == 1
    busy_seconds = told["stages"]["device"]["busy_seconds"]
    assert busy_seconds >= 0.06
    assert told["wait_seconds"] >= 0
    assert busy_seconds + told["wait_seconds"] <= took  # they came one after the other
    assert told["objective_seconds"] == 0.1


async def test_a_refused_picture_counts_as_a_second_of_wait(tiny: Path) -> None:
    async with inference(tiny, "timed:20000ms") as running:
        with metrics(running.registry) as url:
            async with serving(running.address, url) as page:
                request = pb.SuggestRequest(images=[{"content": CAT}])
                with pytest.raises(grpc.aio.AioRpcError):
                    await running.stub.Suggest(request, timeout=5)  # hopeless, so at once
                _, _, told = await page.get("/api/service")
    assert (told["refused"], told["waits"]) == (1, 1)
    assert told["wait_seconds"] == 1


async def test_bulk_work_is_no_demand_and_no_wait(tiny: Path) -> None:
    async with inference(tiny, "timed:20ms") as running:
        with metrics(running.registry) as url:
            async with serving(running.address, url) as page:
                await page.suggest(form(("cat.png", CAT), priority="bulk"))
                _, _, told = await page.get("/api/service")
    assert (told["images"], told["waits"]) == (1, 0)
    assert told["stages"]["device"]["busy_seconds"] == 0


async def test_many_who_look_cost_the_service_one_look(tiny: Path) -> None:
    looks = 0

    class Counting(CollectorRegistry):
        def collect(self):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += 1
            return super().collect()

    with metrics(Counting()) as url:
        async with serving("127.0.0.1:9", url) as page:
            await asyncio.gather(*(page.get("/api/service") for _ in range(20)))
    # An empty page is no answer to keep, so each look is a new one, one at a time.
    assert looks == 20
    looks = 0
    async with inference(tiny) as running:
        with metrics(running.registry) as url:
            async with serving(running.address, url) as page:
                seen = await asyncio.gather(*(page.get("/api/service") for _ in range(20)))
    assert len({told["seconds"] for _, _, told in seen}) == 1


async def test_no_metrics_and_none_yet_are_told_apart() -> None:
    async with serving("127.0.0.1:9") as page:
        status, _, told = await page.get("/api/service")
        assert (status, told["reason"]) == (503, "ERROR_REASON_SERVER_UNREACHABLE")
    with metrics(CollectorRegistry()) as url:
        async with serving("127.0.0.1:9", url) as page:
            status, _, told = await page.get("/api/service")
    assert (status, told["reason"]) == (503, "ERROR_REASON_NO_MODEL")


@pytest.mark.parametrize(
    "text", [b"<html>no metrics</html>", b"\xff\xfe", b'emojinet_slots{stage="']
)
async def test_a_page_that_is_no_metrics_is_not_believed(text: bytes) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        async with serving("127.0.0.1:9", f"http://127.0.0.1:{server.server_port}/") as page:
            status, _, told = await page.get("/api/service")
        server.shutdown()
    assert (status, told["reason"]) == (503, "ERROR_REASON_SERVER_UNREACHABLE")
