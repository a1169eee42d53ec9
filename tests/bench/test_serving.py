"""What `bench-serving` measures with, against real servers that are slow, refuse or answer."""

import asyncio
import compileall
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aiohttp import web

from clients.load import Call
from clients.report import Kind
from clients.throttle import Throttle
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from services.shared import errors, pixels
from tests.bench import bulk, serving_tables, standings
from tests.bench.bulk import Beside
from tests.bench.callers import WARM_UP_SECONDS, closed_loop, open_loop, over_grpc, over_http
from tests.bench.serving import rounded
from tests.bench.standings import Standing, ratio, share_ms
from tests.bench.textbook import textbook
from tests.photographs import make

PEERS = Path(__file__).parent / "peers"


@contextlib.asynccontextmanager
async def http(status: int, takes_seconds: float = 0.0) -> AsyncIterator[str]:
    """A server that always says the same."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(takes_seconds)
        return web.Response(status=status, body=b"[]")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await web.SockSite(runner, listening).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        await runner.cleanup()


class Overloaded(rpc.InferenceServiceServicer):
    """Refuses as our server does, and says for how long."""

    async def Suggest(
        self, request: pb.SuggestRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        refusal = errors.Overloaded("busy", retry_seconds=1.0, waitMilliseconds="0")
        await errors.abort(context, refusal)


@contextlib.asynccontextmanager
async def refuser() -> AsyncIterator[str]:
    """A gRPC server that refuses everything."""
    server = grpc.aio.server()
    rpc.add_InferenceServiceServicer_to_server(Overloaded(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def calls(count: int, every_seconds: float, deadline: float = 1.0) -> list[Call]:
    return [Call(n * every_seconds, b"", deadline) for n in range(count)]


async def test_a_closed_loop_has_as_many_callers_as_it_says() -> None:
    here = most = 0

    async def send(request: bytes, timeout: float) -> bytes:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0.05)
        here -= 1
        return request

    load = await closed_loop(send, [b"picture"], 4, 1.0)
    assert most == 4
    assert 40 < load.rate <= 80  # each with 20 calls a second at most
    assert load.report.count(Kind.GOOD) == len(load.report.outcomes)


async def test_the_servers_time_is_that_of_the_calls_that_are_measured() -> None:
    began, asked = time.monotonic(), []

    def used_seconds() -> float:
        asked.append(time.monotonic() - began)
        return asked[-1] / 2

    async with http(200, 0.05) as url, over_http(url, "image/jpeg") as send:
        load = await closed_loop(send, [b"picture"], 4, 1.0, used_seconds)
    found = standings.closed(load, 100.0, ours=False)
    first, last = asked
    assert first >= WARM_UP_SECONDS
    assert last >= WARM_UP_SECONDS + 1.0
    assert found.server_ms * load.answered == pytest.approx(500 * (last - first))


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    async with http(200, 0.5) as url, over_http(url, "image/jpeg") as send:
        began = time.monotonic()
        load = await open_loop(send, calls(20, 0.02, deadline=10), 0.4)
    assert time.monotonic() - began < 2  # one after the other they would take 10 s
    assert load.report.count(Kind.GOOD) == 20
    assert load.rate == 0  # none came before the load had ended


async def test_an_answer_after_the_deadline_is_none() -> None:
    async with http(200, 2.0) as url, over_http(url, "image/jpeg") as send:
        load = await open_loop(send, calls(3, 0.02, deadline=0.6), 1.0)
    assert load.report.count(Kind.FAILED) == 3
    assert load.good == []


@pytest.mark.parametrize(("status", "kind"), [(429, Kind.REFUSED), (500, Kind.FAILED)])
async def test_a_refusal_over_http_is_told_from_a_failure(status: int, kind: Kind) -> None:
    async with http(status) as url, over_http(url, "image/jpeg") as send:
        load = await open_loop(send, calls(3, 0.02), 1.0)
    assert load.report.count(kind) == 3


async def test_refusals_over_grpc_are_counted_and_a_throttle_keeps_calls_back() -> None:
    async with refuser() as address, over_grpc(address) as send:
        plain = await open_loop(send, calls(100, 0.002), 1.0)
        throttled = await open_loop(send, calls(300, 0.002), 1.0, Throttle(draw=lambda: 0.0))
    assert plain.report.count(Kind.REFUSED) == 100
    assert throttled.report.count(Kind.THROTTLED) > 150


async def test_what_our_server_says_of_its_time_is_read() -> None:
    answer = pb.SuggestResponse()
    timing = answer.results.add().timing
    timing.compute.FromMilliseconds(300)
    timing.batch_size = 2

    async def send(request: bytes, timeout: float) -> bytes:
        await asyncio.sleep(0.001)
        return answer.SerializeToString()

    shut = await closed_loop(send, [b""], 1, 1.0)
    found = standings.closed(shut, 100.0, ours=True)
    assert found.phases_ms["compute"] == pytest.approx(300)
    load = await open_loop(send, calls(4, 0.01), 1.0)
    assert standings.opened(load, 4.0, 0.8).wasted_share == pytest.approx(0.25)


def test_what_bulk_costs_is_told_round_by_round() -> None:
    rounds = [Beside([0.1] * 20, [0.11] * 20, 60.0), Beside([0.2] * 20, [0.3] * 20, 50.0)]
    found = bulk.figures(rounds, [60.0, 100.0])
    assert found["bulk_p95_ratio"] == pytest.approx(1.3)
    assert found["bulk_throughput_ratio_least"] == 0.5


def test_a_ratio_is_of_each_round_and_to_the_best_of_the_others() -> None:
    middle, (least, most) = ratio([10.0, 12.0, 9.0], [[5.0, 2.0, 3.0], [1.0, 4.0, 2.0]])
    assert (middle, least, most) == (3.0, 2.0, 3.0)


def test_the_tables_and_the_result_can_be_read_by_programs() -> None:
    standing = Standing()
    standing.closed[1].append(standings.Closed(10.0, [0.1], 1.0, 0.3, 50.0, {}))
    standing.opened["2x"].append(standings.Opened(20.0, 9.5, [0.2], [], 0.0, 0.1))
    nothing = rounded(share_ms([], 0.5))
    text = serving_tables.as_markdown({"one": standing}, {"n": 1}, {"nothing": nothing})
    assert "| one | 1 | 10.0 |" in text
    assert json.loads(text.split("RESULT ")[1], parse_constant=pytest.fail) == {"nothing": None}


def test_every_peer_compiles() -> None:
    assert len(list(PEERS.glob("*.py"))) >= 5
    assert compileall.compile_dir(PEERS, quiet=1, force=True)


def test_the_textbook_cuts_the_square_that_we_cut() -> None:
    (picture,) = make(640, 480, 1)
    ours, _ = pixels.crop(pixels.decode(picture))
    difference = np.abs(textbook(picture).astype(int) - ours)
    assert difference.mean() < 3
