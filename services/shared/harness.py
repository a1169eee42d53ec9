"""What every service does the same way: ports, health, metrics, logs, errors, and a clean end."""

import asyncio
import ctypes
import fcntl
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import grpc
import typer
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from pythonjsonlogger.json import JsonFormatter

from services.shared import errors, settings, traces
from services.shared.access import FROM_HERE, Access
from services.shared.queue import internal

MAX_MESSAGE_BYTES = 16 << 20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
READY, LIVE = "ready", "live"
CONTRACTS = ("/emojinet.", "/inference.")  # the methods that are bounded and counted
CONNECTION_AGE_MS = 20_000  # so that clients find replicas that are new
Handler = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Any]
Opening = Callable[[CollectorRegistry, AsyncExitStack], Awaitable[None]]

log = logging.getLogger(__name__)


def log_as_json() -> None:
    """One JSON object a line on stderr; control characters are escaped, so a line is a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    handler.addFilter(traces.tag)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def give_back_large_blocks() -> None:
    """Keeps what a few messages of megabytes needed from staying with the process for good.

    Left alone, glibc raises this threshold with the first large block that is freed.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def keep_large_blocks() -> None:
    """Keeps what one operation of a network needed for the next: a seventh of training's time.

    Left alone, glibc gives it back, and the kernel has to clear it anew.
    """
    libc = ctypes.CDLL(None)
    for what, size in (
        (M_MMAP_THRESHOLD, 1 << 30),
        (M_TRIM_THRESHOLD, 1 << 30),
        (M_TOP_PAD, 1 << 24),
    ):
        libc.mallopt(what, size)


def check_settings() -> None:
    """Ends a program that finds an `EMOJINET_*` which no program knows."""
    try:
        settings.check(os.environ)
    except settings.UnknownSetting as error:
        fail(str(error))


def option(name: str, text: str) -> typer.models.OptionInfo:
    """A flag with its `EMOJINET_*` twin."""
    made: typer.models.OptionInfo = typer.Option(help=text, envvar=f"EMOJINET_{name}")
    return made


Host = Annotated[str, option("HOST", "Address to listen on, metrics included.")]
Port = Annotated[int, option("PORT", "Port for gRPC; 0 lets the system choose.")]
MetricsPort = Annotated[int, option("METRICS_PORT", "Port for Prometheus.")]
HealthPort = Annotated[
    int | None, option("HEALTH_PORT", "One more port, for health alone, in plaintext.")
]
Data = Annotated[Path, option("DATA", "Where everything is kept.")]
TlsCert = Annotated[
    Path | None, option("TLS_CERT", "Speak TLS: our certificate and its chain, as PEM.")
]
TlsKey = Annotated[Path | None, option("TLS_KEY", "Its key, as PEM without a password.")]
TlsClientCa = Annotated[
    Path | None, option("TLS_CLIENT_CA", "Let in only clients with a certificate of this CA.")
]
Tokens = Annotated[
    Path | None, option("TOKENS", "Let in only callers with one of these tokens, by their roles.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plaintext beyond loopback.", envvar="EMOJINET_INSECURE")
]


def process_metrics() -> CollectorRegistry:
    """A registry that tells of the process already."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def fail(message: str) -> NoReturn:
    """Ends a program that cannot start: one line that says why, exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def lock(folder: Path, program: str, patience_seconds: float = 0.0) -> int:
    """Makes this the only process that works on the folder, until it ends.

    Raises:
        StorageFailed: another does, and has not ended in time; or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = f"{folder} cannot be used: {error.strerror}. Choose another --data."
        raise errors.StorageFailed(why, path=str(folder)) from None
    end = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= end:
                break
            time.sleep(0.05)
    os.close(descriptor)
    raise errors.StorageFailed(
        f"Another {program} works on {folder}. Stop it, or give this one another folder.",
        path=str(folder),
    )


async def serve(
    described: ServiceDescriptor,
    add: Callable[["grpc.aio.Server"], None],
    opening: Opening,
    *,
    access: Access,
    host: str,
    port: int,
    metrics_port: int,
    health_port: int | None,
) -> NoReturn:
    """Listens, opens its state, goes on with what was begun, serves until SIGTERM, and ends.

    Args:
        described: the service.
        add: adds the servicer to the server.
        opening: makes the servicer ready, and says to the stack how to close it again.
        access: whom to let in.
        host: where to listen, at each of the ports.
    """
    boundary, registry = Boundary(), process_metrics()
    secured = credentials(access, host, registry)
    serve_metrics(host, metrics_port, registry)
    server, health = new_server(boundary, access), Health(described.full_name)
    add(server)
    health.add_to(server)
    bound = bind(server, host, port, secured)
    await health.start()
    servers = [server, *health.alone(host, health_port)]
    await asyncio.gather(*(each.start() for each in servers))
    async with AsyncExitStack() as stack:
        for each in servers:
            stack.push_async_callback(each.stop, 0)
        await opening(registry, stack)
        boundary.count_in(registry, [method.name for method in described.methods])
        await health.set_ready(True)
        log.info("listening on %s:%d", host, bound)
        await stop_signal()
        await health.set_ready(False)
        await server.stop(0)
    log.info("stopped")
    traces.end()
    # A thread at work would be waited for; the next process begins its work anew.
    os._exit(0)


def credentials(
    access: Access, host: str, registry: CollectorRegistry
) -> grpc.ServerCredentials | None:
    """What to bind a port with; ends the program when the flags do not go together."""
    try:
        access.check(host)
    except ValueError as error:
        fail(str(error))
    return access.credentials(registry)


def new_server(boundary: "Boundary", access: Access = FROM_HERE) -> "grpc.aio.Server":
    """A server with our limits, not yet bound to a port."""
    age = round(CONNECTION_AGE_MS * random.uniform(0.9, 1.1))
    return grpc.aio.server(
        # Guards first: what the boundary remembers is a method's own handler, never a refusal.
        interceptors=[*access.guards(boundary.count), boundary],
        options=[
            # Without this a second server binds the same port silently and takes half the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", 1024),
            ("grpc.max_connection_age_ms", age),
            ("grpc.max_connection_age_grace_ms", 60_000),
            # Half-open peers are found within a minute; ours ping every ten seconds at most.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )


def bind(
    server: "grpc.aio.Server",
    host: str,
    port: int,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """The port that was bound, chosen by the kernel for 0; ends the program when it is taken.

    Without credentials it speaks plaintext.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        fail(f"cannot listen on {address}: is it in use? Choose another --host or --port")


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> int:
    """Starts the metrics page and returns its port; ends the program when the port is taken."""
    # They are one series more for each series, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        why = error.strerror
        fail(f"cannot serve metrics on {host}:{port}: {why}. Choose another --metrics-port")
    return int(server.server_port)


