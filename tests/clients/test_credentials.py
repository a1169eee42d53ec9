"""Clients and servers that do, and do not, agree on how to talk."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.client import AsyncClient, Client
from clients.crawler_client import CrawlerClient
from clients.credentials import Credentials
from services.shared import errors, fresh, tokens
from services.shared.errors import EmojinetError, FileUnreadable, ServerUnreachable
from tests.clients.commandline import emojinet
from tests.clients.standin import Standin, fail
from tests.shared.authority import Authority
from tests.standin.wire import RESET

JPEG = b"\xff\xd8"
Secured = Callable[..., Standin]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(tokens.new())
    return path


@contextmanager
def tls(chain: Path, key: Path, client_ca: Path | None = None, **more: Any) -> Iterator[Standin]:
    pair = (key.read_bytes(), chain.read_bytes())
    roots = client_ca.read_bytes() if client_ca else None
    made = grpc.ssl_server_credentials([pair], roots, require_client_auth=bool(roots))
    with Standin(credentials=made, **more) as server:
        yield server


def bearers(seen: list[str | None]) -> Callable[[int, grpc.ServicerContext], None]:
    """Notes the token of every call."""

    def before(number: int, context: grpc.ServicerContext) -> None:
        seen.append(dict(context.invocation_metadata()).get("authorization"))  # type: ignore[arg-type]

    return before


@contextmanager
def ending() -> Iterator[str]:
    """A server that resets every connection as soon as it is spoken to."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def told(server: str, credentials: Credentials) -> str:
    with Client(server, credentials) as client, pytest.raises(ServerUnreachable) as caught:
        client.suggest([JPEG], timeout=5)
    return str(caught.value)


def test_over_tls_a_client_knows_its_server_and_shows_its_token(
    authority: Authority, token_file: Path
) -> None:
    seen: list[str | None] = []
    credentials = Credentials(tls_ca=authority.ca, token_file=token_file)
    with (
        tls(*authority.issue(), before=bearers(seen)) as server,
        Client(server.address, credentials) as client,
    ):
        client.suggest([JPEG], timeout=5)
    assert seen == [f"Bearer {token_file.read_text()}"]


async def test_so_does_one_for_asyncio(authority: Authority, token_file: Path) -> None:
    seen: list[str | None] = []
    credentials = Credentials(tls_ca=authority.ca, token_file=token_file)
    with tls(*authority.issue(), before=bearers(seen)) as server:
        async with AsyncClient(server.address, credentials) as client:
            await client.suggest([JPEG], timeout=5)
    assert seen == [f"Bearer {token_file.read_text()}"]


def test_a_client_shows_its_certificate_to_a_server_that_wants_one(authority: Authority) -> None:
    with tls(*authority.issue(), authority.ca) as server:
        chain, key = authority.issue("client", "somebody")
        with Client(server.address, Credentials(authority.ca, chain, key)) as client:
            client.suggest([JPEG], timeout=5)
        assert "--client-cert" in told(server.address, Credentials(authority.ca))


def test_a_connection_that_is_reset_at_once_is_told_like_one_that_is_closed() -> None:
    with ending() as server:
        assert "want a certificate, so say --client-cert" in told(server, Credentials())


def test_a_new_token_is_shown_from_the_next_call_on(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "LOOK_SECONDS", 0.01)
    seen: list[str | None] = []
    with (
        Standin(before=bearers(seen)) as server,
        Client(server.address, Credentials(token_file=token_file)) as client,
    ):
        client.suggest([JPEG], timeout=5)
        token_file.write_text(new := tokens.new())
        time.sleep(0.02)
        client.suggest([JPEG], timeout=5)
    assert seen[1] == f"Bearer {new}" != seen[0]


@pytest.mark.parametrize("server", ["10.0.0.1:50051", "inference.example:50051", "dns:///a:1"])
async def test_no_token_goes_in_plaintext_to_another_machine(token_file: Path, server: str) -> None:
    for kind in (Client, AsyncClient, CrawlerClient):
        with pytest.raises(ServerUnreachable, match=f"to {server} in plaintext: say --tls-ca"):
            kind(server, Credentials(token_file=token_file))


def test_a_client_without_tls_is_told_of_a_server_that_speaks_it(authority: Authority) -> None:
    with tls(*authority.issue()) as server:
        assert "it may speak TLS, so say --tls-ca" in told(server.address, Credentials())


def test_a_client_with_tls_is_told_of_a_server_that_speaks_none(authority: Authority) -> None:
    with Standin() as server:
        assert "speaks no TLS" in told(server.address, Credentials(authority.ca))


