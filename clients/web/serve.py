"""`emojinet web`: serves the Emojini page and its JSON API."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from clients import options
from clients.client import DEFAULT_SERVER
from clients.credentials import Credentials

DEFAULT_METRICS_URL = "http://127.0.0.1:9101/metrics"
BACKLOG = 512
STOP_SECONDS = 5

Host = Annotated[str, typer.Option(envvar="EMOJINET_HOST", help="Address to listen on.")]
TlsCert = Annotated[
    Path | None,
    typer.Option(envvar="EMOJINET_TLS_CERT", help="Speak HTTPS: our certificate and its chain."),
]
TlsKey = Annotated[
    Path | None, typer.Option(envvar="EMOJINET_TLS_KEY", help="Its key, without a password.")
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", envvar="EMOJINET_INSECURE", help="Speak HTTP beyond loopback, too."),
]


def web(
    host: Host = "127.0.0.1",
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
    allow_addresses: Annotated[
        str,
        typer.Option(
            envvar="EMOJINET_ALLOW_ADDRESSES",
            help="Private networks from which pictures may be fetched, such as an intranet's.",
        ),
    ] = "",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
) -> None:
    """Serve the Emojini page, and the JSON API behind it.

    `curl -F image=@photo.jpg localhost:8080/api/suggest`
    """
    with options.needs("web"):
        import uvicorn

        from clients.web import app
        from clients.web.patience import Patient
        from services.shared import addresses, harness
        from services.shared.access import Access
    access = Access(tls_cert=tls_cert, tls_key=tls_key, insecure=insecure)
    try:
        allowed = addresses.networks(allow_addresses)
        access.check(host)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    Credentials.of_environment().channel(server, ()).close()  # what is wrong with them is told now
    tls, listening = access.https(), _bound(host, port)
    harness.log_as_json()
    config = uvicorn.Config(
        app.build(server, metrics_url, allowed),
        http=Patient,
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )
    where = f"[{host}]" if ":" in host else host
    options.say(f"The page is at http{'s' if tls else ''}://{where}:{listening.getsockname()[1]}/")
    # uvicorn ends by the signal that ended it; what was asked for and done is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run([listening])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}. "
            "Choose another --host or --port"
        ) from None