class Health:
    """`grpc.health.v1`: whether to send work here (ready), and whether the loop runs (live)."""

    def __init__(self, service: str) -> None:
        self._servicer = HealthServicer()
        self._ready_names = ("", service, READY)

    def add_to(self, server: "grpc.aio.Server") -> None:
        """Serves Check and Watch."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def alone(self, host: str, port: int | None) -> "list[grpc.aio.Server]":
        """A server on one more port, if there is to be one: not yet started, for health alone."""
        if port is None:
            return []
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        bind(server, host, port)
        self.add_to(server)
        return [server]

    async def start(self) -> None:
        """Live, and not ready yet."""
        await self._servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(False)

    async def set_ready(self, ready: bool) -> None:
        """Tells balancers and watchers."""
        status = health_pb2.HealthCheckResponse
        for name in self._ready_names:
            await self._servicer.set(name, status.SERVING if ready else status.NOT_SERVING)


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Turns every failure into a status that may leave the house, and counts every call.

    What nobody foresaw is logged under an id, and the caller gets INTERNAL with that id: grpcio
    would send the text of the exception, with whatever paths and secrets it holds.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._bounded: dict[str, Any] = {}  # by path: made once, not for each call
        self._requests_of: Callable[[str, str], Counter] | None = None

    def count_in(self, registry: CollectorRegistry, methods: list[str]) -> None:
        """Counts from now on, in series that start at zero."""
        requests = Counter(
            "emojinet_requests_total", "Calls by outcome.", ["method", "code"], registry=registry
        )
        self._requests_of = cache(requests.labels)
        for method in methods:
            for code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"):
                self._requests_of(method, code)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handlers of the services; health and reflection are left alone."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(CONTRACTS):
            return handler
        if details.method not in self._bounded:
            self._bounded[details.method] = self._within_bounds(details.method, handler)
        return self._bounded[details.method]

    def _within_bounds(self, path: str, handler: Any) -> Any:
        if handler.unary_unary:
            return handler._replace(unary_unary=self._unary(path, handler.unary_unary))
        if handler.stream_stream:
            return handler._replace(stream_stream=self._stream(path, handler.stream_stream))
        if handler.unary_stream:
            return handler._replace(unary_stream=self._stream(path, handler.unary_stream))
        return handler

    def _unary(self, path: str, handler: Handler) -> Handler:
        async def bounded(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            async with _Bounds(self, path, context):
                return await handler(request, context)

        return bounded

    def _stream(self, path: str, handler: Handler) -> Handler:
        async def bounded(
            request: Any, context: "grpc.aio.ServicerContext[Any, Any]"
        ) -> AsyncIterator[Any]:
            async with _Bounds(self, path, context):
                async for response in handler(request, context):
                    yield response

        return bounded

    def count(self, method: str, code: grpc.StatusCode) -> None:
        """One more call that ended so."""
        if self._requests_of is not None:
            self._requests_of(method, code.name).inc()


class _Bounds:
    """Around one call: counts it, and tells the caller of a failure what may be told."""

    def __init__(
        self, boundary: Boundary, path: str, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        self._boundary, self._path, self._context = boundary, path, context

    async def __aenter__(self) -> None:
        self._boundary.in_flight += 1
        self._traced = traces.call(self._path, self._context.invocation_metadata)

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: object
    ) -> None:
        self._boundary.in_flight -= 1
        code = self._code(failure)
        self._boundary.count(self._path.rpartition("/")[2], code)
        told = failure if isinstance(failure, errors.EmojinetError) else None
        if told is None and isinstance(failure, Exception):
            told = internal(failure)  # logged within its trace
        if self._traced is not None:
            self._traced.end(code)
        if told is not None:
            await errors.abort(self._context, told)

    def _code(self, failure: BaseException | None) -> grpc.StatusCode:
        if failure is None:
            return grpc.StatusCode.OK
        if isinstance(failure, errors.EmojinetError):
            return failure.code
        if isinstance(failure, Exception):
            return grpc.StatusCode.INTERNAL
        # Cancelled: by the caller, or by its deadline.
        late = (self._context.time_remaining() or 1.0) <= 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


async def stop_signal() -> None:
    """Returns at the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
