"""One load for every server, over gRPC or HTTP, in a closed loop or an open one.

Both protocols are called by the same code at about the same cost: requests are made beforehand, and
answers are only looked into when all is over. A deadline runs from when a call was due.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
import grpc

from clients.client import from_rpc
from clients.load import METHOD, Call
from clients.report import Kind, Outcome, Report
from clients.throttle import Throttle
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import inference_service_pb2 as pb

CONNECTIONS = 4  # of gRPC; HTTP/1.1 needs one for each call in flight
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
CLOSED_DEADLINE_SECONDS = 10.0
WARM_UP_SECONDS = 0.5
REFUSALS = {408, 429, 503, 504}  # of HTTP

Came = bytes | int | Exception
"""An answer, the status of a refusal, or what went wrong."""
Send = Callable[[bytes, float], Awaitable[Came]]


class Answered(NamedTuple):
    """One call, not yet looked into. Times in seconds, latency from when it was due."""

    at: float
    lag: float
    latency: float
    came: Came | Kind


@dataclass(frozen=True, slots=True)
class Load:
    """What a load has brought."""

    report: Report
    seconds: float
    """In which calls were due."""
    good: list[tuple[float, bytes]]
    """The answers, and when they came: seconds after the start."""
    server_seconds: float = 0.0
    """CPU that the server used in that time; 0 if nobody says."""

    @property
    def answered(self) -> int:
        """Those that came after the load had ended do not count."""
        return sum(at <= self.seconds for at, _ in self.good)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


@contextlib.asynccontextmanager
async def over_grpc(address: str) -> AsyncIterator[Send]:
    """Calls `Suggest` there."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CONNECTIONS)]
        for channel in channels:
            await stack.enter_async_context(channel)
            await channel.channel_ready()
        turns = itertools.cycle(c.unary_unary(METHOD, None, None) for c in channels)

        async def send(request: bytes, timeout: float) -> Came:
            try:
                answer: bytes = await next(turns)(request, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                return failure.with_traceback(None)
            return answer

        yield send


@contextlib.asynccontextmanager
async def over_http(url: str, content_type: str) -> AsyncIterator[Send]:
    """Posts there."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": content_type}
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, trust_env=False
    ) as session:

        async def send(request: bytes, timeout: float) -> Came:
            limit = aiohttp.ClientTimeout(total=timeout)
            try:
                async with session.post(url, data=request, timeout=limit) as response:
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as failure:
                return failure.with_traceback(None)
            return content if response.status == 200 else response.status

        yield send


async def closed_loop(
    send: Send,
    requests: Sequence[bytes],
    in_flight: int,
    seconds: float,
    used_seconds: Callable[[], float] = lambda: 0.0,
) -> Load:
    """So many callers, each of whom calls again as soon as it is answered.

    Args:
        used_seconds: the CPU that the server has used by now.
    """
    loop, turns = asyncio.get_running_loop(), itertools.cycle(requests)
    answers: list[Answered] = []
    start = loop.time() + WARM_UP_SECONDS
    cpu = wall = spent = 0.0

    async def caller() -> None:
        while (at := loop.time() - start) < seconds:
            came = await send(next(turns), CLOSED_DEADLINE_SECONDS)
            if (end := loop.time() - start) >= 0:
                answers.append(Answered(at, 0.0, end - at, came))

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
        await asyncio.sleep(start - loop.time())
        cpu, wall, before = time.process_time(), time.perf_counter(), used_seconds()
        await asyncio.sleep(start + seconds - loop.time())
        spent = used_seconds() - before
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return _load(answers, seconds, cpu, wall, spent)


async def open_loop(
    send: Send, calls: Iterable[Call], seconds: float, throttle: Throttle | None = None
) -> Load:
    """Every call when it is due, whatever became of the others.

    Args:
        throttle: keeps calls back, as in our clients.
    """
    loop, calls = asyncio.get_running_loop(), list(calls)
    answers: list[Answered] = []

    async def make(call: Call, lag: float) -> None:
        came = await send(call.request, call.deadline - lag)
        answers.append(Answered(call.at, lag, loop.time() - start - call.at, came))
        if throttle:
            rpc = isinstance(came, grpc.aio.AioRpcError)
            throttle.observe(from_rpc(came, "") if rpc else None)  # type: ignore[arg-type]

    cpu, wall, start = time.process_time(), time.perf_counter(), loop.time()
    async with asyncio.TaskGroup() as group:
        for call in calls:
            await asyncio.sleep(max(0.0, start + call.at - loop.time()))
            lag = loop.time() - start - call.at
            if lag >= call.deadline:
                answers.append(Answered(call.at, lag, lag, Kind.UNSENT))
            elif throttle and throttle.refusal():
                answers.append(Answered(call.at, lag, lag, Kind.THROTTLED))
            else:
                group.create_task(make(call, lag))
    return _load(answers, seconds, time.process_time() - cpu, time.perf_counter() - wall)


def _load(
    answers: Sequence[Answered],
    seconds: float,
    cpu: float,
    wall: float,
    server_seconds: float = 0.0,
) -> Load:
    if not answers:
        raise TimeoutError("nobody was answered: the machine is too busy, or the time too short")
    outcomes, good = [], []
    for answer in answers:
        kind, why = judged(answer.came)
        outcomes.append(Outcome(answer.at, answer.lag, answer.latency, kind, why))
        if kind is Kind.GOOD and isinstance(answer.came, bytes):
            good.append((answer.at + answer.latency, answer.came))
    return Load(Report(outcomes, cpu, wall), seconds, good, server_seconds)


def judged(came: Came | Kind) -> tuple[Kind, str]:
    """What became of a call, and why; a refusal came in time, and said so."""
    if isinstance(came, Kind):
        return came, ""
    if isinstance(came, int):
        return (Kind.REFUSED if came in REFUSALS else Kind.FAILED), f"HTTP {came}"
    if isinstance(came, grpc.aio.AioRpcError):
        error = from_rpc(came, "")
        late = error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        said = error.reason != reasons.ERROR_REASON_UNSPECIFIED
        refused = said if late else error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        return (Kind.REFUSED if refused else Kind.FAILED), error.code.name
    if isinstance(came, Exception):
        return Kind.FAILED, type(came).__name__
    return Kind.GOOD, ""


def response(content: bytes) -> pb.SuggestResult:
    """Our server's answer for the one picture of a call; raises where it is an error."""
    (result,) = pb.SuggestResponse.FromString(content).results
    if result.HasField("error"):
        raise AssertionError(f"a good picture was refused: {result.error}")
    return result
