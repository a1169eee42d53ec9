"""The Slack bot: what Slack sends, over HTTP or a socket of ours, on its way to the bot.

slack-bolt checks signatures, and knows Slack's forms. Here is what it leaves to its users: bounds,
what comes twice, and an acknowledgement that waits for no work.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.adapter.starlette.async_handler import (
    to_async_bolt_request,
    to_starlette_response,
)
from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from clients.client import AsyncClient
from clients.remote import Remote
from clients.slack import post
from clients.slack.behind import Behind
from clients.slack.bot import COMMAND, USAGE, Bot, Manners
from clients.slack.files import Files
from clients.slack.seen import Seen
from services.shared.addresses import Network
from services.shared.errors import Unauthenticated

SLACK = "https://slack.com/api/"
PATH = "/slack/events"
SCOPES = (
    "app_mentions:read",
    "channels:history",
    "chat:write",
    "commands",
    "files:read",
    "reactions:write",
)
EVENTS = {"app_mention": "app_mention", "message": "message.channels"}  # as a manifest names them
MAX_BODY_BYTES = 1 << 20  # of which Slack uses a tenth
BODY_SECONDS = 10.0
TIMEOUT_SECONDS = 30  # of one call of Slack's API
ATTEMPTS = 5  # where it says that it is too busy
PAUSE_SECONDS = 2.0  # in which the pictures of a mention may still come
_SIGNATURE, _TIME = re.compile(r"v0=[0-9a-f]{64}"), re.compile(r"[0-9]{1,12}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Secrets:
    """What Slack has given us; nothing prints it."""

    token: str
    signing_secret: str | None = None
    """For HTTP."""
    app_token: str | None = None
    """For Socket Mode."""


def web_client(token: str, slack: str) -> AsyncWebClient:
    """The way to Slack's API, which waits as long as Slack asks it to."""
    return AsyncWebClient(
        token,
        base_url=slack.rstrip("/") + "/",
        timeout=TIMEOUT_SECONDS,
        retry_handlers=[
            AsyncConnectionErrorRetryHandler(),
            AsyncRateLimitErrorRetryHandler(max_retry_count=ATTEMPTS),
        ],
        logger=log,
    )


