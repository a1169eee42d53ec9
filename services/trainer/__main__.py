"""`python -m services.trainer`: trains and publishes models; its verbs do without a server."""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc
from services.shared import harness, traces
from services.shared.access import FROM_HERE, Access
from services.shared.errors import EmojinetError
from services.trainer import runs, verbs
from services.trainer.metrics import Metrics
from services.trainer.runs import Runs
from services.trainer.server import TrainerService

SERVICE = pb.DESCRIPTOR.services_by_name["TrainerService"]

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the flags said."""

    access: Access = FROM_HERE
    host: str
    port: int
    metrics_port: int
    health_port: int | None = None
    data: Path
    registry: Path


async def serve(options: Options, command: runs.Command | None = None) -> None:
    """Serves what the data folder holds until SIGTERM; `command` is what does a run."""
    service = TrainerService(options.registry)
    command = command or partial(runs.command, registry=options.registry)

    async def opening(metrics: CollectorRegistry, stack: AsyncExitStack) -> None:
        stack.callback(os.close, harness.lock(options.data / "runs", "trainer"))
        stack.push_async_callback(service.close)
        service.open(Runs(options.data, Metrics(metrics), command))

    await harness.serve(
        SERVICE,
        lambda server: rpc.add_TrainerServiceServicer_to_server(service, server),
        opening,
        access=options.access,
        host=options.host,
        port=options.port,
        metrics_port=options.metrics_port,
        health_port=options.health_port,
    )


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    host: harness.Host = "127.0.0.1",
    port: harness.Port = 50053,
    metrics_port: harness.MetricsPort = 9103,
    health_port: harness.HealthPort = None,
    data: harness.Data = Path("data"),
    registry: Annotated[
        Path | None,
        typer.Option(
            envvar="EMOJINET_REGISTRY",
            help="Where models are published.",
            show_default="DATA/registry",
        ),
    ] = None,
    tls_cert: harness.TlsCert = None,
    tls_key: harness.TlsKey = None,
    tls_client_ca: harness.TlsClientCa = None,
    tokens: harness.Tokens = None,
    insecure: harness.Insecure = False,
) -> None:
    """Trains models on data sets, says how good they are, and publishes them."""
    harness.check_settings()
    if context.invoked_subcommand:
        return
    harness.log_as_json()
    traces.begin("trainer")
    harness.give_back_large_blocks()
    options = Options(
        access=Access(tls_cert, tls_key, tls_client_ca, tokens, insecure),
        host=host,
        port=port,
        metrics_port=metrics_port,
        health_port=health_port,
        data=data,
        registry=registry or data / "registry",
    )
    try:
        asyncio.run(serve(options))
    except EmojinetError as error:
        harness.fail(str(error))


app.command()(verbs.run)
app.command()(verbs.find)
app.command()(verbs.atlas)

if __name__ == "__main__":
    app()
