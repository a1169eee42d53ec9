import asyncio
import gzip
import json
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import aiohttp
import pytest
import stamina
import trustme
from aiohttp import web as server
from yarl import URL

from services.crawler.limits import Clock
from services.crawler.web import Reply, Web, WebFailed

LOOPBACK = [ip_network("127.0.0.0/8")]
Handler = Callable[[server.Request], Awaitable[server.StreamResponse]]


class Quick(Clock):
    """Waits for nobody, and notes how long it should have."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Between attempts."""
    stamina.set_testing(True, attempts=10, cap=True)
    yield
    stamina.set_testing(False)


@asynccontextmanager
async def site(
    handler: Handler,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[URL]:
    """A server of one handler, at its URL."""
    app = server.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = server.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        place = server.TCPSite(runner, address, port, ssl_context=tls)
        await place.start()
        port = runner.addresses[0][1]
        yield URL.build(scheme="https" if tls else "http", host=address, port=port, path="/")
    finally:
        await runner.cleanup()


def answers(*statuses: int, **headers: str) -> tuple[Handler, list[server.Request]]:
    """A handler that gives these statuses one after the other, and the requests it got."""
    got: list[server.Request] = []

    async def handler(request: server.Request) -> server.StreamResponse:
        status = statuses[min(len(got), len(statuses) - 1)]
        got.append(request)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return server.json_response({"status": status}, status=status, headers=told)

    return handler, got


async def test_an_answer_is_its_status_its_headers_and_its_body() -> None:
    handler, got = answers(200, X_Some="thing")
    async with site(handler) as url, Web(allow=LOOPBACK, contact="mailto:a@b.example") as web:
        reply = await web.get(url / "a", headers={"X-Mine": "1"})
    assert (reply.status, reply.json(), reply.headers["x-some"]) == (200, {"status": 200}, "thing")
    assert got[0].headers["X-Mine"] == "1"
    agent = got[0].headers["User-Agent"]
    assert agent.startswith("EmojiNet/")
    assert agent.endswith(" (+mailto:a@b.example)")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_an_error_that_would_stay_is_an_answer_as_well(status: int) -> None:
    handler, got = answers(status)
    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        reply = await web.get(url)
    assert (reply.status, reply.json(), len(got)) == (status, {"status": status}, 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_asked_again(status: int) -> None:
    handler, got = answers(status, status, 200)
    async with site(handler) as url, Web(allow=LOOPBACK, clock=Quick()) as web:
        assert (await web.get(url)).status == 200
    assert len(got) == 3


async def test_what_does_not_pass_fails_after_some_attempts() -> None:
    handler, got = answers(500)
    async with site(handler) as url, Web(allow=LOOPBACK, clock=Quick()) as web:
        with pytest.raises(WebFailed, match="answered 500") as failure:
            await web.get(url)
    assert (failure.value.status, failure.value.retryable, len(got)) == (500, True, 5)


async def test_a_server_is_asked_again_no_sooner_than_it_says() -> None:
    handler, got = answers(429, 200, Retry_After="120")
    clock = Quick()
    async with site(handler) as url, Web(allow=LOOPBACK, clock=clock) as web:
        assert (await web.get(url, quota=web.quota("key"))).status == 200
    assert clock.slept == pytest.approx(120, abs=1)
    assert len(got) == 2


async def test_a_connection_that_breaks_is_tried_again() -> None:
    handler, got = answers(200)

    async def breaks(request: server.Request) -> server.StreamResponse:
        if len(got) < 3 and request.transport:
            got.append(request)
            request.transport.abort()
        return await handler(request)

    async with site(breaks) as url, Web(allow=LOOPBACK, clock=Quick()) as web:
        assert (await web.get(url)).status == 200


async def test_nobody_there_is_a_failure_that_may_pass() -> None:
    async with Web(allow=LOOPBACK, clock=Quick()) as web:
        with pytest.raises(WebFailed) as failure:
            await web.get("http://127.0.0.1:9/")
    assert (failure.value.status, failure.value.retryable) == (None, True)


async def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(request: server.Request) -> server.StreamResponse:
        nonlocal sent
        response = server.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))
            sent += 1 << 16

    async with site(endless) as url, Web(allow=LOOPBACK) as web:
        with pytest.raises(WebFailed, match="more than 1,000 bytes") as failure:
            await web.get(url, max_bytes=1000)
    assert not failure.value.retryable
    assert sent < 64 << 20


