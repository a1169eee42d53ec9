"""The Emojini page and the JSON API behind it: a client of the inference service, with no state.

What a browser loads from here may load nothing from elsewhere, and run nothing that did not come as
a file of ours: whatever a file's name or a server's word may hold, it is text.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.client import AsyncClient
from clients.remote import Remote
from clients.web import problems
from clients.web.room import Room
from clients.web.service import Service
from clients.web.suggest import GONE, Suggest, model_object
from services.shared.addresses import Network
from services.shared.errors import EmojinetError
from services.shared.queue import internal

HERE = Path(__file__).parent
STATIC = HERE / "static"
MODEL_SECONDS = 5.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; font-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def build(server: str, metrics_url: str, allow: Sequence[Network] = ()) -> ASGIApp:
    """The application.

    Args:
        server: the inference service's address.
        metrics_url: its page of metrics.
        allow: private networks from which URLs of pictures may be fetched.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with (
            AsyncClient(server) as client,
            Remote(allow) as remote,
            aiohttp.ClientSession(trust_env=False) as session,
        ):
            app.state.client = client
            app.state.suggest = Suggest(client, remote, Room())
            app.state.service = Service(session, metrics_url)
            yield

    api = [
        Route("/suggest", _suggest, methods=["POST"]),
        Route("/model", _model),
        Route("/service", _service),
        Route("/openapi.json", _file(HERE / "openapi.json")),
    ]
    site = Starlette(
        routes=[
            Route("/", _file(STATIC / "index.html")),
            Route("/service", _file(STATIC / "service.html")),
            Route("/healthz", _alive),
            Mount("/api", routes=api),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
        exception_handlers={
            EmojinetError: _failed,
            HTTPException: _refused,
            ClientDisconnect: _gone,
            Exception: _unforeseen,
        },
    )
    return _Guard(site)


async def _suggest(request: Request) -> Response:
    response: Response = await request.app.state.suggest(request)
    return response


async def _model(request: Request) -> Response:
    served = await request.app.state.client.served_model(timeout=MODEL_SECONDS)
    told = {"emoji": list(served.emoji), "card": served.card}
    return JSONResponse({"model": model_object(served.model), **told})


async def _service(request: Request) -> Response:
    return JSONResponse(await request.app.state.service.look())


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _file(path: Path) -> ASGIApp:
    async def answer(request: Request) -> Response:
        return FileResponse(path)

    return answer  # type: ignore[return-value]  # a Route takes what answers a request, too


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, EmojinetError)
    return problems.response(problems.as_object(error))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:  # nobody has said more
        detail = f"{request.method} {request.url.path[:200]}: see /api/openapi.json."
    response = problems.response(problems.of_http(error.status_code, detail))
    response.headers.update(error.headers or {})
    return response


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


def _unforeseen(request: Request, error: Exception) -> Response:
    return problems.response(problems.as_object(internal(error)))


class _Guard:
    """Puts our headers on every answer, and keeps pages of others from using the API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        app = self._app
        if dict(scope["headers"]).get(b"sec-fetch-site") == b"cross-site" and scope[
            "path"
        ].startswith("/api/"):
            told = "The page of another site may not use this API from a browser."
            app = problems.response(problems.of_http(403, told))
        await app(scope, receive, answered)
