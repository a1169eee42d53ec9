"""Calls the services from Python, typed by the contract: `Client`, and `AsyncClient` for asyncio.

    with Client("127.0.0.1:50051") as client:
        response = client.suggest([Path("pizza.jpg").read_bytes()], max_suggestions=3)

What goes wrong with a call is an `EmojinetError`; what is wrong with one image is the error of its
result. A server that is busy says when to come again: both clients do, within the caller's time,
and send less to one that refuses most of it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Self, TypedDict, TypeVar, Unpack, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from clients.credentials import LOOPBACK, Credentials, trouble
from clients.throttle import Throttle
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from services.shared import errors
from services.shared.errors import EmojinetError, ServerUnreachable

T = TypeVar("T")
DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 1.0  # the article's
MAX_ATTEMPTS = 4  # at a busy server; UNAVAILABLE has its own policy in the service config
SHORTEST_PAUSE_SECONDS = 0.01
SERVICE_CONFIG = files("emojinet.v1") / "inference_service_config.json"
LOOK_UP_MS = 5_000  # the least time between two look-ups of a name


class SuggestOptions(TypedDict, total=False):
    """The fields of `SuggestRequest` beside its images; the contract says what each means."""

    max_suggestions: int
    min_probability: float
    priority: pb.Priority
    include_embedding: bool
    explain_emoji: str
    model: str


class Client:
    """Calls a server and waits for it; threads may share one.

    Without credentials it takes those that the environment names, such as `EMOJINET_TOKEN_FILE`.
    """

    def __init__(
        self, server: str = DEFAULT_SERVER, credentials: Credentials | None = None
    ) -> None:
        self._server, self._throttle = server, Throttle()
        credentials = credentials or Credentials.of_environment()
        self._channel = credentials.channel(server, channel_options(server))
        stub = rpc.InferenceServiceStub(self._channel)
        self._suggest: Callable[..., pb.SuggestResponse] = stub.Suggest
        self._served_model: Callable[..., pb.GetServedModelResponse] = stub.GetServedModel

    def suggest(
        self,
        images: Sequence[bytes],
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[SuggestOptions],
    ) -> pb.SuggestResponse:
        """One result for each of up to 64 encoded images, in their order, within `timeout` seconds.

        Raises:
            EmojinetError: the call failed, and none of its images was looked at.
        """
        return self._call(self._suggest, suggest_request(images, **options), timeout)

    def served_model(
        self, *, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> pb.GetServedModelResponse:
        """The model that answers now, its emoji and its card."""
        return self._call(self._served_model, pb.GetServedModelRequest(), timeout)

    def close(self) -> None:
        """Ends the connection; calls that are under way fail as cancelled."""
        self._channel.close()

    def _call(self, method: Callable[..., T], request: object, timeout: float) -> T:
        patience = _Patience(timeout)
        while True:
            error: EmojinetError | None = self._throttle.refusal()
            if error is None:
                try:
                    answer = method(request, timeout=patience.left_seconds())
                except grpc.RpcError as failure:
                    error = from_rpc(failure, self._server)
                self._throttle.observe(error)
            if error is None:
                return answer
            time.sleep(patience.pause_seconds(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio; make it where the loop runs. A cancelled task cancels its call."""

    def __init__(
        self, server: str = DEFAULT_SERVER, credentials: Credentials | None = None
    ) -> None:
        self._server, self._throttle = server, Throttle()
        credentials = credentials or Credentials.of_environment()
        self._channel = credentials.aio_channel(server, channel_options(server))
        stub = rpc.InferenceServiceStub(self._channel)
        self._suggest: Callable[..., Awaitable[pb.SuggestResponse]] = stub.Suggest
        self._served_model: Callable[..., Awaitable[pb.GetServedModelResponse]]
        self._served_model = stub.GetServedModel

    async def suggest(
        self,
        images: Sequence[bytes],
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[SuggestOptions],
    ) -> pb.SuggestResponse:
        """As `Client.suggest`."""
        return await self._call(self._suggest, suggest_request(images, **options), timeout)

    async def served_model(
        self, *, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> pb.GetServedModelResponse:
        """As `Client.served_model`."""
        return await self._call(self._served_model, pb.GetServedModelRequest(), timeout)

    async def close(self) -> None:
        """As `Client.close`."""
        await self._channel.close(None)

    async def _call(
        self, method: Callable[..., Awaitable[T]], request: object, timeout: float
    ) -> T:
        patience = _Patience(timeout)
        while True:
            error: EmojinetError | None = self._throttle.refusal()
            if error is None:
                try:
                    answer = await method(request, timeout=patience.left_seconds())
                except grpc.RpcError as failure:
                    error = from_rpc(failure, self._server)
                self._throttle.observe(error)
            if error is None:
                return answer
            await asyncio.sleep(patience.pause_seconds(error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def suggest_request(
    images: Sequence[bytes], **options: Unpack[SuggestOptions]
) -> pb.SuggestRequest:
    """The request for encoded images."""
    return pb.SuggestRequest(images=[image_pb2.Image(content=i) for i in images], **options)


def channel_options(server: str) -> list[tuple[str, int | str]]:
    """How our clients connect: all addresses of the name in turn, UNAVAILABLE tried again."""
    return [
        ("grpc.service_config", SERVICE_CONFIG.read_text()),
        # Embeddings and saliency of 64 images are more than gRPC's 4 MiB.
        ("grpc.max_receive_message_length", 32 * 1024 * 1024),
        # New replicas get traffic when the server ends old connections: look the name up soon.
        ("grpc.dns_min_time_between_resolutions_ms", LOOK_UP_MS),
        # Five minutes is what every server permits. With it on, the kernel gives up a peer that
        # vanished once data stays unacknowledged for the time-out below (TCP_USER_TIMEOUT).
        ("grpc.keepalive_time_ms", 300_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A proxy that the environment names for the web does not know this machine's servers.
        ("grpc.enable_http_proxy", int(not LOOPBACK.match(server))),
    ]


def unreachable(server: str) -> ServerUnreachable:
    """Says how to start a server."""
    return ServerUnreachable(
        f"No EmojiNet server answers at {server}: start one with "
        "`python -m services.inference`, or do without by `emojinet suggest --local`."
    )


def from_rpc(failure: grpc.RpcError, server: str) -> EmojinetError:
    """What grpcio raised, as our own type; without a reason that we know, it keeps its code."""
    call = cast(grpc.Call, failure)  # which it is, or in grpc.aio has the methods of
    try:
        status = rpc_status.from_call(call) or status_pb2.Status()
        info = errors.info(status.details)
        if info.domain == errors.DOMAIN and info.reason in reasons.ErrorReason.keys():  # noqa: SIM118
            return errors.from_proto(status)
    except (ValueError, DecodeError):
        pass  # a status that is not that of this call, or nonsense: go by its code
    if call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        return trouble(server, call.details()) or unreachable(server)
    late = call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    error = EmojinetError(
        f"{server} did not answer in time; give it longer."
        if late
        else call.details() or "no details"
    )
    error.code, error.reason = call.code(), reasons.ERROR_REASON_UNSPECIFIED
    return error


class _Patience:
    """What is left of a caller's time, and whether a busy server gets some of it."""

    def __init__(self, timeout_seconds: float) -> None:
        self._end_seconds = time.monotonic() + timeout_seconds
        self._attempts = 0

    def left_seconds(self) -> float:
        return max(0.0, self._end_seconds - time.monotonic())

    def pause_seconds(self, error: EmojinetError) -> float:
        """How long to wait before the next attempt; raises the error where there is to be none.

        Jittered upwards only: nobody comes before the server asked them to, nor all at once.
        """
        self._attempts += 1
        busy = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if not busy or error.retry_seconds is None or self._attempts == MAX_ATTEMPTS:
            raise error
        pause = max(SHORTEST_PAUSE_SECONDS, error.retry_seconds) * random.uniform(1, 1.5)
        if pause >= self.left_seconds():
            raise error
        return pause
