"""An inference server within the test's own process, with real workers, on a port of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from inference import grpc_service_pb2 as oip_pb
from inference import grpc_service_pb2_grpc as oip_rpc
from services.inference import live
from services.inference.gate import Gate
from services.inference.metrics import Metrics
from services.inference.oip.servicer import OpenInference
from services.inference.server import InferenceService, Serving
from services.shared import harness, model
from services.shared.decoders import Decoders

METHODS = [
    *pb.DESCRIPTOR.services_by_name["InferenceService"].methods_by_name,
    *oip_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name,
]


@dataclass
class Running:
    """A server that serves."""

    address: str
    stub: rpc.InferenceServiceStub
    oip: oip_rpc.GRPCInferenceServiceStub
    service: InferenceService
    metrics: Metrics
    registry: CollectorRegistry

    def sample(self, name: str, /, **labels: str) -> float:
        """A metric's value; 0 for one that is not there."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def start(self, new: model.Model, backend: str = "timed:5ms") -> Serving:
        """Another model, ready to be turned to."""
        gate = await Gate(new, backend, "exact").start()
        gate.open(self.metrics.queues)
        return Serving(self.service.decoders, gate, self.metrics)


@asynccontextmanager
async def inference(folder: Path, backend: str = "timed:5ms") -> AsyncIterator[Running]:
    """Serves the model of the folder until the test is done with it."""
    boundary, registry = harness.Boundary(), CollectorRegistry()
    server, service = harness.new_server(boundary), InferenceService(Decoders(1))
    rpc.add_InferenceServiceServicer_to_server(service, server)
    oip_rpc.add_GRPCInferenceServiceServicer_to_server(OpenInference(service), server)
    port = harness.bind(server, "127.0.0.1", 0)
    await server.start()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(
        address,
        [("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", -1)],
    ) as channel:
        stub = rpc.InferenceServiceStub(channel)
        oip = oip_rpc.GRPCInferenceServiceStub(channel)
        metrics = Metrics(registry)
        running = Running(address, stub, oip, service, metrics, registry)
        await service.decoders.start()
        service.decoders.open(metrics.queues)
        boundary.count_in(registry, METHODS)
        await live.turn(service, await running.start(model.load(folder), backend), metrics)
        try:
            yield running
        finally:
            await server.stop(None)
            if service.serving is not None:
                await service.serving.gate.close()
            await service.decoders.close()
