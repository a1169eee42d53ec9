"""`emojinet load`: an open-loop load, and what the server made of it.

Every call is sent when it is due, whatever became of the others, and costs about 0.5 ms of CPU:
requests are serialised beforehand, and answers are only looked into when all is over. With a
`Throttle`, calls to a server that refuses most of them are kept back, as our clients do it.

    made = requests([jpeg], rng)
    calls = plan(poisson(steps([50, 100], 30), rng), lambda: rng.choice(made), rng)
    report = await run("127.0.0.1:50051", calls)
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from enum import StrEnum
from functools import partial
from itertools import cycle
from json import dumps
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple, TextIO

import grpc
import typer
from google.protobuf.message import DecodeError
from rich.console import Console

from clients import arrivals, options, pictures
from clients.arrivals import constant, poisson
from clients.client import (
    DEFAULT_SERVER,
    channel_options,
    from_rpc,
    suggest_request,
    unreachable,
)
from clients.credentials import Credentials
from clients.report import Kind, Outcome, Report
from clients.throttle import Throttle
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors, photographs
from services.shared.errors import EmojinetError

_Send = Callable[..., "grpc.aio.UnaryUnaryCall[bytes, bytes]"]
METHOD = "/emojinet.v1.InferenceService/Suggest"
DEADLINE_SECONDS = 1.0
DEFAULT_RATE = 10.0
CONNECT_SECONDS = 5.0
MAX_REQUEST_BYTES = 16 * 1024 * 1024
MIXES = 64  # different requests with several images


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
    came: bytes | grpc.aio.AioRpcError | Kind


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


async def run(
    server: str,
    calls: Iterable[Call],
    *,
    connections: int = 4,
    connect_seconds: float = CONNECT_SECONDS,
    throttle: Throttle | None = None,
) -> Report:
    """Makes every call when it is due, and reports what became of them all.

    Args:
        server: address of the inference service.
        calls: in order of time, at least one.
        connections: over which they are spread, as those of many callers would be.
        connect_seconds: how long these may take, before the first call.
        throttle: keeps calls from being sent, as in our clients.

    Raises:
        ServerUnreachable: nothing answers there at the start.
    """
    async with AsyncExitStack() as stack:
        channels = [_channel(server) for _ in range(connections)]
        for channel in channels:
            stack.push_async_callback(channel.close, None)
        try:
            async with asyncio.timeout(connect_seconds):
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
        except TimeoutError:
            raise await _trouble(server, channels[0]) from None
        cpu, wall = time.process_time(), time.perf_counter()
        sends = [channel.unary_unary(METHOD, None, None) for channel in channels]
        answers = await _answers(list(calls), sends, throttle)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Report(map(_outcome, answers), cpu, wall)


def _channel(server: str) -> grpc.aio.Channel:
    alone = ("grpc.use_local_subchannel_pool", 1)  # or channels would share a connection
    return Credentials.of_environment().aio_channel(server, [*channel_options(server), alone])


async def _trouble(server: str, channel: grpc.aio.Channel) -> EmojinetError:
    """Why there is no connection: only a call is told."""
    try:
        await channel.unary_unary(METHOD, None, None)(b"", timeout=DEADLINE_SECONDS)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is grpc.StatusCode.UNAVAILABLE:
            return from_rpc(failure, server)
    return unreachable(server)


async def _answers(
    calls: Iterable[Call], sends: Sequence[_Send], throttle: Throttle | None = None
) -> list[_Answer]:
    loop = asyncio.get_running_loop()
    answers: list[_Answer] = []
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        for call, send in zip(calls, cycle(sends), strict=False):
            await asyncio.sleep(max(0.0, start + call.at - loop.time()))
            if throttle and throttle.refusal():
                lag = loop.time() - start - call.at
                answers.append(_Answer(call, lag, lag, Kind.THROTTLED))
            else:
                group.create_task(_make(call, send, start, answers, throttle))
    return answers


async def _make(
    call: Call, send: _Send, start: float, answers: list[_Answer], throttle: Throttle | None
) -> None:
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
    if throttle:
        throttle.observe(from_rpc(came, "") if isinstance(came, grpc.aio.AioRpcError) else None)


def _outcome(answer: _Answer) -> Outcome:
    call, lag, latency, came = answer
    if isinstance(came, Kind):
        return Outcome(call.at, lag, latency, came, "")
    if isinstance(came, bytes):
        wrong = _wrong(came)
        kind = Kind.FAILED if wrong else Kind.GOOD
    else:
        wrong = from_rpc(came, "")
        kind = Kind.REFUSED if _refused(wrong) else Kind.FAILED
    why = f"{wrong.code.name} {errors.reason_name(wrong)}" if wrong else ""
    return Outcome(call.at, lag, latency, kind, why)


def _wrong(response: bytes) -> EmojinetError | None:
    """What is wrong with the first image that is, if one is."""
    try:
        results = pb.SuggestResponse.FromString(response).results
        return next((errors.from_proto(r.error) for r in results if r.HasField("error")), None)
    except DecodeError as error:
        return errors.Internal(f"the server broke the contract: {error}")


def _refused(error: EmojinetError) -> bool:
    """Whether the server said so: a deadline that simply passed comes without a reason."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return error.reason != reasons.ERROR_REASON_UNSPECIFIED
    return error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


