"""`python -m services.inference`: serves the model that is live."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from inference import grpc_service_pb2 as oip_pb
from inference import grpc_service_pb2_grpc as oip_rpc
from services.inference import choice, live
from services.inference.backends import timed
from services.inference.choice import Choice
from services.inference.gate import Gate, usual
from services.inference.metrics import Metrics
from services.inference.oip.servicer import OpenInference
from services.inference.server import InferenceService, Serving
from services.shared import harness, model, traces
from services.shared.access import FROM_HERE, Access
from services.shared.cores import cores
from services.shared.decoders import Decoders
from services.shared.errors import EmojinetError
from services.shared.worker import WorkerDied, WorkerFailed

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceService"]
OPEN_SERVICE = oip_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
DRAIN_SECONDS = 30.0  # no admitted call may take longer; Kubernetes' grace has to exceed it

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the flags said."""

    access: Access = FROM_HERE
    host: str
    port: int
    metrics_port: int
    health_port: int | None
    model: Path | None
    registry: Path
    backend: str
    precision: str
    reflection: bool


async def serve(options: Options) -> None:
    """Listens, loads, becomes ready, serves until SIGTERM, drains."""
    boundary, registry = harness.Boundary(), harness.process_metrics()
    credentials = harness.credentials(options.access, options.host, registry)
    harness.serve_metrics(options.host, options.metrics_port, registry)
    server = harness.new_server(boundary, options.access)
    health = harness.Health(SERVICE.full_name)
    service = InferenceService(Decoders(cores()))
    rpc.add_InferenceServiceServicer_to_server(service, server)
    oip_rpc.add_GRPCInferenceServiceServicer_to_server(OpenInference(service), server)
    health.add_to(server)
    if options.reflection:
        ours = (SERVICE.full_name, OPEN_SERVICE.full_name)
        others = ("grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection((*ours, *others), server)
    port = harness.bind(server, options.host, options.port, credentials)
    servers = [server, *health.alone(options.host, options.health_port)]
    await health.start()
    await asyncio.gather(*(each.start() for each in servers))
    log.info("listening on %s:%d, loading", options.host, port)

    try:
        await _until_stopped(options, service, boundary, registry, health)
    finally:
        await asyncio.gather(*(each.stop(None) for each in servers))
        traces.end()
    log.info("stopped")


async def _until_stopped(
    options: Options,
    service: InferenceService,
    boundary: harness.Boundary,
    registry: CollectorRegistry,
    health: harness.Health,
) -> None:
    stop = asyncio.create_task(harness.stop_signal())
    loading = asyncio.create_task(_load(options, service, boundary, registry))
    await asyncio.wait({stop, loading}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
        return
    following = loading.result()
    await health.set_ready(True)
    await stop
    following.cancel()
    await _drain(service, health, boundary)


async def _load(
    options: Options,
    service: InferenceService,
    boundary: harness.Boundary,
    registry: CollectorRegistry,
) -> "asyncio.Task[None]":
    """Starts the workers and everything that counts; returns the task that follows the registry."""
    began = time.monotonic()
    first = await live.first_model(options.model, options.registry)
    way = Choice(options.backend, usual(options.backend), cores())
    if options.backend == "auto":
        way = await choice.fastest(first, options.precision)
        service.decoders = Decoders(way.decoders)
    _, gate = await asyncio.gather(
        service.decoders.start(), Gate(first, way.backend, options.precision, way.split).start()
    )
    metrics = Metrics(registry)
    methods = [*SERVICE.methods, *OPEN_SERVICE.methods]
    boundary.count_in(registry, [method.name for method in methods])
    service.decoders.open(metrics.queues)

    def open_gate(gate: Gate) -> Serving:
        gate.open(metrics.queues)
        return Serving(service.decoders, gate, metrics)

    async def start(new: model.Model) -> Serving:
        # One that was not exported is refused only where that was asked for.
        exported = "openvino.xml" in new.files
        backend = way.backend if exported else options.backend
        gate = Gate(new, backend, options.precision, way.split)
        return open_gate(await gate.start(gently=True))

    await live.turn(service, open_gate(gate), metrics)
    log.info(
        "ready after %.1f s: %s@%s on %s (%s), %.0f images a second",
        time.monotonic() - began,
        first.name,
        first.version,
        gate.backend,
        gate.precision,
        gate.capacity,
    )
    if options.model is not None:
        return asyncio.create_task(asyncio.sleep(0))
    return asyncio.create_task(live.follow(options.registry, service, start, metrics))


async def _drain(
    service: InferenceService, health: harness.Health, boundary: harness.Boundary
) -> None:
    """Tells balancers first, refuses what is new, and finishes every call that was admitted."""
    log.info("draining %d calls", boundary.in_flight)
    await health.set_ready(False)
    service.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while boundary.in_flight:
                await asyncio.sleep(0.01)
    if service.serving is not None:
        await service.serving.gate.close()
    await service.decoders.close()


def checked_backend(backend: str) -> str:
    """Refuses a backend that does not exist."""
    if backend.startswith("timed:"):
        try:
            timed.parse(backend)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    elif backend not in ("auto", "openvino", "torch"):
        raise typer.BadParameter(f"{backend!r} is not auto, openvino, torch or timed:BASEms")
    return backend


class Precision(StrEnum):
    """Arithmetic of the forward pass."""

    EXACT = "exact"
    REDUCED = "reduced"


Model = Annotated[
    Path | None, harness.option("MODEL", "A model's folder. Default: the registry's live one.")
]
Registry = Annotated[
    Path | None, harness.option("REGISTRY", "Folder of models. Default: DATA/registry.")
]
Backend = Annotated[
    str,
    typer.Option(
        help="auto, openvino, torch, or timed:BASEms[+PERms][xSLOTS], which only waits.",
        envvar="EMOJINET_BACKEND",
        callback=checked_backend,
    ),
]


def main(
    host: harness.Host = "127.0.0.1",
    port: harness.Port = 50051,
    metrics_port: harness.MetricsPort = 9101,
    health_port: harness.HealthPort = None,
    model: Model = None,
    registry: Registry = None,
    data: harness.Data = Path("data"),
    backend: Backend = "auto",
    precision: Annotated[
        Precision, harness.option("PRECISION", "exact, or reduced where it passes its gate.")
    ] = Precision.EXACT,
    reflect: Annotated[
        bool, typer.Option("--reflection", help="Let generic gRPC tools ask for the contract.")
    ] = False,
    tls_cert: harness.TlsCert = None,
    tls_key: harness.TlsKey = None,
    tls_client_ca: harness.TlsClientCa = None,
    tokens: harness.Tokens = None,
    insecure: harness.Insecure = False,
) -> None:
    """Serves emoji suggestions over gRPC, one batch at a time on the device."""
    harness.check_settings()
    harness.log_as_json()
    traces.begin("inference")
    harness.give_back_large_blocks()
    options = Options(
        access=Access(tls_cert, tls_key, tls_client_ca, tokens, insecure),
        host=host,
        port=port,
        metrics_port=metrics_port,
        health_port=health_port,
        model=model,
        registry=registry or data / "registry",
        backend=backend,
        precision=precision,
        reflection=reflect,
    )
    try:
        asyncio.run(serve(options))
    except EmojinetError as error:
        harness.fail(str(error))
    except (WorkerDied, WorkerFailed) as error:
        harness.fail(f"a worker did not start: {str(error).strip().splitlines()[-1][:300]}")


if __name__ == "__main__":
    typer.run(main)
