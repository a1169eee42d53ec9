"""`emojinet train` as a process, against a real server."""

import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.cli import main
from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors
from tests.clients import commandline
from tests.clients.commandline import COMMAND, clean
from tests.clients.standin import Context, hold
from tests.clients.trainer_standin import TrainerStandin, run

pytestmark = pytest.mark.system

Done = subprocess.CompletedProcess[bytes]
RUNNING, LATER = run(), run(step=240)
SUCCEEDED = run(states.STATE_SUCCEEDED, step=500, judged=True)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with TrainerStandin(RUNNING, LATER, SUCCEEDED) as standin:
        yield standin.address


def emojinet(server: str, *arguments: str | Path) -> Done:
    """What came of it, on a screen wide enough for any table."""
    return commandline.emojinet(*arguments, EMOJINET_TRAINER=server, COLUMNS="140")


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]


def in_terminal(server: str, *arguments: str) -> tuple[str, int]:
    """What a terminal shows of a command, and its exit status."""
    ours, theirs = pty.openpty()
    environment = clean(EMOJINET_TRAINER=server, TERM="xterm", COLUMNS="100", LINES="50")
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # how a terminal says that its last process has left
            pass
        os.close(ours)
    return shown.decode(), process.returncode


# -- beginning ------------------------------------------------------------------------------------


def test_what_is_asked_for_is_what_the_server_gets() -> None:
    with TrainerStandin(RUNNING) as standin:
        done = emojinet(
            standin.address, "train", "start", "quick", "--dataset", "some/where",
            "--set", "steps=500", "--set", "augment=strong", "--set", 'weights="a=b"',
            "--set", "warm_start=false", "--name", "mine", "--detach",
        )  # fmt: skip
        emojinet(standin.address, "train", "start", "quick", "--dataset", "first", "--detach")
        emojinet(standin.address, "train", "start", "quick", "--detach")

    assert (done.returncode, done.stdout) == (0, b"train-1\n")
    expected = pb.StartRunRequest(
        kind=pb.RUN_KIND_TRAIN,
        recipe="quick",
        dataset=str(Path("some/where").absolute()),
        model_name="mine",
    )
    expected.settings.update(steps="500", augment='"strong"', weights='"a=b"', warm_start="false")
    assert standin.requests[0] == expected
    assert [request.dataset for request in standin.requests[1:]] == ["first", ""]  # type: ignore[attr-defined]


def test_a_new_run_is_followed_until_it_ends() -> None:
    with TrainerStandin(RUNNING, SUCCEEDED) as standin:
        done = emojinet(standin.address, "train", "start", "quick", "--dataset", "first")
        failed = run(states.STATE_FAILED, error=errors.TrainingFailed("The loss is not finite."))
    with TrainerStandin(RUNNING, failed) as standin:
        in_vain = emojinet(standin.address, "train", "start", "quick", "--dataset", "first")

    states_ = [line.split(" | ")[1] for line in done.stdout.decode().splitlines()]
    assert (done.returncode, states_) == (0, ["running", "succeeded"])
    assert in_vain.returncode == 1
    assert in_vain.stderr.decode().splitlines() == ["emojinet: The loss is not finite."]


def test_a_detached_run_is_an_object_for_programs(server: str) -> None:
    done = emojinet(server, "train", "start", "quick", "--detach", "--json")

    assert [line["name"] for line in lines(done)] == ["train-1"]


# -- watching -------------------------------------------------------------------------------------


def test_programs_get_an_object_for_each_change(server: str) -> None:
    done = emojinet(server, "train", "watch", "train-1", "--json")

    first, _, last = lines(done)
    assert first == {
        "name": "train-1",
        "state": "running",
        "request": {
            "kind": "train",
            "recipe": "quick",
            "dataset": "first",
            "settings": {"steps": "500"},
            "model_name": "",
        },
        "activity": "learning",
        "progress": {
            "step": 120,
            "steps": 500,
            "loss": 2.5,
            "images_per_second": 85.0,
            "data_wait_share": 0.03,
            "remaining_seconds": 125.0,
        },
        "metrics": [],
        "uri": "/runs/train-1",
        "error": None,
        "create_time": "2026-11-18T11:06:40Z",
        "end_time": None,
    }
    assert last["metrics"][0] == {
        "split": "test", "name": "top1", "value": 0.42, "low": 0.4, "high": 0.44
    }  # fmt: skip
    assert last["metrics"][-1]["high"] is None  # JSON has no NaN
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_a_terminal_there_are_lines(server: str) -> None:
    done = emojinet(server, "train", "watch", "train-1")

    first, last = (line[9:] for line in done.stdout.decode().splitlines())
    assert first == (
        "train-1 | running | step 120 of 500 | loss 2.500 | 85.0 images/s | 3% waiting for data"
        " | 2 min left | learning"
    )
    assert last.startswith("train-1 | succeeded | step 500 of 500")


