"""A server that speaks the contract and does what a test tells it to, on a port of its own.

>>> with Standin() as server:
...     grpc.channel_ready_future(grpc.insecure_channel(server.address)).result(5)
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NoReturn, Self

import grpc
from grpc_status import rpc_status

from emojinet.v1 import emoji_pb2, model_pb2
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from services.shared import errors

MODEL = model_pb2.ServedModel(
    name="standin", version="0123456789ab", backend="timed:0ms", precision="exact"
)
EMOJI = (("🍕", "pizza", 0.75), ("❤️", "red heart", 0.125), ("🐕", "dog", 0.0625))
Context = grpc.ServicerContext
Look = Callable[[bytes], pb.SuggestResult]


def pizza(content: bytes) -> pb.SuggestResult:
    """What the stand-in sees in anything that begins like a JPEG."""
    if not content.startswith(b"\xff\xd8"):
        wrong = errors.UndecodableImage("The bytes are no image.", format="")
        return pb.SuggestResult(error=errors.to_proto(wrong))
    result = pb.SuggestResult(
        suggestions=pb.Suggestions(
            suggestions=[
                emoji_pb2.Suggestion(emoji=emoji, name=name, probability=probability)
                for emoji, name, probability in EMOJI
            ]
        )
    )
    result.timing.total.FromMilliseconds(40)
    result.timing.queue_wait.FromMilliseconds(5)
    result.timing.batch_size = 1
    return result


def fail(context: Context, error: errors.EmojinetError) -> NoReturn:
    """Ends the call as our servers do."""
    context.abort_with_status(rpc_status.to_status(errors.to_proto(error)))
    raise AssertionError("abort raises")


def hold(context: Context) -> None:
    """Until the caller has gone."""
    while context.is_active():
        time.sleep(0.01)


class Standin(rpc.InferenceServiceServicer):
    """Answers `Suggest` by `look`, after `before` has had a chance to fail or to delay it."""

    def __init__(
        self,
        look: Look = pizza,
        before: Callable[[int, Context], Any] = lambda number, context: None,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.requests: list[pb.SuggestRequest] = []
        self._look, self._before, self._port = look, before, port
        self._credentials, self._lock = credentials, Lock()

    def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        self._before(number, context)
        return pb.SuggestResponse(
            results=[self._look(image.content) for image in request.images], model=MODEL
        )

    def GetServedModel(
        self, request: pb.GetServedModelRequest, context: Context
    ) -> pb.GetServedModelResponse:
        return pb.GetServedModelResponse(model=MODEL, emoji=["🍕"], card="# Stand-in")

    def __enter__(self) -> Self:
        self._server = grpc.server(
            ThreadPoolExecutor(64),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)],
        )
        rpc.add_InferenceServiceServicer_to_server(self, self._server)
        here, tls = f"127.0.0.1:{self._port}", self._credentials
        server = self._server
        bound = server.add_secure_port(here, tls) if tls else server.add_insecure_port(here)
        self.address = f"127.0.0.1:{bound}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
