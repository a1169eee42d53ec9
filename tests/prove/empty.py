"""A grpc.aio server of our contracts that answers every call at once, without a look at it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeAlias

import grpc
import typer

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from inference import grpc_service_pb2 as oip_pb
from inference import grpc_service_pb2_grpc as oip_rpc
from services.shared import harness

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Empty(rpc.InferenceServiceServicer, oip_rpc.GRPCInferenceServiceServicer):
    """Sees nothing in any picture."""

    async def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
        nothing = pb.SuggestResult(suggestions=pb.Suggestions())
        return pb.SuggestResponse(results=[nothing] * len(request.images))

    async def SuggestStream(
        self, requests: AsyncIterator[pb.SuggestStreamRequest], context: Context
    ) -> AsyncIterator[pb.SuggestStreamResponse]:
        async for ask in requests:
            response = await self.Suggest(ask.request, context)
            yield pb.SuggestStreamResponse(id=ask.id, response=response)

    async def GetServedModel(
        self, request: pb.GetServedModelRequest, context: Context
    ) -> pb.GetServedModelResponse:
        return pb.GetServedModelResponse()

    async def ModelInfer(
        self, request: oip_pb.ModelInferRequest, context: Context
    ) -> oip_pb.ModelInferResponse:
        return oip_pb.ModelInferResponse(id=request.id)


async def serve(port: int) -> None:
    """Until it is terminated."""
    size = harness.MAX_MESSAGE_BYTES
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", size)])
    rpc.add_InferenceServiceServicer_to_server(Empty(), server)
    oip_rpc.add_GRPCInferenceServiceServicer_to_server(Empty(), server)
    health = harness.Health("empty")
    health.add_to(server)
    harness.bind(server, "127.0.0.1", port)
    await server.start()
    await health.set_ready(True)
    await server.wait_for_termination()


def main(port: Annotated[int, typer.Option()]) -> None:
    """Serves nothing, with malloc as in our server."""
    harness.give_back_large_blocks()
    asyncio.run(serve(port))


if __name__ == "__main__":
    typer.run(main)