def test_certificates_that_are_wrong_are_told_apart(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for files, why in (
        (authority.issue("old", days=-1), "has a certificate that has expired"),
        (Authority(tmp_path / "other").issue(), "of another authority than --tls-ca names"),
        (authority.issue("named", "example.org"), "has a certificate of another name"),
    ):
        with tls(*files) as server:
            assert why in told(server.address, Credentials(authority.ca))


def test_clients_of_long_work_are_told_the_same(authority: Authority) -> None:
    with tls(*authority.issue("old", days=-1)) as server:
        for address, why in (
            (server.address, "has a certificate that has expired"),
            ("127.0.0.1:9", "No EmojiNet crawler answers"),
        ):
            client = CrawlerClient(address, Credentials(authority.ca))
            with client, pytest.raises(ServerUnreachable, match=why):
                client.list_crawls()


def test_files_that_cannot_be_used_are_told_before_any_call(
    authority: Authority, tmp_path: Path
) -> None:
    chain, key = authority.issue()
    for credentials, why in (
        (Credentials(tls_ca=tmp_path / "none"), "none cannot be read: No such file"),
        (Credentials(token_file=tmp_path / "none"), "none cannot be read: No such file"),
        (Credentials(tls_ca=authority.ca, client_cert=chain), "need each other"),
        (Credentials(client_cert=chain, client_key=key), "--client-cert needs --tls-ca"),
        (Credentials(tls_ca=key), "holds no certificate of an authority"),
    ):
        with pytest.raises(FileUnreadable, match=why):
            Client("127.0.0.1:9", credentials)


def unknown(number: int, context: grpc.ServicerContext) -> None:
    fail(context, errors.Unauthenticated("This server does not know the call's token."))


def test_a_token_never_shows_whatever_goes_wrong(
    authority: Authority, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token, said = token_file.read_text(), []
    credentials = Credentials(tls_ca=authority.ca, token_file=token_file)
    with tls(*authority.issue(), before=unknown) as server:
        with Client(server.address, credentials) as client:
            with pytest.raises(EmojinetError) as caught:
                client.suggest([JPEG], timeout=5)
            said += [repr(caught.value), repr(vars(client)), caplog.text]
        flags = [f"--tls-ca={authority.ca}", f"--token-file={token_file}"]
        (picture := token_file.with_name("p.jpg")).write_bytes(JPEG)
        done = emojinet(*flags, "suggest", picture, f"--server={server.address}")
        said += [done.stdout.decode(), done.stderr.decode()]
        load = emojinet(
            *flags, "load", picture, "--duration=0.5", "--rate=20", f"--server={server.address}"
        )
        said += [load.stdout.decode(), load.stderr.decode()]

    assert isinstance(caught.value, errors.Unauthenticated)
    assert b"UNAUTHENTICATED" in done.stdout
    assert b"does not know the call's token" in done.stdout
    assert "UNAUTHENTICATED" in said[-2] + said[-1]
    assert not [text for text in said if token in text]


def test_the_command_line_takes_them_as_flags_and_from_the_environment(
    authority: Authority, token_file: Path, tmp_path: Path
) -> None:
    seen: list[str | None] = []
    (picture := tmp_path / "p.jpg").write_bytes(JPEG)
    asked = ("suggest", picture)
    with tls(*authority.issue(), before=bearers(seen)) as server:
        flags = [f"--tls-ca={authority.ca}", f"--token-file={token_file}"]
        by_flags = emojinet(*flags, *asked, server=server.address)
        by_environment = emojinet(
            *asked,
            server=server.address,
            EMOJINET_TLS_CA=str(authority.ca),
            EMOJINET_TOKEN_FILE=str(token_file),
        )
        without = emojinet(*asked, server=server.address)
        load = emojinet("load", picture, server=server.address)

    assert (by_flags.returncode, by_environment.returncode) == (0, 0)
    assert seen == [f"Bearer {token_file.read_text()}"] * 2
    for done in (without, load):
        assert done.returncode == 1
        assert b"it may speak TLS, so say --tls-ca" in done.stderr


def test_a_new_token_is_seen_by_nobody_and_its_line_makes_servers_know_it(tmp_path: Path) -> None:
    file, known = tmp_path / "page.token", tmp_path / "tokens"
    done = emojinet("token", "new", "suggest", file)
    known.write_bytes(done.stdout)

    token = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert token.encode() not in done.stdout + done.stderr
    assert tokens.Tokens(known).role(token) == "suggest"
    assert known.read_text().endswith(" page\n")

    again = emojinet("token", "new", "operate", file)
    assert again.returncode == 2
    assert b"cannot make" in again.stderr
    assert file.read_text().strip() == token
