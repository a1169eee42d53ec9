"""`emojinet dataset` as a process, against a real server."""

import hashlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.cli import main
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from tests.clients import commandline
from tests.clients.commandline import COMMAND, clean
from tests.clients.crawler_standin import CrawlerStandin, dataset

pytestmark = pytest.mark.system

Done = subprocess.CompletedProcess[bytes]
RUNNING, SUCCEEDED = dataset(states.STATE_RUNNING), dataset()
DIGEST = hashlib.sha256(b"picture").hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with CrawlerStandin(RUNNING, SUCCEEDED) as standin:
        yield standin.address


def emojinet(server: str, *arguments: str | Path, path: str = "") -> Done:
    """What came of it, on a screen wide enough for any table."""
    return commandline.emojinet(*arguments, EMOJINET_CRAWLER=server, COLUMNS="120", PYTHONPATH=path)


def answered(server: str, answer: bytes, *arguments: str) -> int:
    """The exit status of a command whose question in a terminal gets the answer."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=clean(EMOJINET_CRAWLER=server),
    ) as process:  # fmt: skip
        assert process.stderr
        assert b"cannot be undone" in process.stderr.read()
    os.close(ours)
    os.close(theirs)
    return process.returncode


def test_a_new_data_set_is_followed_until_it_is_complete() -> None:
    with CrawlerStandin(RUNNING, SUCCEEDED) as standin:
        done = emojinet(
            standin.address, "dataset", "create", "collect-1", "collect-2", "--name", "first",
            "--validation", "0.25", "--test", "0.125",
        )  # fmt: skip

    assert [line.split(" | ")[:2] for line in done.stdout.decode().splitlines()] == [
        [f"{line[:9]}first", state]
        for line, state in zip(
            done.stdout.decode().splitlines(), ("running", "succeeded"), strict=True
        )
    ]
    assert done.returncode == 0
    assert standin.requests == [
        pb.CreateDatasetRequest(
            crawls=["collect-1", "collect-2"], name="first", validation_share=0.25, test_share=0.125
        )
    ]


def test_who_does_not_want_to_follow_gets_its_name_at_once() -> None:
    with CrawlerStandin(RUNNING) as standin:
        done = emojinet(standin.address, "dataset", "create", "collect-1", "--detach")
        as_json = emojinet(standin.address, "dataset", "create", "collect-1", "--detach", "--json")

    assert done.stdout == b"first\n"
    assert json.loads(as_json.stdout)["state"] == "running"


def test_programs_get_an_object_for_each_change(server: str) -> None:
    done = emojinet(server, "dataset", "create", "collect-1", "--json")

    _, last = (json.loads(line) for line in done.stdout.splitlines())
    assert last["samples"] == {"train": 80, "validation": 10, "test": 10}
    assert last.keys() == {
        "name", "state", "request", "uri", "digest", "samples", "excluded", "funnel", "error",
        "create_time", "end_time",
    }  # fmt: skip


def test_the_list_is_a_table_or_an_object_a_line(server: str) -> None:
    table = emojinet(server, "dataset", "list").stdout.decode().splitlines()
    as_json = emojinet(server, "dataset", "list", "--json").stdout.splitlines()

    assert table[0].split() == [
        "name", "state", "train", "validation", "test", "removed", "created"
    ]  # fmt: skip
    assert table[2].split()[:6] == ["first", "succeeded", "80", "10", "10", "0"]
    assert [json.loads(line)["state"] for line in as_json] == ["running", "succeeded"]


def test_where_there_is_no_data_set_people_read_how_to_make_one() -> None:
    with CrawlerStandin() as standin:
        done = emojinet(standin.address, "dataset", "list")

    assert b"emojinet dataset create --help" in done.stdout


def test_a_data_set_shows_where_it_is_and_what_is_in_it(server: str) -> None:
    shown = emojinet(server, "dataset", "show", "first").stdout.decode()
    as_json = json.loads(emojinet(server, "dataset", "show", "first", "--json").stdout)

    for seen in ("/data/datasets/first", "train 80, validation 10, test 10", "ab" * 32, "stored"):
        assert seen in shown
    assert as_json["uri"] == "/data/datasets/first"


def test_content_is_taken_down_by_post_author_file_or_digest(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"picture")
    with CrawlerStandin() as standin:
        for what in (
            ["--post", "bluesky", "at://x"],
            ["--author", "import", "someone", "--compact"],
            ["--image", picture],
            ["--image", DIGEST.upper()],
        ):
            done = emojinet(standin.address, "dataset", "remove", *what)
            assert done.returncode == 0
        as_json = emojinet(standin.address, "dataset", "remove", "--image", DIGEST, "--json")

    assert done.stdout == b"Pictures deleted: 3.\nSamples excluded: 2, of first.\n"
    assert json.loads(as_json.stdout) == {
        "removed_images": 3,
        "excluded_samples": 2,
        "datasets": ["first"],
    }
    assert standin.requests[:4] == [
        pb.RemoveContentRequest(post=pb.PostReference(source="bluesky", uri="at://x")),
        pb.RemoveContentRequest(
            author=pb.AuthorReference(source="import", author="someone"), compact=True
        ),
        pb.RemoveContentRequest(image_sha256=DIGEST),
        pb.RemoveContentRequest(image_sha256=DIGEST),
    ]


def test_in_a_terminal_nothing_is_taken_down_without_a_yes() -> None:
    with CrawlerStandin() as standin:
        command = ("dataset", "remove", "--image", DIGEST)
        assert answered(standin.address, b"n\n", *command) == 1
        assert answered(standin.address, b"\x04", *command) == 1
        assert standin.requests == []
        assert answered(standin.address, b"y\n", *command) == 0

    assert len(standin.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    [["create", "x"], ["list"], ["show", "x"], ["remove", "--image", DIGEST]],
)
def test_a_server_that_is_not_there_is_told_with_how_to_start_one(arguments: list[str]) -> None:
    done = emojinet("127.0.0.1:1", "dataset", *arguments)

    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "python -m services.crawler" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["create", "x", "--test", "0.6"], "--test"),
        (["create", "x", "--test", "nan"], "--test"),
        (["remove"], "--author"),
        (["remove", "--image", DIGEST, "--post", "bluesky", "at://x"], "one of"),
        (["remove", "--image", "no/such.jpg"], "no/such.jpg"),
        (["remove", "--post", "bluesky"], "--post"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dataset", *arguments])

    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert named in line


@pytest.mark.parametrize("verb", ["prescale", "verify", "export"])
def test_a_missing_package_is_told_with_the_extra_it_comes_with(verb: str, tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('no', name=__name__)")

    done = emojinet("", "dataset", verb, "x", path=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "emojinet: this needs the package aiohttp: pip install 'emojinet[crawler]'"
    ]


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([verb] for verb in ("create", "list", "show", "remove", "prescale", "verify", "export")),
    ],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    done = emojinet("", "dataset", *command, "--help")

    assert done.returncode == 0
    usage, prose = done.stdout.decode().split("\n", 2)[1:]
    assert " ".join(["Usage: emojinet dataset", *command]) in usage
    assert prose.strip()[0].isupper()
