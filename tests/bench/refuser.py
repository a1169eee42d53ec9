"""A grpc.aio server that refuses every call at once: the floor under what a refusal can cost."""

import asyncio
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc


class Refuser(rpc.InferenceServiceServicer):
    """Answers RESOURCE_EXHAUSTED, whatever it is asked."""

    async def Suggest(
        self, request: pb.SuggestRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")


async def serve(port: int) -> None:
    """Until it is terminated."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    rpc.add_InferenceServiceServicer_to_server(Refuser(), server)
    servicer = HealthServicer()
    await servicer.set("ready", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main(port: Annotated[int, typer.Option()]) -> None:
    """Serves refusals."""
    asyncio.run(serve(port))


if __name__ == "__main__":
    typer.run(main)
