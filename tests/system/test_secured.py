"""The programs as they run on a network: TLS, tokens, certificates that change, and mistakes."""

import asyncio
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from clients.client import AsyncClient, Client
from clients.credentials import Credentials
from clients.demo import free_port
from services.shared import errors, tokens
from services.shared.photographs import installed
from services.shared.roles import OPERATE, SUGGEST
from tests.clients.commandline import COMMAND, clean, emojinet
from tests.shared.authority import Authority

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
CAT = next(path for path in installed() if path.name == "chelsea.png")
EXPIRY = "emojinet_tls_certificate_expiry_timestamp_seconds"
SERVING = health_pb2.HealthCheckResponse.SERVING


class Place:
    """A folder with an authority, tokens of both roles, and what servers need to know of them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.authority, self.folder, self.model = Authority(folder), folder, model
        self.chain, self.key = self.authority.issue()
        known = []
        for role in (SUGGEST, OPERATE):
            (folder / role).write_text(token := tokens.new())
            known.append(tokens.line(role, token, "test"))
        self.tokens = folder / "tokens"
        self.tokens.write_text("\n".join(known))

    def flags(self, service: str) -> list[str]:
        own = [f"--model={self.model}", "--backend=timed:5ms", "--reflection"]
        return [
            f"--tls-cert={self.chain}",
            f"--tls-key={self.key}",
            f"--tokens={self.tokens}",
            *(own if service == "inference" else []),
        ]

    def credentials(self, role: str) -> Credentials:
        return Credentials(tls_ca=self.authority.ca, token_file=self.folder / role)


class Program:
    """A service's process."""

    def __init__(self, process: "subprocess.Popen[Any]", ports: list[int]) -> None:
        self.process = process
        self.port, self.metrics_port, self.health_port = ports
        self.address = f"127.0.0.1:{self.port}"

    def ready(self) -> None:
        """Waits until it says so, in plaintext and without a token."""
        asked = health_pb2.HealthCheckRequest(service="ready")
        with grpc.insecure_channel(f"127.0.0.1:{self.health_port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            end = time.monotonic() + 60
            while check(asked, wait_for_ready=True, timeout=60).status != SERVING:
                assert time.monotonic() < end
                time.sleep(0.05)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            return str(page.read().decode())


@contextmanager
def program(service: str, *flags: str) -> Iterator[Program]:
    ports = [free_port() for _ in range(3)]
    listening = [
        f"--{name}={port}"
        for name, port in zip(("port", "metrics-port", "health-port"), ports, strict=True)
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{service}", *listening, *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Program(process, ports)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@pytest.fixture
def place(tmp_path: Path, tiny: Path) -> Place:
    return Place(tmp_path, tiny)


async def test_inference_answers_who_may_ask_and_health_answers_everybody(place: Place) -> None:
    with program("inference", *place.flags("inference")) as server:
        await asyncio.to_thread(server.ready)
        for role in (SUGGEST, OPERATE):
            with Client(server.address, place.credentials(role)) as client:
                response = client.suggest([CAT.read_bytes()], timeout=10)
            assert response.results[0].suggestions.suggestions
        nobody = Client(server.address, Credentials(place.authority.ca))
        with nobody, pytest.raises(errors.Unauthenticated, match="none came with the call"):
            nobody.suggest([CAT.read_bytes()], timeout=10)
        assert described(server, place, OPERATE) == "OK"
        assert described(server, place, SUGGEST) == "PERMISSION_DENIED"
        page = server.metrics()
        assert EXPIRY in page
        assert 'emojinet_requests_total{code="UNAUTHENTICATED",method="Suggest"} 1.0' in page


def described(server: Program, place: Place, role: str) -> str:
    """What a generic tool gets that asks for the contract; grpc.aio might tell INTERNAL instead."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with closing(place.credentials(role).channel(server.address, ())) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        try:
            (answer,) = stub.ServerReflectionInfo(iter([request]))
        except grpc.RpcError as failure:
            return str(failure.code().name)
    assert len(answer.list_services_response.service) == 4
    return "OK"


async def test_certificate_and_tokens_turn_under_load_without_a_failed_call(place: Place) -> None:
    with program("inference", *place.flags("inference")) as server:
        await asyncio.to_thread(server.ready)
        ended = asyncio.Event()

        async def calls() -> int:
            count = 0
            while not ended.is_set():
                async with AsyncClient(server.address, place.credentials(SUGGEST)) as client:
                    for _ in range(5):
                        await client.suggest([CAT.read_bytes()], timeout=10)
                        count += 1
            return count

        callers = [asyncio.create_task(calls()) for _ in range(4)]
        where, seen = ("127.0.0.1", server.port), list[str]()
        for _ in range(3):
            seen.append(await asyncio.to_thread(ssl.get_server_certificate, where))
            await asyncio.to_thread(place.authority.issue)
            end = time.monotonic() + 5
            while await asyncio.to_thread(ssl.get_server_certificate, where) == seen[-1]:
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
        ended.set()
        counts = await asyncio.gather(*callers)

        assert len(set(seen)) == 3
        assert min(counts) > 0

        place.tokens.write_text("")  # now nobody is known
        await asyncio.sleep(1.5)
        async with AsyncClient(server.address, place.credentials(OPERATE)) as client:
            with pytest.raises(errors.Unauthenticated, match="does not know the call's token"):
                await client.suggest([CAT.read_bytes()], timeout=10)


@pytest.mark.parametrize("service", ["crawler", "trainer"])
def test_who_suggests_may_not_operate(place: Place, service: str) -> None:
    listing = {"crawler": ["crawl", "list"], "trainer": ["train", "list"]}[service]
    with program(service, *place.flags(service), f"--data={place.folder / 'data'}") as server:
        server.ready()
        for role, status, told in (
            (OPERATE, 0, b"--help"),
            (SUGGEST, 1, b"The token's role may not do this; operate may."),
        ):
            shown = [f"--tls-ca={place.authority.ca}", f"--token-file={place.folder / role}"]
            done = emojinet(*shown, *listing, f"--server={server.address}")
            assert done.returncode == status, done.stderr
            assert told in done.stdout + done.stderr


@pytest.mark.parametrize("service", ["inference", "crawler", "trainer"])
def test_what_cannot_be_safe_does_not_start_and_one_line_says_why(
    place: Place, service: str
) -> None:
    expired = place.authority.issue("expired", days=-1)
    locked = place.folder / "nothing.key"
    (place.folder / "bad").write_text((place.folder / SUGGEST).read_text())
    tls = [f"--tls-cert={place.chain}", f"--tls-key={place.key}"]
    for flags, told in (
        (["--host=0.0.0.0"], "--host 0.0.0.0 can be reached from other machines: give --tls-cert"),
        (["--host=::", f"--tokens={place.tokens}"], "or --insecure"),
        ([f"--tls-cert={place.chain}"], "--tls-cert and --tls-key need each other"),
        ([f"--tls-cert={expired[0]}", f"--tls-key={expired[1]}"], "certificate has expired"),
        ([f"--tls-cert={place.chain}", f"--tls-key={locked}"], "cannot be read: No such file"),
        ([*tls, f"--tls-client-ca={place.key}"], "holds no certificate of an authority"),
        ([f"--tokens={place.folder / 'bad'}"], "bad: line 1 is not `role sha256 [name]`"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", f"services.{service}", "--port=0", "--metrics-port=0", *flags],
            capture_output=True, text=True, timeout=60, check=False, cwd=Path.cwd(),
            env=os.environ | {"EMOJINET_DATA": str(place.folder / "data")},
        )  # fmt: skip
        lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert (ended.returncode, len(lines)) == (1, 1), ended.stderr
        assert told in lines[0]
        assert "Traceback" not in ended.stderr
        assert (place.folder / SUGGEST).read_text() not in ended.stderr


def test_the_page_speaks_https_turns_its_certificate_and_shows_its_token(place: Place) -> None:
    with (
        program("inference", *place.flags("inference")) as server,
        page(place, server.address) as (port, process),
    ):
        server.ready()
        trusting = ssl.create_default_context(cafile=str(place.authority.ca))
        asked = urllib.request.Request(
            f"https://127.0.0.1:{port}/api/suggest",
            data=CAT.read_bytes(),
            headers={"Content-Type": "image/png"},
        )
        with urllib.request.urlopen(asked, context=trusting, timeout=20) as answer:
            assert answer.status == 200
        before = ssl.get_server_certificate(("127.0.0.1", port))
        place.authority.issue()
        time.sleep(1.5)
        assert ssl.get_server_certificate(("127.0.0.1", port)) != before
        with urllib.request.urlopen(asked, context=trusting, timeout=20) as answer:
            assert answer.status == 200
        assert process.poll() is None


@contextmanager
def page(place: Place, server: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """`emojinet web` on a port of its own, with the token of those who suggest."""
    port = free_port()
    flags = [f"--tls-ca={place.authority.ca}", f"--token-file={place.folder / SUGGEST}"]
    listening = [f"--port={port}", f"--tls-cert={place.chain}", f"--tls-key={place.key}"]
    process = subprocess.Popen(
        [*COMMAND, *flags, "web", f"--server={server}", *listening],
        env=clean(),
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert f"https://127.0.0.1:{port}/".encode() in process.stderr.readline()
        end = time.monotonic() + 20
        while True:
            try:
                ssl.get_server_certificate(("127.0.0.1", port))
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield port, process
    finally:
        stop(process)


def test_the_page_is_no_safer_than_it_says(place: Place) -> None:
    for flags, told in (
        (["web", "--host=0.0.0.0"], b"--host 0.0.0.0 can be reached from other machines"),
        ([f"--token-file={place.folder / 'none'}", "web"], b"none cannot be read: No such file"),
        ([f"--token-file={place.folder / SUGGEST}", "web", "--server=a.lan:1"], b"in plaintext"),
        (["web", f"--tls-cert={place.key}", f"--tls-key={place.key}"], b"not a certificate"),
    ):
        done = emojinet(*flags)
        assert done.returncode in (1, 2)
        assert told in b" ".join(done.stderr.split()), done.stderr
        assert b"Traceback" not in done.stderr


def test_status_tells_who_refuses_us_and_who_cannot_be_trusted(place: Place) -> None:
    with program("inference", *place.flags("inference")) as server:
        server.ready()
        asked = ("status", f"--data={place.folder / 'none'}", f"--server={server.address}")
        trusted = emojinet(f"--tls-ca={place.authority.ca}", *asked, COLUMNS="300")
        plain = emojinet(*asked, COLUMNS="300")
    assert b"refuses us" in trusted.stdout
    assert b"it may speak TLS" in plain.stdout


def test_the_commands_of_the_document_do_what_it_says(place: Place) -> None:
    shutil.copy(CAT, place.folder / "photo.jpg")
    (place.folder / "tokens").unlink()
    ports = [str(free_port()) for _ in range(3)]
    environment = clean(
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
        EMOJINET_PORT=ports[0],
        EMOJINET_METRICS_PORT=ports[1],
        EMOJINET_SERVER=f"127.0.0.1:{ports[0]}",
        EMOJINET_MODEL=str(place.model),
        EMOJINET_BACKEND="timed:5ms",
    )
    serving: subprocess.Popen[bytes] | None = None
    try:
        for command in re.findall(r"^\$ (.+)$", DOCUMENT, re.MULTILINE):
            told = command.replace("--host 0.0.0.0", "").replace("50061", ports[2])
            told = told.replace("emojinet ", f"{sys.executable} -m clients.cli ", 1)
            if told.startswith("python"):
                if serving:
                    stop(serving)
                serving = subprocess.Popen(shlex.split(told), cwd=place.folder, env=environment)
                Program(serving, list(map(int, ports))).ready()
                continue
            done = subprocess.run(
                told, shell=True, cwd=place.folder, env=environment, capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stderr}"
            if "suggest photo.jpg" in command:
                assert "%" in done.stdout
    finally:
        if serving:
            stop(serving)
