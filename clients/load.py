"""`emojinet load`: an open-loop load, and what the server made of it.

Every call is sent when it is due, whatever became of the others, and costs about 0.35 ms of CPU:
requests are serialised beforehand, and answers are only looked into when all is over.

    calls = plan(poisson(steps([50, 100], 30), rng), requests([jpeg]), rng)
    report = await run("127.0.0.1:50051", calls)
"""

import asyncio
import gc
import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import grpc
import typer
from google.protobuf.message import DecodeError
from rich.console import Console

from clients import arrivals, options, pictures
from clients.client import DEFAULT_SERVER, from_rpc, suggest_request
from clients.report import Kind, Outcome, Report
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from services.shared.errors import ServerUnreachable

METHOD = "/emojinet.v1.InferenceService/Suggest"
DEADLINE_SECONDS = 1.0
CONNECT_SECONDS = 5.0
MIXES = 64  # different requests with several images
# Photographs that packages of ours happen to ship, for who names none.
SHIPPED = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}


class Call(NamedTuple):
    """One call to make."""

    at: float  # seconds after the start
    request: bytes  # a serialised `SuggestRequest`
    deadline: float = DEADLINE_SECONDS  # seconds after `at`
    cancel: float | None = None  # seconds after `at` when its caller gives up


class _Answer(NamedTuple):
    """What came back, not yet looked into."""

    call: Call
    lag: float
    latency: float
    outcome: bytes | grpc.aio.AioRpcError | Kind


def requests(
    images: Sequence[bytes],
    rng: random.Random,
    *,
    images_per_call: int = 1,
    priority: pb.Priority = pb.PRIORITY_INTERACTIVE,
) -> list[bytes]:
    """Serialised requests: one for each image, or mixes of several images."""
    if images_per_call == 1:
        mixes = [[image] for image in images]
    else:
        mixes = [rng.choices(images, k=images_per_call) for _ in range(MIXES)]
    return [suggest_request(mix, priority=priority).SerializeToString() for mix in mixes]


def plan(
    schedule: Iterable[float],
    choose: Callable[[], bytes],
    rng: random.Random,
    *,
    deadline: float = DEADLINE_SECONDS,
    cancelled_share: float = 0.0,
) -> Iterator[Call]:
    """A call for each time of `schedule`; some give up after a random part of their deadline."""
    for at in schedule:
        gives_up = rng.random() < cancelled_share
        yield Call(at, choose(), deadline, rng.uniform(0, deadline) if gives_up else None)


async def run(server: str, calls: Iterable[Call], *, connections: int = 4) -> Report:
    """Makes every call when it is due, and reports what became of them all.

    Args:
        server: address of the inference service.
        calls: in order of time, at least one.
        connections: over which they are spread, as those of many callers would be.

    Raises:
        ServerUnreachable: nothing answers there at the start.
    """
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(server)) for _ in range(connections)]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
        except TimeoutError:
            raise unreachable(server) from None
        cpu, wall = time.process_time(), time.perf_counter()
        answers = await _answers(list(calls), [c.unary_unary(METHOD) for c in channels])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Report(map(_outcome, answers), cpu, wall)


def _channel(server: str) -> grpc.aio.Channel:
    once = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(server, options=once)


async def _answers(calls: Iterable[Call], sends: Sequence[_Send]) -> list[_Answer]:
    loop = asyncio.get_running_loop()
    answers: list[_Answer] = []
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        for call, send in zip(calls, cycle(sends), strict=False):
            await asyncio.sleep(max(0.0, start + call.at - loop.time()))
            group.create_task(_make(call, send, start, answers))
    return answers


async def _make(call: Call, send: _Send, start: float, answers: list[_Answer]) -> None:
    loop = asyncio.get_running_loop()
    due = start + call.at
    lag = loop.time() - due
    if lag >= call.deadline:
        answers.append(_Answer(call, lag, lag, Kind.UNSENT))
        return
    rpc = send(call.request, timeout=call.deadline - lag)
    if call.cancel is not None:
        loop.call_at(due + call.cancel, rpc.cancel)
    came: bytes | grpc.aio.AioRpcError | Kind
    try:
        came = await rpc
    except grpc.aio.AioRpcError as failure:
        came = failure.with_traceback(None)  # which would keep the frames of every refusal
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        came = Kind.CANCELLED
    answers.append(_Answer(call, lag, loop.time() - due, came))