class Process(StrEnum):
    """How calls come at a given rate."""

    POISSON = "poisson"
    CONSTANT = "constant"


_seconds = partial(typer.Option, min=0.001, max=86_400, callback=options.finite)
_share = partial(typer.Option, min=0, max=1, callback=options.finite)


def load(
    named: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE|FOLDER|URL", help="Pictures, of which calls take any."),
    ] = None,
    server: options.Server = DEFAULT_SERVER,
    rate: Annotated[float | None, typer.Option(help="Calls a second; 10 if not said.")] = None,
    steps: Annotated[str | None, typer.Option(help="Rates in turn: 50,100,200")] = None,
    ramp: Annotated[
        str | None, typer.Option(help="Rates, evenly from one to the next: 10,200")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="CSV: the second of each call, or second,rate.")
    ] = None,
    duration: Annotated[float, _seconds(help="Seconds, of each step or ramp.")] = 10.0,
    process: Annotated[
        Process, typer.Option("--arrivals", help="Random, or evenly spaced.")
    ] = Process.POISSON,
    deadline: Annotated[float, _seconds(help="Seconds for each call.")] = DEADLINE_SECONDS,
    cancel: Annotated[float, _share(help="Share of calls that give up midway.")] = 0.0,
    bulk: Annotated[float, _share(help="Share of calls of bulk priority.")] = 0.0,
    images_per_call: Annotated[int, typer.Option(min=1, max=64)] = 1,
    connections: Annotated[int, typer.Option(min=1, max=1000)] = 4,
    throttled: Annotated[
        bool, typer.Option("--throttle", help="Send less to a busy server, as our clients do.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of all that is random; the same gives the same.")] = 0,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE|-", help="Also the figures, as JSON.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Also a plot, over time.")] = None,
) -> None:
    """Send an open-loop load, and report goodput, refusals and latency.

    Calls go out when they are due, whatever became of earlier ones, to all replicas of the server
    in turn; only one that no replica has seen is tried again. Latency counts from when a call was
    due.
    """
    rng = random.Random(seed)
    draw = constant if process is Process.CONSTANT else partial(poisson, rng=rng)
    try:
        schedule = _schedule(rate, steps, ramp, trace, duration, draw)
        if not schedule:
            raise ValueError("by chance no call is due: a higher rate, or another --seed")
        images = _images(named or map(str, photographs.installed()))
        choose = _chooser(images, images_per_call, bulk, rng)
    except (ValueError, OSError) as error:
        raise typer.TyperException(str(error)) from error
    calls = plan(schedule, choose, rng, deadline=deadline, cancelled_share=cancel)
    with ExitStack() as stack:
        out = _json_file(json, stack)
        plot = _png_file(png, stack)
        options.say(f"{len(schedule):,} calls in {schedule[-1]:.0f} s to {server} …")
        throttle = Throttle() if throttled else None
        report = asyncio.run(run(server, calls, connections=connections, throttle=throttle))
        report.print(Console(stderr=out is sys.stdout))
        if out:
            print(dumps(report.figures(), indent=1), file=out)
        if plot:
            report.draw(plot)


def _schedule(
    rate: float | None,
    steps: str | None,
    ramp: str | None,
    trace: Path | None,
    seconds: float,
    draw: arrivals.Draw,
) -> list[float]:
    if sum(given is not None for given in (rate, steps, ramp, trace)) > 1:
        raise ValueError("only one of --rate, --steps, --ramp and --trace says how much to send")
    if trace:
        return arrivals.recorded(trace.read_text().splitlines(), draw)
    if ramp:
        return draw(arrivals.ramp(_rates(ramp), seconds))
    if steps:
        return draw(arrivals.steps(_rates(steps), seconds))
    return draw(arrivals.steps([DEFAULT_RATE if rate is None else rate], seconds))


def _rates(text: str) -> list[float]:
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is no list of rates, such as 50,100,200") from None


def _images(named: Iterable[str]) -> list[bytes]:
    images = [_image(name) for name in pictures.named(named)]
    if not images:
        raise ValueError("name a picture to send")
    return images


def _image(name: str) -> bytes:
    try:
        return pictures.read(name, timeout_seconds=CONNECT_SECONDS)
    except EmojinetError as error:
        raise ValueError(f"{name}: {error}") from error


def _chooser(
    images: Sequence[bytes], images_per_call: int, bulk: float, rng: random.Random
) -> Callable[[], bytes]:
    """Draws a request, of bulk priority for that share of calls."""
    urgent, patient = (
        requests(images, rng, images_per_call=images_per_call, priority=priority)
        for priority in (pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK)
    )
    if max(map(len, urgent)) > MAX_REQUEST_BYTES:
        raise ValueError("a call would have more than 16 MiB: smaller pictures, or fewer at a time")
    return lambda: rng.choice(patient if rng.random() < bulk else urgent)


def _json_file(path: Path | None, stack: ExitStack) -> TextIO | None:
    if path is None or str(path) == "-":
        return sys.stdout if path else None
    return stack.enter_context(options.opened(path))


def _png_file(path: Path | None, stack: ExitStack) -> BinaryIO | None:
    if path is None:
        return None
    with options.needs("report"):  # now, not after a long load
        import matplotlib.figure  # noqa: F401
    return stack.enter_context(options.opened(path)).buffer
