"""Serves an application over HTTP, as the page and the Slack bot are served."""

import os
import signal
import socket
import sys

import uvicorn
from starlette.types import ASGIApp

from clients import options
from clients.patience import Patient
from services.shared import harness
from services.shared.access import Access

BACKLOG = 512


def serve(
    app: ASGIApp, host: str, port: int, access: Access, *, told: str, stop_seconds: int
) -> None:
    """Serves it until a signal ends that, and then what is under way for so many seconds.

    Args:
        told: what to tell people, where `{}` is the URL.
    """
    tls, listening = access.https(), _bound(host, port)
    harness.log_as_json()
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=stop_seconds,
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )
    where = f"[{host}]" if ":" in host else host
    url = f"http{'s' if tls else ''}://{where}:{listening.getsockname()[1]}"
    options.say(told.format(url))
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