async def test_a_compressed_body_is_unpacked_no_further_than_its_bound() -> None:
    async def bomb(request: server.Request) -> server.StreamResponse:
        body = gzip.compress(bytes(64 << 20 if request.path == "/bomb" else 1000))
        return server.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with site(bomb) as url, Web(allow=LOOPBACK) as web:
        assert (await web.get(url / "fine")).body == bytes(1000)
        with pytest.raises(WebFailed, match="more than"):
            await web.get(url / "bomb")


async def test_what_is_no_json_is_said_to_be_none() -> None:
    for body in (b"<html>", b"", b"\xff\xfe", b"{"):
        with pytest.raises(WebFailed, match="no JSON"):
            Reply(200, {}, body).json()
    assert Reply(200, {}, b'{"a":"\\ud83c\\udf55"}').json() == {"a": "🍕"}


async def test_redirects_are_followed_a_few_times() -> None:
    async def handler(request: server.Request) -> server.StreamResponse:
        hop = int(request.path.strip("/"))
        if hop == 0:
            return server.json_response({})
        raise server.HTTPFound(f"/{hop - 1}")

    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        assert (await web.get(url / "5")).status == 200
        with pytest.raises(WebFailed, match="too often"):
            await web.get(url / "6")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{canary}/",
        "http://localhost:{canary}/",
        "http://[::1]:{canary}/",
        "http://2130706433:{canary}/",
        "http://[::ffff:127.0.0.1]:{canary}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:password@127.0.0.2:{port}/",
        "file:///etc/hostname",
        "ftp://127.0.0.2/",
        "//[",
        "ws://127.0.0.2:{port}/",
    ],
)
async def test_no_redirect_leads_to_where_we_must_not_go(target: str) -> None:
    handler, got = answers(200)
    async with site(handler) as canary:

        async def sends_there(request: server.Request) -> server.StreamResponse:
            location = target.format(canary=canary.port, port=request.url.port)
            return server.Response(status=302, headers={"Location": location})

        async with (
            site(sends_there, address="127.0.0.2") as url,
            Web(allow=[ip_network("127.0.0.2/32")], clock=Quick()) as web,
        ):
            with pytest.raises(WebFailed) as failure:
                await web.get(url)
    assert not failure.value.retryable
    assert got == []


async def test_secrets_stay_with_the_host_that_they_are_for() -> None:
    handler, got = answers(200)
    async with site(handler, address="127.0.0.2") as other:

        async def sends_there(request: server.Request) -> server.StreamResponse:
            return server.Response(status=307, headers={"Location": str(other)})

        async with site(sends_there) as url, Web(allow=LOOPBACK) as web:
            await web.get(url, headers={"Authorization": "Bearer s3cret", "X-Other": "1"})
    assert "Authorization" not in got[0].headers
    assert got[0].headers["X-Other"] == "1"


async def test_cookies_are_not_kept() -> None:
    handler, got = answers(200, Set_Cookie="id=1")
    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        await web.get(url)
        await web.get(url)
    assert "Cookie" not in got[1].headers


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    handler, _ = answers(200)
    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        assert (await web.get(url)).status == 200


