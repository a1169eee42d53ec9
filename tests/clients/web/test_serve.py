"""`emojinet web` as a process, against those who would keep others from using it."""

import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.clients.commandline import COMMAND, clean, emojinet
from tests.clients.standin import Standin

pytestmark = pytest.mark.system  # some wait for what takes seconds
SOCKETS = 500


@contextmanager
def started(server: str, *flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """The program's URL, and its process."""
    program = subprocess.Popen(
        [*COMMAND, "web", "--port=0", f"--server={server}", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env=clean(),
    )
    assert program.stderr is not None
    try:
        line = program.stderr.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, line
        url = found[0]
        until_alive(url)
        yield url, psutil.Process(program.pid)
    finally:
        program.terminate()
        try:
            program.wait(20)
        finally:
            program.kill()
            program.stderr.close()


def until_alive(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as response:
                assert response.status == 200
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < end
            time.sleep(0.05)


def suggest(url: str, body: bytes) -> int:
    """The status of the answer to a picture."""
    asked = urllib.request.Request(
        f"{url}/api/suggest", data=body, headers={"Content-Type": "image/jpeg"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)


def test_the_command_serves_and_ends_at_sigterm() -> None:
    with Standin() as server, started(server.address) as (url, process):
        assert suggest(url, b"\xff\xd8 a picture") == 200
        process.terminate()
        assert process.wait(10) == 0


def test_a_port_in_use_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = emojinet("web", f"--port={port}")
    assert done.returncode == 1
    assert done.stderr.decode().strip() == (
        f"emojinet: cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Choose another --host or --port"
    )


def test_networks_that_are_none_are_wrong_use() -> None:
    done = emojinet("web", "--port=0", "--allow-addresses=10.0.0.0/99")
    assert done.returncode == 2
    assert b"networks look like 10.0.0.0/8" in done.stderr


def test_500_open_sockets_keep_nobody_out() -> None:
    with Standin() as server, started(server.address) as (url, process), ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        for number in range(SOCKETS):
            silent = stack.enter_context(socket.create_connection((host, int(port)), 10))
            if number % 2:  # half of them have begun to say something
                silent.send(b"POST /api/suggest HTTP/1.1\r\nHost: ")
        began = time.monotonic()
        assert suggest(url, b"\xff\xd8 a picture") == 200
        assert time.monotonic() - began < 5
        assert process.num_fds() >= SOCKETS


def test_a_head_that_does_not_come_ends_its_connection() -> None:
    with Standin() as server, started(server.address) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), 20) as silent,
            socket.create_connection((host, int(port)), 20) as slow,
        ):
            slow.send(b"GET / HTTP/1.1\r\nX: ")
            began = time.monotonic()
            time.sleep(3)
            slow.send(b"y")  # which earns it no more time
            assert silent.recv(1) == slow.recv(1) == b""
            assert 5 < time.monotonic() - began < 15


def test_100_mb_are_refused_and_leave_it_alive_and_small() -> None:
    with Standin() as server, started(server.address) as (url, process):
        assert suggest(url, b"\xff\xd8 a picture") == 200
        before = process.memory_info().rss
        assert suggest(url, bytes(100 << 20)) == 413
        assert suggest(url, b"\xff\xd8 a picture") == 200
        assert process.memory_info().rss - before < 32 << 20


def test_a_server_that_stops_and_comes_back_is_found_again() -> None:
    with Standin() as server, started(server.address) as (url, _):
        port = int(server.address.rpartition(":")[2])
        assert suggest(url, b"\xff\xd8 a picture") == 200
        server.__exit__()
        assert suggest(url, b"\xff\xd8 a picture") == 503
        until_alive(url)
        with Standin(port=port):
            end = time.monotonic() + 20
            while suggest(url, b"\xff\xd8 a picture") != 200:
                assert time.monotonic() < end
                time.sleep(0.2)


@pytest.mark.parametrize("flag", ["--host", "--port", "--server", "--metrics-url"])
def test_the_help_names_every_flag(flag: str) -> None:
    assert flag in emojinet("web", "--help", COLUMNS="200").stdout.decode()