def build(
    secrets: Secrets,
    server: str,
    manners: Manners,
    allow: Sequence[Network] = (),
    slack: str = SLACK,
) -> Starlette:
    """The application.

    Args:
        server: the inference service's address.
        allow: private networks from which URLs of pictures may be fetched.
        slack: where Slack's API is.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        web = web_client(secrets.token, slack)
        async with (
            AsyncClient(server) as client,
            Remote(allow) as remote,
            Files(web, allow) as files,
        ):
            behind = Behind()
            bot = Bot(web, client, files, remote, manners)
            app.state.bolt = Listening(bot, behind).bolt(web, secrets)
            socket = await _socket(app.state.bolt, secrets.app_token)
            try:
                yield
            finally:
                if socket is not None:
                    await socket.close_async()  # type: ignore[no-untyped-call]
                await behind.close()

    routes = [Route("/healthz", _alive)]
    if secrets.signing_secret:
        routes.append(Route(PATH, _events, methods=["POST"]))
    return Starlette(routes=routes, lifespan=lifespan)


async def _socket(bolt: AsyncApp, token: str | None) -> AsyncSocketModeHandler | None:
    if token is None:
        return None
    handler = AsyncSocketModeHandler(bolt, token)
    try:  # connecting would ask for ever with a token that Slack does not know
        handler.client.wss_uri = await handler.client.issue_new_wss_url()
    except ClientError:
        pass  # of a network that may come back
    except SlackApiError as error:
        raise Unauthenticated(
            f"Slack refuses the app-level token: {error.response.get('error')}. It is under Basic "
            "Information at api.slack.com/apps, and needs the scope connections:write."
        ) from None
    await handler.connect_async()  # type: ignore[no-untyped-call]
    return handler


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _events(request: Request) -> Response:
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return PlainTextResponse("Slack sends less.\n", 413)
    except TimeoutError:
        return PlainTextResponse("The body did not come in time.\n", 408)
    # What is no signature at all would be an exception further in; what checks our certificate
    # has none, and is answered without being believed.
    if not (_is_signed(request.headers) or b"ssl_check=1" in body):
        return PlainTextResponse("This is not signed by Slack.\n", 401)
    try:
        asked = to_async_bolt_request(request, body)
    except (ValueError, TypeError, AttributeError, RecursionError):  # it takes any JSON for theirs
        return PlainTextResponse("This is nothing that Slack sends.\n", 400)
    return to_starlette_response(await request.app.state.bolt.async_dispatch(asked))


def _is_signed(headers: Mapping[str, str]) -> bool:
    """Whether there is what looks like a signature; slack-bolt says whether it is the right one."""
    shown = headers.get("x-slack-signature", ""), headers.get("x-slack-request-timestamp", "")
    return bool(_SIGNATURE.fullmatch(shown[0]) and _TIME.fullmatch(shown[1]))


class Listening:
    """Takes in what is genuine and new, and has the bot do it behind the acknowledgement."""

    def __init__(self, bot: Bot, behind: Behind) -> None:
        self._bot, self._behind = bot, behind
        self._requests, self._events, self._posts = Seen(), Seen(), Seen()

    def bolt(self, web: AsyncWebClient, secrets: Secrets) -> AsyncApp:
        """slack-bolt's application, with our listeners."""
        bolt = AsyncApp(
            client=web,
            signing_secret=secrets.signing_secret or "",
            request_verification_enabled=secrets.signing_secret is not None,
            name="emojinet",
            logger=log,
        )
        bolt.use(self._once)
        for event in EVENTS:
            bolt.event(event)(self._posted)
        bolt.command(COMMAND)(self._commanded)
        return bolt

    async def _once(
        self, req: AsyncBoltRequest, next: Callable[[], Awaitable[None]]
    ) -> BoltResponse | None:
        """Passes on what has not come before; its signature is known to be right already."""
        signature, *_ = [*req.headers.get("x-slack-signature", ()), None]
        retried = bool(req.headers.get("x-slack-retry-num"))
        if signature in self._requests and not retried:
            return BoltResponse(status=401, body="This has been sent before.\n")
        event = req.body.get("event_id") or req.body.get("trigger_id")
        if signature in self._requests or event in self._events:
            return BoltResponse(status=200, body="")  # or Slack would send it once more
        if self._behind.is_full:
            return BoltResponse(status=503, body="Too much is under way; try again.\n")
        for seen, key in ((self._requests, signature), (self._events, event)):
            if key is not None:
                seen.add(key)
        await next()
        return None

    async def _posted(self, event: dict[str, Any], context: Mapping[str, Any]) -> None:
        found = post.read(event, str(context.get("bot_user_id") or ""))
        if found is None:
            return
        if self._bot.concerns(found):
            # A mention with a picture is a message, too, and comes as either, or as both.
            if self._posts.first((found.channel, found.ts)):
                self._behind.begin(self._bot.answer(found))
        elif event.get("type") == "app_mention":
            self._behind.begin(self._helped(found))

    async def _helped(self, found: post.Post) -> None:
        """Says how it is done, unless the message's other event has had something to look at."""
        await asyncio.sleep(PAUSE_SECONDS)
        if self._posts.first((found.channel, found.ts)):
            await self._bot.help(found)

    async def _commanded(self, ack: Callable[..., Awaitable[Any]], command: dict[str, Any]) -> None:
        text = str(command.get("text") or "")
        if not post.links(text):
            await ack(USAGE)
            return
        await ack()
        self._behind.begin(self._bot.command(text, str(command.get("response_url") or "")))
