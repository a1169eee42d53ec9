"""The server that people write first: grpc.aio, a lock around the model, eager PyTorch, Pillow.

It speaks our contract: `python -m tests.bench.peers.naive --port …`.
"""

import asyncio
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from emojinet.v1 import emoji_pb2
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from tests.bench.peers import work
from tests.bench.peers.work import Answer


class Naive(rpc.InferenceServiceServicer):
    """One call at a time."""

    def __init__(self) -> None:
        self._decode, self._infer = work.decoder(), work.inferrer()
        self._lock = asyncio.Lock()

    async def Suggest(
        self, request: pb.SuggestRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.SuggestResponse:
        async with self._lock:
            answer = await asyncio.to_thread(self._answer, request.images[0].content)
        response = pb.SuggestResponse()
        best = response.results.add().suggestions.suggestions
        best.extend(emoji_pb2.Suggestion(emoji=emoji, probability=p) for emoji, p in answer)
        return response

    def _answer(self, content: bytes) -> Answer:
        return self._infer(self._decode(content)[None])[0]


async def serve(port: int) -> None:
    """Until it is terminated."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    rpc.add_InferenceServiceServicer_to_server(Naive(), server)
    servicer = HealthServicer()
    await servicer.set("ready", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main(port: Annotated[int, typer.Option()]) -> None:
    """Serves until it is terminated."""
    asyncio.run(serve(port))


if __name__ == "__main__":
    typer.run(main)
