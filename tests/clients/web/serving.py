"""The web program within the test's own process, on a port of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from ipaddress import ip_network
from typing import Any

import aiohttp
import uvicorn
from starlette.types import ASGIApp

from clients.patience import Patient
from clients.web import app

LOOPBACK = (ip_network("127.0.0.0/8"),)
NOWHERE = "http://127.0.0.1:9/metrics"  # the port of `discard`, where nobody listens


class Page:
    """A client of the web program, for tests."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def get(self, path: str, **more: Any) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers, and the body: parsed where it is JSON."""
        async with self._session.get(self.url + path, **more) as response:
            return await _read(response)

    async def suggest(self, data: Any = None, query: str = "", **more: Any) -> tuple[int, Any]:
        """Status and body of POST /api/suggest."""
        url = f"{self.url}/api/suggest{query}"
        async with self._session.post(url, data=data, **more) as response:
            status, _, body = await _read(response)
            return status, body


async def _read(response: aiohttp.ClientResponse) -> tuple[int, Mapping[str, str], Any]:
    as_json = response.content_type.endswith("json")
    body = await response.json(content_type=None) if as_json else await response.read()
    return response.status, response.headers, body


@asynccontextmanager
async def listening(built: ASGIApp) -> AsyncIterator[str]:
    """Serves an application until the test is done with it; yields its URL."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(
        built, http=Patient, ws="none", log_config=None, timeout_graceful_shutdown=1
    )
    program = uvicorn.Server(config)
    program.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(program.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        program.should_exit = True
        await running
        listening.close()


@asynccontextmanager
async def serving(
    server: str, metrics_url: str = NOWHERE, *, allow: bool = False
) -> AsyncIterator[Page]:
    """Serves the page for an inference service until the test is done with it."""
    built = app.build(server, metrics_url, LOOPBACK if allow else ())
    async with listening(built) as url, aiohttp.ClientSession() as session:
        yield Page(url, session)


def form(*parts: tuple[str, bytes | str], **options: str) -> aiohttp.FormData:
    """A form: pictures as bytes, URLs as text, and options.

    >>> form(("photo.jpg", b"..."), ("url", "https://x.y/z.jpg"), max_suggestions="3").is_multipart
    True
    """
    data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for name, value in parts:
        if isinstance(value, bytes):
            data.add_field("image", BytesIO(value), filename=name)
        else:
            data.add_field("url", value)
    for option, text in options.items():
        data.add_field(option, text)
    return data
