"""A workspace of Slack that does what a test tells it to: Web API, files, signed requests."""

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from clients.slack import app
from clients.slack.app import Secrets
from clients.slack.bot import Manners
from tests.clients.web.serving import LOOPBACK, listening

TOKEN, SECRET = "xoxb-0123456789-token", "0123456789abcdef" * 2
ME, CHANNEL = "UBOT", "C1"
JPEG = b"\xff\xd8\xff\xe0 a picture"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_numbers = itertools.count(1)


class Call(NamedTuple):
    """One call of the Web API."""

    method: str
    values: dict[str, Any]
    token: str


class Workspace:
    """The stand-in: what was called, what it answers, and the files it has."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.fetched: list[tuple[str, str]] = []
        self.responses: list[dict[str, Any]] = []
        self.answers: dict[str, deque[web.Response]] = defaultdict(deque)
        self.files: dict[str, Handler] = {}
        self.scopes = ",".join(app.SCOPES)
        self.socket: web.WebSocketResponse | None = None
        self.acknowledged: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1") -> AsyncIterator["Workspace"]:
        """Serves until the test is done with it."""
        served = web.Application()
        served.router.add_route("*", "/api/{method}", self._call)
        served.router.add_get("/files/{name}", self._file)
        served.router.add_post("/respond", self._respond)
        served.router.add_get("/socket", self._socket)
        runner = web.AppRunner(served, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        self.url = f"http://{host}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def refuse(self, method: str, error: str, **more: str) -> None:
        """The next call of the method is refused so."""
        self.answers[method].append(web.json_response({"ok": False, "error": error, **more}))

    def busy(self, method: str, seconds: int) -> None:
        """The next call of the method comes too soon."""
        told = {"ok": False, "error": "ratelimited"}
        self.answers[method].append(
            web.json_response(told, status=429, headers={"Retry-After": str(seconds)})
        )

    def picture(self, name: str = "cat.jpg", content: bytes = JPEG, **facts: Any) -> dict[str, Any]:
        """A file as a message has it, which can be fetched."""

        async def give(request: web.Request) -> web.StreamResponse:
            return web.Response(body=content, content_type="image/jpeg")

        return self.file(name, give, size=len(content), **facts)

    def file(self, name: str, give: Handler, **facts: Any) -> dict[str, Any]:
        """A file as a message has it, with what is answered to who fetches it."""
        self.files[name] = give
        told = {"id": f"F{next(_numbers)}", "name": name, "title": name, "mode": "hosted"}
        return {
            **told,
            "mimetype": "image/jpeg",
            "url_private": f"{self.url}/files/{name}",
            **facts,
        }

    def called(self, method: str) -> list[dict[str, Any]]:
        """What the method was called with."""
        return [call.values for call in self.calls if call.method == method]

    async def until(self, holds: Callable[[], object], seconds: float = 10.0) -> None:
        """Returns when it holds."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        values = {**request.query, **await request.post()}
        if request.content_type == "application/json":
            values = await request.json()
        method = request.match_info["method"]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        await self._note(self.calls, Call(method, values, token))
        if self.answers[method]:
            return self.answers[method].popleft()
        return web.json_response(
            self._answer(method, values), headers={"X-OAuth-Scopes": self.scopes}
        )

    def _answer(self, method: str, values: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {"ok": True}
        if method == "auth.test":
            told |= {"user_id": ME, "bot_id": "BBOT", "user": "emojini", "team": "Us"}
        if method == "apps.connections.open":
            told |= {"url": self.url.replace("http", "ws") + "/socket"}
        return told

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        await self._note(self.fetched, (name, request.headers.get("Authorization", "")))
        return await self.files[name](request)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        await self._note(self.responses, await request.json())
        return web.Response(text="ok")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.socket = web.WebSocketResponse()
        await self.socket.prepare(request)
        await self.socket.send_json({"type": "hello", "num_connections": 1})
        await self._note([], None)
        async for message in self.socket:
            await self._note(self.acknowledged, json.loads(message.data))
        return self.socket

    async def _note(self, where: list[Any], what: Any) -> None:
        async with self._changed:
            where.append(what)
            self._changed.notify_all()


class Events:
    """The way to the bot, signed as Slack signs."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self._session = url, session

    async def send(
        self,
        body: str | bytes,
        *,
        kind: str = "application/json",
        age_seconds: float = 0.0,
        secret: str = SECRET,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, str]:
        """Status and text of the answer to a body."""
        content = body.encode() if isinstance(body, str) else body
        signed = {**signature(content, secret, age_seconds), "Content-Type": kind, **headers}
        url = f"{self.url}{app.PATH}"
        async with self._session.post(url, data=BytesIO(content), headers=signed) as response:
            return response.status, await response.text()

    async def event(
        self, event: Mapping[str, Any], event_id: str = "", *, retry: int = 0, reason: str = ""
    ) -> tuple[int, str]:
        """The same for an event, or for Slack's next attempt, which is signed anew."""
        headers = {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": reason} if retry else {}
        body = json.dumps(callback(event, event_id))
        return await self.send(body, headers=headers, age_seconds=-retry)

    async def command(
        self, text: str, response_url: str, *, trigger_id: str = "", retry: int = 0
    ) -> tuple[int, str]:
        """The same for `/emojini`."""
        fields = {
            "command": "/emojini",
            "text": text,
            "response_url": response_url,
            "trigger_id": trigger_id or f"{next(_numbers)}.1",
            "team_id": "T1",
            "user_id": "U1",
            "channel_id": CHANNEL,
        }
        kind = "application/x-www-form-urlencoded"
        return await self.send(urlencode(fields), kind=kind, age_seconds=-retry)


def signature(content: bytes, secret: str = SECRET, age_seconds: float = 0.0) -> dict[str, str]:
    """The headers with which Slack signs, by its documentation."""
    told = str(int(time.time() - age_seconds))
    signed = hmac.new(secret.encode(), b"v0:" + told.encode() + b":" + content, hashlib.sha256)
    return {
        "X-Slack-Request-Timestamp": told,
        "X-Slack-Signature": f"v0={signed.hexdigest()}",
    }


def callback(event: Mapping[str, Any], event_id: str = "") -> dict[str, Any]:
    """An event as it is delivered."""
    return {
        "type": "event_callback",
        "team_id": "T1",
        "api_app_id": "A1",
        "event_id": event_id or f"Ev{next(_numbers)}",
        "event_time": int(time.time()),
        "authorizations": [{"team_id": "T1", "user_id": ME, "is_bot": True}],
        "event": dict(event),
    }


def message(text: str = "", files: Any = (), **more: Any) -> dict[str, Any]:
    """A person's message in the channel, as an event tells of it."""
    told = {"type": "message", "channel": CHANNEL, "channel_type": "channel", "user": "U1"}
    ts = f"1700000000.{next(_numbers):06}"
    subtype = {"subtype": "file_share", "files": list(files)} if files else {}
    return {**told, "ts": ts, "text": text, **subtype, **more}


def mention(text: str = "look", files: Any = (), **more: Any) -> dict[str, Any]:
    """The same with our name in it, as the other event tells of it."""
    return {**message(f"<@{ME}> {text}", files), "type": "app_mention", **more}


@asynccontextmanager
async def bot(
    workspace: Workspace,
    server: str,
    secrets: Secrets | None = None,
    **manners: Any,
) -> AsyncIterator[Events]:
    """Serves the bot for a workspace until the test is done with it."""
    secrets = secrets or Secrets(token=TOKEN, signing_secret=SECRET)
    built = app.build(secrets, server, Manners(**manners), LOOPBACK, f"{workspace.url}/api/")
    async with listening(built) as url, aiohttp.ClientSession() as session:
        yield Events(url, session)