def test_in_a_terminal_a_run_has_a_bar() -> None:
    slowly = lambda context: time.sleep(0.7)  # noqa: E731  so that each is drawn
    with TrainerStandin(run(step=0), RUNNING, SUCCEEDED, between=slowly) as standin:
        shown, status = in_terminal(standin.address, "train", "watch", "train-1")

    assert status == 0
    for seen in ("learning", "━━━", "step 120 of 500", "3% waiting for data", "succeeded"):
        assert seen in shown


def test_ctrl_c_ends_the_watching_and_not_the_run() -> None:
    def between(context: Context) -> None:
        hold(context)

    with TrainerStandin(RUNNING, SUCCEEDED, between=between) as standin:
        process = subprocess.Popen(
            [*COMMAND, "train", "watch", "train-1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean(EMOJINET_TRAINER=standin.address),
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    assert b"`emojinet train watch train-1`" in told
    assert standin.requests == []  # nobody was cancelled


def test_a_restart_of_the_server_does_not_end_the_watching() -> None:
    broken = threading.Event()

    def breaks(context: Context) -> None:
        broken.set()
        hold(context)

    with TrainerStandin(RUNNING, LATER, between=breaks) as before:
        process = subprocess.Popen(
            [*COMMAND, "train", "watch", "train-1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean(EMOJINET_TRAINER=before.address),
        )  # fmt: skip
        assert broken.wait(30)
    with TrainerStandin(RUNNING, SUCCEEDED, port=before.port):
        out, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["running", "succeeded"]


# -- looking --------------------------------------------------------------------------------------


def test_the_list_is_a_table_or_an_object_a_line(server: str) -> None:
    table = emojinet(server, "train", "list").stdout.decode().splitlines()
    objects = lines(emojinet(server, "train", "list", "--json"))
    with TrainerStandin() as standin:
        none = emojinet(standin.address, "train", "list")

    assert table[0].split() == [
        "name", "state", "recipe", "data", "set", "step", "loss", "top-1", "started"
    ]  # fmt: skip
    assert table[3].split()[:7] == [
        "train-1", "succeeded", "quick", "first", "500", "2.500", "42.0%"
    ]  # fmt: skip
    assert [each["state"] for each in objects] == ["running", "running", "succeeded"]
    assert b"emojinet train start --help" in none.stdout


def test_a_run_shows_how_good_it_is_beside_what_needs_no_learning(server: str) -> None:
    shown = emojinet(server, "train", "show", "train-1").stdout.decode()
    (as_json,) = lines(emojinet(server, "train", "show", "train-1", "--json"))

    rows = [line.split() for line in shown.splitlines()]
    title = ["test", "value", "95", "%", "head", "torso", "tail", "chance", "prior", "starter"]
    at = rows.index(title)
    assert ["top1", "0.420", "0.400-0.440", "0.600", "0.002", "0.100"] in rows
    assert [row[0] for row in rows[at + 1 :] if row] == ["top1", "macro"]
    assert ["report", "/runs/train-1/report.html"] in rows
    assert ["changed", "steps=500"] in rows
    assert as_json["uri"] == "/runs/train-1"


def test_cancelling_says_what_has_become_of_it() -> None:
    with TrainerStandin(RUNNING) as standin:
        done = emojinet(standin.address, "train", "cancel", "train-1")
        as_json = emojinet(standin.address, "train", "cancel", "train-1", "--json")

    assert done.stdout == b"train-1 cancelled\n"
    assert [line["state"] for line in lines(as_json)] == ["cancelled"]
    assert standin.requests == [pb.CancelRunRequest(name="train-1")] * 2


# -- wrong use ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["start", "quick"], ["list"], ["show", "x"], ["watch", "x"], ["cancel", "x"]]
)
def test_a_server_that_is_not_there_is_told_with_how_to_start_one(arguments: list[str]) -> None:
    done = emojinet("127.0.0.1:1", "train", *arguments)

    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "python -m services.trainer" in line


def test_a_run_that_is_not_there_is_told_in_one_line(server: str) -> None:
    for verb in ("show", "watch"):
        done = emojinet(server, "train", verb, "other")
        assert (done.returncode, done.stderr) == (1, b"emojinet: There is no run other.\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["start"], "RECIPE"),
        (["start", "quick", "--set", "steps"], "lacks its value"),
        (["start", "quick", "--set", "=5"], "lacks its value"),
        (["stop"], "No such command"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])

    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert named in line


@pytest.mark.parametrize(
    "command", [[], *([verb] for verb in ("start", "watch", "list", "show", "cancel"))]
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = emojinet("", "train", *command, "--help")

    assert done.returncode == 0
    usage, prose = done.stdout.decode().split("\n", 2)[1:]
    assert " ".join(["Usage: emojinet train", *command]) in usage
    assert prose.strip()[0].isupper()
