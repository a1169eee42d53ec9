"""`emojinet web`: serves the Emojini page and its JSON API."""

from typing import Annotated

import typer

from clients import options
from clients.client import DEFAULT_SERVER
from clients.credentials import Credentials

DEFAULT_METRICS_URL = "http://127.0.0.1:9101/metrics"
STOP_SECONDS = 5


def web(
    host: options.Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 lets the system choose.")
    ] = 8080,
    server: options.Server = DEFAULT_SERVER,
    metrics_url: Annotated[
        str,
        typer.Option(
            envvar="EMOJINET_METRICS_URL", help="The inference service's page of metrics."
        ),
    ] = DEFAULT_METRICS_URL,
    allow_addresses: options.AllowAddresses = "",
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    insecure: options.Insecure = False,
) -> None:
    """Serve the Emojini page, and the JSON API behind it.

    `curl -F image=@photo.jpg localhost:8080/api/suggest`
    """
    with options.needs("web"):
        from clients import listening
        from clients.web import app
        from services.shared import addresses
        from services.shared.access import Access
    access = Access(tls_cert=tls_cert, tls_key=tls_key, insecure=insecure)
    try:
        allowed = addresses.networks(allow_addresses)
        access.check(host)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    Credentials.of_environment().channel(server, ()).close()  # what is wrong with them is told now
    listening.serve(
        app.build(server, metrics_url, allowed),
        host,
        port,
        access,
        told="The page is at {}/",
        stop_seconds=STOP_SECONDS,
    )
