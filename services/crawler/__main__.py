"""`python -m services.crawler`: crawls, and freezes data sets; its verbs do without a server."""

import os
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from prometheus_client import CollectorRegistry

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import crawler_service_pb2_grpc as rpc
from services.crawler import verbs
from services.crawler.database import Database
from services.crawler.fetch import Fetcher
from services.crawler.frontier import Frontier, Quotas
from services.crawler.metrics import Metrics
from services.crawler.removals import Removals
from services.crawler.server import CrawlerService
from services.crawler.store import Store
from services.crawler.tools import Tools
from services.crawler.web import Web
from services.shared import addresses, harness, traces
from services.shared.access import FROM_HERE, Access
from services.shared.addresses import Network
from services.shared.cores import cores
from services.shared.decoders import Decoders
from services.shared.errors import EmojinetError, StorageFailed

SERVICE = pb.DESCRIPTOR.services_by_name["CrawlerService"]
KEY_BYTES = 32
PRESCALER = "services.crawler.prescaler"

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
    allow: tuple[Network, ...]
    ca_file: Path | None
    contact: str


async def serve(options: Options) -> None:
    """Serves what the data folder holds until SIGTERM."""
    service = CrawlerService()

    async def opening(registry: CollectorRegistry, stack: AsyncExitStack) -> None:
        tools = await opened(options, registry, stack)
        stack.push_async_callback(service.close)
        service.open(tools)

    await harness.serve(
        SERVICE,
        lambda server: rpc.add_CrawlerServiceServicer_to_server(service, server),
        opening,
        access=options.access,
        host=options.host,
        port=options.port,
        metrics_port=options.metrics_port,
        health_port=options.health_port,
    )


async def opened(options: Options, registry: CollectorRegistry, stack: AsyncExitStack) -> Tools:
    """Everything that crawls share, closed again by the stack."""
    folder = options.data / "crawler"
    stack.callback(os.close, harness.lock(folder, "crawler"))
    database, store = Database(folder / "state.sqlite"), Store(folder / "images")
    stack.callback(database.close)
    metrics = Metrics(registry)
    decoders = await Decoders(cores(), PRESCALER).start()
    decoders.open(metrics.queues)
    stack.push_async_callback(decoders.close)
    web = await stack.enter_async_context(
        Web(
            allow=options.allow,
            ca_file=options.ca_file,
            quotas=Quotas(database),
            contact=options.contact,
        )
    )
    return Tools(
        folder=options.data,
        database=database,
        frontier=Frontier(database),
        removals=Removals(database, store, options.data / "datasets"),
        store=store,
        web=web,
        fetcher=Fetcher(web),
        decoders=decoders,
        metrics=metrics,
        key=_author_key(folder / "author.key"),
    )


def _author_key(path: Path) -> bytes:
    """The secret of this data folder under which authors are hashed; made on first use."""
    if not path.exists():
        staged = path.with_suffix(".tmp")
        staged.unlink(missing_ok=True)
        staged.touch(mode=0o600)
        staged.write_bytes(secrets.token_bytes(KEY_BYTES))
        staged.replace(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise StorageFailed(
            f"{path} should have {KEY_BYTES} bytes and has {len(key)}: put it back. With another "
            "key nobody who was taken down or opted out is known any more.",
            path=str(path),
        )
    return key


def networks(text: str) -> tuple[Network, ...]:
    """As `addresses.networks`, and wrong use where it raises."""
    try:
        return addresses.networks(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    host: harness.Host = "127.0.0.1",
    port: harness.Port = 50052,
    metrics_port: harness.MetricsPort = 9102,
    health_port: harness.HealthPort = None,
    data: harness.Data = Path("data"),
    allow: Annotated[
        str,
        typer.Option(
            "--allow-addresses",
            help="Private networks that may be fetched from, such as an intranet's.",
            envvar="EMOJINET_ALLOW_ADDRESSES",
        ),
    ] = "",
    ca_file: Annotated[
        Path | None, harness.option("CA_FILE", "More certificate authorities to trust, as PEM.")
    ] = None,
    contact: Annotated[
        str,
        harness.option("CONTACT", "How those who are crawled can reach you: an address or URL."),
    ] = "",
    tls_cert: harness.TlsCert = None,
    tls_key: harness.TlsKey = None,
    tls_client_ca: harness.TlsClientCa = None,
    tokens: harness.Tokens = None,
    insecure: harness.Insecure = False,
) -> None:
    """Gathers pictures that people posted with emoji, and freezes them into data sets."""
    harness.check_settings()
    options = Options(
        access=Access(tls_cert, tls_key, tls_client_ca, tokens, insecure),
        host=host,
        port=port,
        metrics_port=metrics_port,
        health_port=health_port,
        data=data,
        allow=networks(allow),
        ca_file=ca_file,
        contact=contact,
    )
    context.obj = options
    if context.invoked_subcommand:
        return
    harness.log_as_json()
    traces.begin("crawler")
    harness.give_back_large_blocks()
    try:
        uvloop.run(serve(options))
    except EmojinetError as error:
        harness.fail(str(error))


app.command()(verbs.check)
app.command()(verbs.prescale)
app.command()(verbs.verify)
app.command("export")(verbs.write)

if __name__ == "__main__":
    app()
