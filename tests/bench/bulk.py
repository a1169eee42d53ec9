"""What bulk work costs those who wait: the same interactive calls alone, and beside a full stream.

They come at half of capacity, in turns without and with a `SuggestStream` that is never short of
pictures; whoever is not answered counts as having waited until the deadline.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import grpc

from clients.arrivals import poisson, steps
from clients.client import suggest_request
from clients.load import DEADLINE_SECONDS, plan
from clients.report import Kind
from emojinet.v1 import inference_service_pb2 as pb
from tests.bench.callers import OPTIONS, WARM_UP_SECONDS, Send, open_loop, over_grpc
from tests.bench.standings import ratio, share_ms

METHOD = "/emojinet.v1.InferenceService/SuggestStream"
TURNS = 2
SHARE = 0.5  # of capacity


class Beside(NamedTuple):
    """One round: latencies of interactive calls in ascending order, and the stream alone."""

    alone: list[float]
    beside: list[float]
    rate: float
    """Images a second."""


@contextlib.asynccontextmanager
async def stream(address: str, pictures: Sequence[bytes]) -> AsyncIterator[list[bytes]]:
    """A stream that takes all that the server gives it, and its answers as they come."""
    requests = [
        pb.SuggestStreamRequest(request=suggest_request([picture])).SerializeToString()
        for picture in pictures
    ]

    async def endless() -> AsyncIterator[bytes]:
        for request in itertools.cycle(requests):
            yield request

    answers: list[bytes] = []

    async def read() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            async for answer in call:
                answers.append(answer)

    async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
        call = channel.stream_stream(METHOD, None, None)(endless())
        reading = asyncio.create_task(read())
        try:
            yield answers
        finally:
            call.cancel()
            await reading
    for answer in answers:
        said = pb.SuggestStreamResponse.FromString(answer)
        if not said.response.results or said.response.results[0].HasField("error"):
            raise AssertionError(f"a good picture was refused: {said}")


async def measure(
    address: str, pictures: Sequence[bytes], capacity: float, seconds: float
) -> Beside:
    """Takes `TURNS` times three parts of so many seconds, and a warm-up."""
    alone: list[float] = []
    beside: list[float] = []
    rates: list[float] = []
    requests = [suggest_request([picture]).SerializeToString() for picture in pictures]
    loop = asyncio.get_running_loop()
    async with over_grpc(address) as send:
        for turn in range(TURNS):
            alone += await _waits(send, requests, capacity, seconds, turn)
            async with stream(address, pictures) as answers:
                await asyncio.sleep(WARM_UP_SECONDS)
                before, start = len(answers), loop.time()
                await asyncio.sleep(seconds)
                rates.append((len(answers) - before) / (loop.time() - start))
                beside += await _waits(send, requests, capacity, seconds, turn)
    return Beside(sorted(alone), sorted(beside), sum(rates) / TURNS)


async def _waits(
    send: Send, requests: Sequence[bytes], capacity: float, seconds: float, seed: int
) -> list[float]:
    """How long each of the calls waited; the same seed has the same calls."""
    rng = random.Random(seed)
    calls = plan(
        poisson(steps([SHARE * capacity], seconds), rng), lambda: rng.choice(requests), rng
    )
    load = await open_loop(send, calls, seconds)
    return [o.latency if o.kind is Kind.GOOD else DEADLINE_SECONDS for o in load.report.outcomes]


def figures(rounds: Sequence[Beside], closed_rates: Sequence[float]) -> dict[str, Any]:
    """The ratios, round by round, and the milliseconds of all rounds together.

    Args:
        closed_rates: images a second of a closed loop in each round.
    """
    alone = [share_ms(one.alone, 0.95) for one in rounds]
    beside = [share_ms(one.beside, 0.95) for one in rounds]
    compared = {
        "bulk_p95_ratio": ratio(beside, [alone]),
        "bulk_throughput_ratio": ratio([one.rate for one in rounds], [closed_rates]),
    }
    found: dict[str, Any] = {
        "p95_ms_half": share_ms(sorted(s for one in rounds for s in one.alone), 0.95),
        "p95_ms_half_beside_bulk": share_ms(sorted(s for one in rounds for s in one.beside), 0.95),
    }
    for name, (middle, (least, most)) in compared.items():
        found |= {name: middle, f"{name}_least": least, f"{name}_most": most}
    return found
