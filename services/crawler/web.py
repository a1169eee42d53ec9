"""The one way to the network: every request of the crawler goes through the guard.

Tokens travel in the query of some sources' URLs, so no query is ever logged or told in an error.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import stamina
from yarl import URL

from services.crawler.limits import Clock, Quota
from services.shared import addresses, guarded
from services.shared.errors import UrlRefused
from services.shared.guarded import cause, is_refused, read

NAME = "EmojiNet"
ATTEMPTS = 5
TOTAL_SECONDS, CONNECT_SECONDS, IDLE_SECONDS = 60.0, 10.0, 20.0
HEARTBEAT_SECONDS = 30.0
SAVE_SECONDS = 1.0  # what a quota learned since then is lost with the process


class WebFailed(Exception):
    """A server did not answer as it should, after as many attempts as make sense."""

    def __init__(self, status: int | None, why: str, retryable: bool) -> None:
        super().__init__(why)
        self.status, self.why, self.retryable = status, why, retryable


class Reply(NamedTuple):
    """What a server answered: any status that asking again would not change, errors included."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes

    def json(self) -> Any:
        """The body, parsed. Raises WebFailed if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:  # which a wrong encoding is, too
            why = f"status {self.status} with {len(self.body):,} bytes that are no JSON"
            raise WebFailed(self.status, why, retryable=False) from None


class Web:
    """The guarded way to the network, to be entered before use.

    Args:
        allow: networks that are none of the public internet and yet may be asked.
        ca_file: certificates to trust besides the system's.
        clock: what limits are kept by.
        quotas: where `quota` keeps what it learned, over restarts.
        contact: who answers for this crawler: a mail address or a page.
    """

    session: aiohttp.ClientSession
    """Opens public addresses only; follows redirects unless told not to, so tell it."""

    def __init__(
        self,
        *,
        allow: Sequence[addresses.Network] = (),
        ca_file: Path | None = None,
        clock: Clock | None = None,
        quotas: MutableMapping[str, str] | None = None,
        contact: str = "",
    ) -> None:
        self.clock = clock or Clock()
        self._allow, self._ca_file = allow, ca_file
        self._agent = f"{NAME}/{version('emojinet')}" + (f" (+{contact})" if contact else "")
        self._kept = {} if quotas is None else quotas
        self._quotas: dict[str, Quota] = {}
        self._saved: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context()
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        self._connector = addresses.connector(self._allow, ssl=context, limit=0, ttl_dns_cache=60)
        traces = aiohttp.TraceConfig()
        traces.on_request_redirect.append(_refuse_redirect)
        self.session = self._session()
        self._sockets = self._session(trace_configs=[traces])
        return self

    def _session(self, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers={"User-Agent": self._agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
            ),
            trust_env=False,
            **options,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, quota in self._quotas.items():
            self._kept[name] = quota.state()
        await self.session.close()
        await self._sockets.close()
        await self._connector.close()

    @property
    def quotas(self) -> Mapping[str, Quota]:
        """The limits by name, those included that were kept by an earlier process."""
        return self._quotas | {name: self.quota(name) for name in list(self._kept)}

    def quota(self, name: str) -> Quota:
        """The limit of that name, as it was left when the process last ended."""
        if name not in self._quotas:
            self._quotas[name] = Quota(clock=self.clock, state=self._kept.get(name, ""))
        return self._quotas[name]

    async def get(
        self,
        url: str | URL,
        *,
        quota: Quota | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 16 << 20,
    ) -> Reply:
        """What a server answers, asked again where that may help.

        Args:
            url: of http or https.
            quota: whose turn to wait for, at each attempt.
            headers: sent besides our own; secret ones go to no other host.
            max_bytes: which the body, unpacked, must not exceed.

        Raises:
            WebFailed: no answer, 408, 429 or 5xx even when asked again, too large a body, or a
                URL that is refused.
        """
        quota = quota or Quota(clock=self.clock)
        async for attempt in stamina.retry_context(
            on=_retryable, attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=20.0
        ):
            with attempt:
                try:
                    async with quota:
                        return await self._ask(url, quota, headers or {}, max_bytes)
                finally:
                    self._save()
        raise AssertionError("unreachable: the last attempt raises or returns")

    async def _ask(
        self, url: str | URL, quota: Quota, headers: Mapping[str, str], max_bytes: int
    ) -> Reply:
        async with (
            failures_named(url),
            self.opened(url, {"Accept-Encoding": "gzip", **headers}) as response,
        ):
            quota.observe(response.status, response.headers)
            if response.status in (408, 425, 429) or response.status >= 500:
                why = f"{shown(response.url)} answered {response.status} {response.reason}"
                raise WebFailed(response.status, why, retryable=True)
            body, whole = await read(response, max_bytes)
            if not whole:
                why = f"{shown(response.url)} answered more than {max_bytes:,} bytes"
                raise WebFailed(response.status, why, retryable=False)
            return Reply(response.status, response.headers, body)

    def opened(
        self, url: str | URL, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """As `guarded.opened`, of which it raises what it raises."""
        return guarded.opened(self.session, url, headers)

    async def connect(
        self,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        protocols: Sequence[str] = (),
    ) -> "aiohttp.ClientWebSocketResponse[bool]":
        """A websocket, which pings its server; to be closed by the caller.

        Raises:
            WebFailed: it cannot be opened; the source asks again when it sees fit.
        """
        async with failures_named(url), asyncio.timeout(CONNECT_SECONDS + IDLE_SECONDS):
            return await self._sockets.ws_connect(
                addresses.check_url(url),
                headers=headers,
                protocols=protocols,
                heartbeat=HEARTBEAT_SECONDS,
            )

    def _save(self) -> None:
        now = self.clock.monotonic()
        for name, quota in self._quotas.items():
            if now - self._saved.get(name, -SAVE_SECONDS) >= SAVE_SECONDS:
                self._kept[name], self._saved[name] = quota.state(), now


@asynccontextmanager
async def failures_named(url: str | URL) -> AsyncIterator[None]:
    """Turns what goes wrong on the network into WebFailed, and keeps secrets out of it."""
    try:
        yield
    except UrlRefused as error:
        raise WebFailed(None, str(error), retryable=False) from None
    except TimeoutError:
        raise WebFailed(None, f"{shown(url)} did not answer in time", retryable=True) from None
    except aiohttp.WSServerHandshakeError as error:
        retryable = error.status in (408, 425, 429) or error.status >= 500
        why = f"{shown(url)} answered {error.status} instead of opening a websocket"
        raise WebFailed(error.status, why, retryable) from None
    except aiohttp.TooManyRedirects as error:
        why = f"{shown(url)} redirects too often"
        raise WebFailed(error.status, why, retryable=False) from None
    except (aiohttp.ClientError, OSError) as error:
        why = f"{shown(url)}: {cause(error)}"
        retryable = not isinstance(error, aiohttp.InvalidURL) and not is_refused(error)
        raise WebFailed(None, why, retryable) from None


def shown(url: str | URL) -> str:
    """The URL as it may be told: without its query and whatever else may be secret."""
    try:
        parsed = URL(url)
        return str(parsed.with_user(None).with_query(None).with_fragment(None))[:200]
    except ValueError:
        return "a malformed URL"


def _retryable(error: Exception) -> bool:
    return isinstance(error, WebFailed) and error.retryable


async def _refuse_redirect(*_: Any) -> None:
    raise UrlRefused("The websocket's server redirects; give the URL that it leads to.")
