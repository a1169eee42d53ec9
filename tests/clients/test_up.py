"""`emojinet up` where it must not start anything; more in `tests/system/test_up.py`."""

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from clients import supervised, up
from clients.cli import main
from clients.supervised import SERVICES, WEB
from services.shared import harness


def free_offset() -> int:
    """One that moves all ports to where nobody listens."""
    return next(n for n in random.sample(range(2_001, up.MAX_OFFSET), 100) if not up.taken(n))


def emojinet(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Its exit status and what it said, run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


def test_a_port_in_use_is_told_with_who_is_at_it_and_which_are_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offset = free_offset()
    with socket.create_server(("", WEB.port + offset)):
        flags = ["--data", tmp_path, "--port-offset", offset]
        status, out, told = emojinet(capsys, "up", *flags)

    assert (status, out) == (1, "")
    first, last = told.splitlines()
    assert f"port {WEB.port + offset} is in use by another program (" in first
    assert f"PID {os.getpid()})" in first
    assert not up.taken(int(last.strip("`").split()[-1]))
    assert not (tmp_path / "up" / supervised.CONFIG).exists()


def test_data_that_is_a_file_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").touch()

    status, out, told = emojinet(capsys, "up", "--data", tmp_path / "data")

    assert (status, out) == (1, "")
    assert told == (
        f"emojinet: {tmp_path}/data/up cannot be used: Not a directory. Choose another --data.\n"
    )


def test_a_full_disk_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / supervised.CONFIG).symlink_to("/dev/full")

    flags = ["--data", tmp_path, "--port-offset", free_offset()]
    status, out, told = emojinet(capsys, "up", *flags)

    assert (status, out) == (1, "")
    (line,) = told.splitlines()
    assert f"{tmp_path}/up" in line
    assert "No space left on device" in line


@pytest.mark.parametrize("command", [["up", "--port-offset", free_offset()], ["down"]])
def test_two_at_the_same_instant_take_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[object]
) -> None:
    held = harness.lock(tmp_path / "up", "test")
    (tmp_path / "up" / supervised.CONFIG).symlink_to("/dev/full")  # an end before anything starts
    began = time.monotonic()
    threading.Timer(0.5, os.close, [held]).start()

    emojinet(capsys, *command, "--data", tmp_path)

    assert time.monotonic() - began >= 0.5


def test_where_nothing_runs_there_is_nothing_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = f"Nothing runs in {tmp_path}.\n"

    assert emojinet(capsys, "down", "--data", tmp_path) == (0, nothing, "")
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / supervised.SOCKET).write_text("not a socket")
    assert emojinet(capsys, "down", "--data", tmp_path) == (0, nothing, "")


def test_an_offset_moves_every_port_and_no_two_services_meet() -> None:
    assert sorted(port for service in SERVICES for port in service.ports(1000)) == [
        9080, 10101, 10102, 10103, 51051, 51052, 51053,
    ]  # fmt: skip
    command = " ".join(WEB.command(1000))
    assert "--port=9080 --server=127.0.0.1:51051" in command
    assert "--metrics-url=http://127.0.0.1:10101/metrics" in command


def test_a_port_that_no_browser_opens_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, told = emojinet(capsys, "up", "--data", tmp_path, "--port-offset", 2000)

    assert (status, out) == (2, "")
    assert "no browser opens port 10080" in told


def test_people_read_commands_as_they_can_type_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOJINET_DATA", raising=False)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert up.typed("down", Path("my data")).endswith("emojinet down --data 'my data'`")
    assert up.typed("up", Path("data"), 1000).endswith("emojinet up --port-offset 1000`")
    monkeypatch.setenv("MAKELEVEL", "1")
    assert up.typed("up", Path("data"), 1000) == "`make up OFFSET=1000`"
    assert up.typed("down", Path("data")) == "`make down`"
    assert up.typed("status", Path("data")).endswith("emojinet status`")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ('{"message": "loading"}\n{"message": "ready"}\n', "ready"),
        ('{"message": "loading"}\nerror: the port is in use\n', "the port is in use"),
        ("emojinet: cannot listen\n", "cannot listen"),
        ("Traceback (most recent call last):\n  File\nImportError: x\n\n", "ImportError: x"),
        ("error: so\n╰──────╯\n", "so"),
        ('{"message": 7}\n[]\n{}\nlong ' + "x" * 100_000, "x" * 65_536),
        ("\xff\x00", "ÿ\x00"),
        ("", ""),
    ],
)
def test_the_last_words_of_a_log_are_its_last_line_that_says_anything(
    tmp_path: Path, log: str, words: str
) -> None:
    assert supervised.last_words(tmp_path / "log") == ""
    (tmp_path / "log").write_text(log)
    assert supervised.last_words(tmp_path / "log") == words