async def test_private_addresses_are_refused_unless_allowed() -> None:
    handler, got = answers(200)
    async with site(handler) as url, Web() as web:
        with pytest.raises(WebFailed, match="not of the public internet") as failure:
            await web.get(url)
        with pytest.raises(WebFailed, match="not of the public internet"):
            await web.connect(url.with_scheme("ws"))
    assert not failure.value.retryable
    assert got == []


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A file with a certificate to trust, and what a server of it has."""
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem", context


async def test_a_certificate_is_checked(authority: tuple[Path, ssl.SSLContext]) -> None:
    ca_file, context = authority
    handler, got = answers(200)
    async with site(handler, tls=context) as url:
        async with Web(allow=LOOPBACK, ca_file=ca_file) as web:
            assert (await web.get(url)).status == 200
        async with Web(allow=LOOPBACK, clock=Quick()) as web:
            with pytest.raises(WebFailed, match="Certificate"):
                await web.get(url)
    assert len(got) == 1


async def test_no_redirect_leads_out_of_https(authority: tuple[Path, ssl.SSLContext]) -> None:
    ca_file, context = authority
    handler, got = answers(200)
    async with site(handler) as plain:

        async def sends_there(_: server.Request) -> server.StreamResponse:
            return server.Response(status=301, headers={"Location": str(plain)})

        async with (
            site(sends_there, tls=context) as url,
            Web(allow=LOOPBACK, ca_file=ca_file) as web,
        ):
            with pytest.raises(WebFailed, match="from https to http"):
                await web.get(url)
    assert got == []


async def test_no_secret_is_ever_logged_or_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stamina.set_testing(True, attempts=2)
    texts = []

    async def handler(request: server.Request) -> server.StreamResponse:
        match request.path:
            case "/loop":
                raise server.HTTPFound("/loop?access_token=s3cret")
            case "/abort":
                assert request.transport
                request.transport.abort()
            case "/out":
                raise server.HTTPFound("ftp://u:s3cret@h/?access_token=s3cret")
            case "/500":
                raise server.HTTPInternalServerError
        return server.Response(body=bytes(100))

    async with site(handler) as url, Web(allow=LOOPBACK, clock=Quick()) as web:
        for path in ("loop", "abort", "out", "500", "large"):
            target = url / path % {"access_token": "s3cret"}
            with pytest.raises(WebFailed) as failure:
                await web.get(target, max_bytes=10)
            texts += traceback.format_exception(failure.value)
            with pytest.raises(WebFailed) as failure:
                await web.connect(target.with_scheme("ws"))
            texts += traceback.format_exception(failure.value)
        for bad in (
            "http://u:s3cret@h/",
            "nonsense://h/?access_token=s3cret",
            "http://127.0.0.1:9?a=s3cret",
            "http://[?a=s3cret",
        ):
            with pytest.raises(WebFailed) as failure:
                await web.get(bad)
            texts += traceback.format_exception(failure.value)
    assert "s3cret" not in "".join(texts)
    assert "s3cret" not in caplog.text


async def test_what_a_quota_learned_outlives_the_process() -> None:
    handler, _ = answers(200, X_Ratelimit_Limit="5000", X_Ratelimit_Remaining="4999")
    kept: dict[str, str] = {}
    async with site(handler) as url:
        async with Web(allow=LOOPBACK, quotas=kept) as web:
            await web.get(url, quota=web.quota("token"))
            assert json.loads(kept["token"])["limit"] == 5000  # before its end, too
            assert web.quota("token") is web.quota("token")
        async with Web(allow=LOOPBACK, quotas=kept) as web:
            before = json.loads(web.quota("token").state())
            assert sum(calls for _, calls in before["log"]) == 1


async def test_a_websocket_is_opened_and_talks() -> None:
    async def handler(request: server.Request) -> server.StreamResponse:
        socket = server.WebSocketResponse(protocols=["a", "b"])
        await socket.prepare(request)
        await socket.send_str(request.headers["X-Mine"])
        await socket.close()
        return socket

    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        socket = await web.connect(
            url.with_scheme("ws"), headers={"X-Mine": "🍕"}, protocols=("b",)
        )
        assert (await socket.receive()).data == "🍕"
        assert socket.protocol == "b"
        await socket.close()


@pytest.mark.parametrize(
    ("status", "retryable"), [(200, False), (404, False), (429, True), (503, True)]
)
async def test_a_websocket_that_is_not_opened_is_a_failure(status: int, retryable: bool) -> None:
    handler, _ = answers(status)
    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        with pytest.raises(WebFailed) as failure:
            await web.connect(url.with_scheme("ws"))
    assert (failure.value.status, failure.value.retryable) == (status, retryable)


async def test_a_websocket_follows_no_redirect() -> None:
    handler, got = answers(302, Location="/elsewhere")
    async with site(handler) as url, Web(allow=LOOPBACK) as web:
        with pytest.raises(WebFailed, match="redirects"):
            await web.connect(url.with_scheme("ws"))
    assert len(got) == 1


async def test_connections_are_kept_for_the_next_call_and_closed_in_the_end() -> None:
    peers = set()

    async def handler(request: server.Request) -> server.StreamResponse:
        assert request.transport
        peers.add(request.transport.get_extra_info("peername"))
        return server.json_response({})

    async with site(handler) as url:
        async with Web(allow=LOOPBACK) as web:
            for _ in range(20):
                await web.get(url)
            connector = web.session.connector
        assert isinstance(connector, aiohttp.TCPConnector)
        assert connector.closed
        assert len(peers) == 1
        await asyncio.sleep(0)