def _outcome(answer: _Answer) -> Outcome:
    call, lag, latency, came = answer
    if isinstance(came, Kind):
        return Outcome(call.at, lag, latency, came, "")
    if isinstance(came, bytes):
        results = pb.SuggestResponse.FromString(came).results
        wrong = next((errors.from_proto(r.error) for r in results if r.HasField("error")), None)
        kind = Kind.FAILED if wrong else Kind.GOOD
    else:
        wrong = from_rpc(came, "")
        kind = Kind.REFUSED if _refused(wrong) else Kind.FAILED
    why = f"{wrong.code.name} {errors.reason_name(wrong)}" if wrong else ""
    return Outcome(call.at, lag, latency, kind, why)


def _refused(error: EmojinetError) -> bool:
    """Whether the server said so: a deadline that simply passed comes without a reason."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return error.reason != reasons.ERROR_REASON_UNSPECIFIED
    return error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


class Process(StrEnum):
    """How calls come at a given rate."""

    POISSON = "poisson"
    CONSTANT = "constant"


Seconds = Annotated[float, typer.Option(min=0.001, callback=options.finite)]
Share = Annotated[float, typer.Option(min=0, max=1, callback=options.finite)]


def load(
    named: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|FOLDER|URL]...", help="Pictures, of which calls take any."),
    ] = None,
    server: options.Server = DEFAULT_SERVER,
    rate: Annotated[str | None, typer.Option(help="Calls a second; 10 if nothing is said.")] = None,
    steps: Annotated[str | None, typer.Option(help="Rates in turn: 50,100,200")] = None,
    ramp: Annotated[str | None, typer.Option(help="Rates, evenly from one to the next.")] = None,
    trace: Annotated[Path | None, typer.Option(help="CSV of seconds, or of seconds, rates.")] = None,
    duration: Annotated[Seconds, typer.Option(help="Seconds, of each step or ramp.")] = 10.0,
    process: Annotated[
        Process, typer.Option("--arrivals", help="Random, or evenly spaced.")
    ] = Process.POISSON,
    deadline: Annotated[Seconds, typer.Option(help="Seconds for each call.")] = DEADLINE_SECONDS,
    cancel: Annotated[Share, typer.Option(help="Share of calls that give up midway.")] = 0.0,
    bulk: Annotated[Share, typer.Option(help="Share of calls of bulk priority.")] = 0.0,
    images_per_call: Annotated[int, typer.Option(min=1, max=64)] = 1,
    connections: Annotated[int, typer.Option(min=1, max=1000)] = 4,
    seed: Annotated[int, typer.Option(help="Of all that is random; the same gives the same.")] = 0,
    json: Annotated[Path | None, typer.Option(metavar="FILE|-", help="Also figures.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also a plot over time.")] = None,
) -> None:
    """Send an open-loop load, and report goodput, refusals and latency.

    Calls go out when they are due, whatever became of earlier ones, and none is tried again;
    latency counts from when a call was due.
    """
    rng = random.Random(seed)
    draw = constant if process is Process.CONSTANT else partial(poisson, rng=rng)
    try:
        schedule = _schedule(rate, steps, ramp, trace, duration, draw)
        images = _images(named)
    except (ValueError, OSError, EmojinetError) as error:
        raise typer.TyperException(str(error)) from error
    urgent, patient = (
        requests(images, rng, images_per_call=images_per_call, priority=priority)
        for priority in (pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK)
    )
    calls = plan(
        schedule,
        lambda: rng.choice(patient if rng.random() < bulk else urgent),
        rng,
        deadline=deadline,
        cancelled_share=cancel,
    )
    with ExitStack() as stack:
        files = [stack.enter_context(options.opened(path)) for path in (json, png) if path]
        ...
