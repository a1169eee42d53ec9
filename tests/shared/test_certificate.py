import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared import certificate, fresh, harness
from services.shared.certificate import Certificate
from services.shared.errors import FileUnreadable
from tests.shared.authority import Authority

CHECK = health_pb2.HealthCheckRequest()
Serve = Callable[..., Awaitable[int]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Starts servers of health alone, by a certificate."""
    monkeypatch.setattr(fresh, "LOOK_SECONDS", 0.01)
    servers = []

    async def started(*files: Path) -> int:
        server, health = harness.new_server(harness.Boundary()), harness.Health("x")
        health.add_to(server)
        credentials = Certificate(*files).credentials()
        port = harness.bind(server, "127.0.0.1", 0, credentials)
        servers.append(server)
        await health.start()
        await server.start()
        return port

    yield started
    for server in servers:
        await server.stop(None)


async def ask(port: int, *files: Path) -> str:
    """OK, or the code, of a connection of its own."""
    contents = [path.read_bytes() for path in files]
    channel = grpc.aio.secure_channel(
        f"127.0.0.1:{port}",
        grpc.ssl_channel_credentials(*contents),
        options=[("grpc.use_local_subchannel_pool", 1)],
    )
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=5)
        except grpc.aio.AioRpcError as failure:
            return failure.code().name
        return "OK"


def shown(port: int) -> str:
    """The certificate that is shown, a moment after its files have changed."""
    time.sleep(0.02)
    return ssl.get_server_certificate(("127.0.0.1", port))


async def test_a_new_certificate_is_shown_without_a_restart(
    serve: Serve, authority: Authority
) -> None:
    port = await serve(*authority.issue())
    assert await ask(port, authority.ca) == "OK"
    before = shown(port)
    authority.issue()
    after = shown(port)

    assert after != before
    assert await ask(port, authority.ca) == "OK"


@pytest.mark.parametrize("broken", ["nonsense", "gone", "expired", "of another key"])
async def test_where_the_new_cannot_be_used_the_old_goes_on_and_the_log_says_so(
    serve: Serve, authority: Authority, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = authority.issue()
    port = await serve(chain, key)
    before = shown(port)
    if broken == "nonsense":
        chain.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    elif broken == "gone":
        key.unlink()
    elif broken == "expired":
        authority.issue(days=-1)
    else:
        kept = key.read_bytes()
        authority.issue()
        key.write_bytes(kept)

    assert shown(port) == before
    assert await ask(port, authority.ca) == "OK"
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "What was read before goes on." in told[0]

    authority.issue()
    assert shown(port) != before


async def test_with_an_authority_of_clients_only_theirs_get_in(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    port = await serve(*authority.issue(), authority.ca)
    chain, key = authority.issue("client", "somebody")
    foreign, its_key = Authority(tmp_path / "other").issue("client", "somebody")

    assert await ask(port, authority.ca, key, chain) == "OK"
    assert await ask(port, authority.ca) == "UNAVAILABLE"
    assert await ask(port, authority.ca, its_key, foreign) == "UNAVAILABLE"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_no_tls_older_than_1_2_is_spoken(serve: Serve, authority: Authority) -> None:
    port = await serve(*authority.issue())
    for version, spoken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            nullcontext() if spoken else pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def test_when_a_certificate_expires_is_known(authority: Authority) -> None:
    days = (certificate.expiry(*authority.issue(days=5)) - time.time()) / 86_400
    assert 4.9 < days < 5.1


def test_what_cannot_be_used_is_told_at_the_start(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue()
    expired = authority.issue("expired", days=-1)
    other = authority.issue("other")[1]
    empty, locked = tmp_path / "empty", tmp_path / "folder"
    empty.touch()
    locked.mkdir()
    for files, told in (
        (expired, "certificate has expired"),
        ((chain, other), "not a certificate and its key"),
        ((chain, empty), "not a certificate and its key"),
        ((empty, key), "not a certificate and its key"),
        ((chain, tmp_path / "none"), "cannot be read: No such file"),
        ((locked, key), "cannot be read: Is a directory"),
        ((chain, key, key), "holds no certificate of an authority"),
        ((chain, key, empty), "holds no certificate of an authority"),
    ):
        with pytest.raises(FileUnreadable, match=told):
            Certificate(*files)
