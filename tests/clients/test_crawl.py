"""`emojinet crawl` as a process, against a real server."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clients.cli import main
from clients.crawler_client import CrawlerClient
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.shared import errors
from services.shared.vocabulary import Vocabulary
from tests.clients import commandline
from tests.clients.commandline import COMMAND, clean
from tests.clients.crawler_standin import VOCABULARY, CrawlerStandin, crawl
from tests.clients.standin import Context, fail, hold

pytestmark = pytest.mark.system

Done = subprocess.CompletedProcess[bytes]
RUNNING = crawl()
LATER = crawl(posts=1_000)
SUCCEEDED = crawl(states.STATE_SUCCEEDED, posts=1_000, activity="")
RANKED = crawl(states.STATE_SUCCEEDED, "rank-1", vocabulary=True, activity="")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with CrawlerStandin(RANKED, RUNNING, LATER, SUCCEEDED) as standin:
        yield standin.address


def emojinet(server: str, *arguments: str | Path, path: str = "") -> Done:
    """What came of it, on a screen wide enough for any table."""
    return commandline.emojinet(*arguments, EMOJINET_CRAWLER=server, COLUMNS="120", PYTHONPATH=path)


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def in_terminal(server: str, *arguments: str) -> tuple[str, int]:
    """What a terminal shows of a command, and its exit status."""
    ours, theirs = pty.openpty()
    environment = clean(EMOJINET_CRAWLER=server, TERM="xterm", COLUMNS="100", LINES="50")
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


def test_what_is_asked_for_is_what_the_server_gets(tmp_path: Path) -> None:
    with CrawlerStandin(RUNNING) as standin:
        done = commandline.emojinet(
            "crawl", "start", "import", "posts.csv", "--column", "text=caption",
            "--column", "image=a=b", "--vocabulary", "rank-1", "--max-posts", "10000",
            "--for", "1.5h", "--max-hashtags", "4", "--per-emoji", "30", "--per-author", "10",
            "--server", standin.address,
        )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, b"collect-1\n")
    expected = pb.StartCrawlRequest(
        mode=pb.CRAWL_MODE_COLLECT,
        vocabulary_crawl="rank-1",
        rules=pb.KeepRules(max_hashtags=4, images_per_emoji=30, images_per_author=10),
        max_posts=10_000,
    )
    expected.imported.path = str(Path("posts.csv").absolute())
    expected.imported.columns.update(text="caption", image="a=b")
    expected.max_duration.FromSeconds(5_400)
    assert standin.requests == [expected]


def test_every_source_can_be_ranked_and_collected_from() -> None:
    instagram = ["--base-url", "https://a.example/v1", "--token-file", "token"]
    bluesky = ["--jetstream", "wss://b.example", "--originals", "--cursor", "7"]
    with CrawlerStandin(RUNNING) as standin:
        for verb in ("rank", "start"):
            for source in (["instagram-v1", *instagram], ["bluesky", *bluesky]):
                assert emojinet(standin.address, "crawl", verb, *source).returncode == 0
        assert (
            emojinet(standin.address, "crawl", "rank", "import", "/x", "--size", "9").returncode
            == 0
        )

    requests = [
        request for request in standin.requests if isinstance(request, pb.StartCrawlRequest)
    ]
    assert [(request.mode, request.WhichOneof("source")) for request in requests] == [
        (pb.CRAWL_MODE_RANK, "instagram"),
        (pb.CRAWL_MODE_RANK, "bluesky"),
        (pb.CRAWL_MODE_COLLECT, "instagram"),
        (pb.CRAWL_MODE_COLLECT, "bluesky"),
        (pb.CRAWL_MODE_RANK, "imported"),
    ]
    assert requests[0].instagram == pb.InstagramSource(
        base_url="https://a.example/v1", token_file=str(Path("token").absolute())
    )
    assert requests[1].bluesky == pb.BlueskySource(
        jetstream_url="wss://b.example", originals=True, cursor="7"
    )
    assert [request.vocabulary_size for request in requests] == [500, 500, 0, 0, 9]
    assert not requests[0].HasField("rules")


def test_in_a_terminal_a_new_crawl_is_followed() -> None:
    slowly = lambda context: time.sleep(0.7)  # noqa: E731  so that each is drawn
    with CrawlerStandin(RUNNING, LATER, SUCCEEDED, between=slowly) as standin:
        shown, status = in_terminal(standin.address, "crawl", "start", "import", "/posts.csv")

    assert status == 0
    for seen in (
        "collect-1",
        "reading posts",
        "no emoji in caption",
        "1,750",
        "87.5%",
        "succeeded",
    ):
        assert seen in shown


def test_a_detached_crawl_is_an_object_for_programs() -> None:
    with CrawlerStandin(RUNNING) as standin:
        done = emojinet(standin.address, "crawl", "start", "bluesky", "--detach", "--json")

    assert [line["name"] for line in lines(done)] == ["collect-1"]


# -- watching -------------------------------------------------------------------------------------


def test_programs_get_an_object_for_each_change(server: str) -> None:
    done = emojinet(server, "crawl", "watch", "collect-1", "--json")

    first, _, last = lines(done)
    assert first == {
        "name": "collect-1",
        "state": "running",
        "request": {
            "mode": "collect",
            "imported": {"path": "/posts.csv", "columns": {"text": "caption"}},
            "vocabulary_crawl": "",
            "vocabulary_size": 0,
            "rules": {"max_hashtags": 5, "images_per_emoji": 0, "images_per_author": 0},
            "max_posts": 0,
            "max_duration_seconds": None,
        },
        "activity": "reading posts",
        "funnel": {
            "counts": [
                {"stage": "post", "outcome": "no_emoji_in_caption", "count": 750},
                {"stage": "post", "outcome": "kept", "count": 250},
                {"stage": "image", "outcome": "stored", "count": 240},
                {"stage": "image", "outcome": "not_found", "count": 10},
            ]
        },
        "vocabulary": [],
        "error": None,
        "create_time": "2026-11-18T11:06:40Z",
        "end_time": None,
    }
    assert (last["state"], last["end_time"]) == ("succeeded", "2026-11-18T11:08:10Z")
    assert first.keys() == last.keys()
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_a_terminal_there_are_lines(server: str) -> None:
    done = emojinet(server, "crawl", "watch", "collect-1")

    first, last = (line[9:] for line in done.stdout.decode().splitlines())
    assert first == (
        "collect-1 | running | post 1,000: no emoji in caption 750, kept 250"
        " | image 250: stored 240, not found 10 | reading posts"
    )
    assert last.startswith("collect-1 | succeeded | post 2,000")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (crawl(states.STATE_CANCELLED), "emojinet: collect-1 was cancelled"),
        (
            crawl(states.STATE_FAILED, error=errors.BadSource("/posts.csv is gone.", path="/x")),
            "emojinet: /posts.csv is gone.",
        ),
    ],
)
def test_a_crawl_that_does_not_succeed_is_a_failure_of_who_follows_it(
    last: pb.Crawl, told: str
) -> None:
    with CrawlerStandin(RUNNING, last) as standin:
        done = emojinet(standin.address, "crawl", "watch", "collect-1", "--json")

    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [told]
    assert lines(done)[-1]["state"] in ("cancelled", "failed")


def test_who_waits_for_a_person_says_for_what() -> None:
    refused = errors.SourceRefused("The token has expired: write a new one.", source="x")
    paused = crawl(states.STATE_PAUSED, error=refused)
    with CrawlerStandin(RUNNING, paused, SUCCEEDED) as standin:
        done = emojinet(standin.address, "crawl", "watch", "collect-1")
        shown, _ = in_terminal(standin.address, "crawl", "show", "collect-1")
        as_json = emojinet(standin.address, "crawl", "watch", "collect-1", "--json")

    _, line, _ = done.stdout.decode().splitlines()
    assert " | paused | " in line
    assert line.endswith(" | The token has expired: write a new one.")
    assert lines(as_json)[1]["error"] == {
        "code": "PERMISSION_DENIED",
        "reason": "ERROR_REASON_SOURCE_REFUSED",
        "message": "The token has expired: write a new one.",
    }
    assert "succeeded" in shown


def test_ctrl_c_ends_the_watching_and_not_the_crawl() -> None:
    def between(context: Context) -> None:
        hold(context)

    with CrawlerStandin(RUNNING, SUCCEEDED, between=between) as standin:
        process = subprocess.Popen(
            [*COMMAND, "crawl", "watch", "collect-1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean(EMOJINET_CRAWLER=standin.address),
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    (line,) = told.decode().splitlines()
    assert "goes on" in line
    assert "`emojinet crawl watch collect-1`" in line
    assert standin.requests == []  # nobody was cancelled


def test_a_restart_of_the_server_does_not_end_the_watching() -> None:
    broken = threading.Event()

    def breaks(context: Context) -> None:
        broken.set()
        hold(context)

    with CrawlerStandin(RUNNING, LATER, between=breaks) as before:
        process = subprocess.Popen(
            [*COMMAND, "crawl", "watch", "collect-1", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean(EMOJINET_CRAWLER=before.address),
        )  # fmt: skip
        assert broken.wait(30)
    time.sleep(1.5)  # so long that people wonder
    with CrawlerStandin(RUNNING, SUCCEEDED, port=before.port):
        out, told = process.communicate(timeout=30)

    assert process.returncode == 0
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["running", "succeeded"]
    (line,) = told.decode().splitlines()
    assert "does not answer; trying for 60 s" in line


def test_streams_that_a_server_ends_now_and_then_are_begun_again_in_silence() -> None:
    calls = 0

    def ends(context: Context) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            fail(context, errors.Draining("Come again."))

    notes: list[str] = []
    with (
        CrawlerStandin(RUNNING, LATER, SUCCEEDED, between=ends) as standin,
        CrawlerClient(standin.address) as client,
    ):
        seen = [now.state for now in client.watch_crawl("collect-1", notes.append)]

    # Begun again the stream first says what is known: that is no change.
    assert seen == [states.STATE_RUNNING, states.STATE_RUNNING, states.STATE_SUCCEEDED]
    assert notes == []


def test_a_crawl_that_is_gone_after_a_restart_ends_the_watching() -> None:
    with CrawlerStandin(RUNNING) as before, CrawlerClient(before.address) as client:
        changes = client.watch_crawl("collect-1")
        with closing(changes):  # type: ignore[type-var]
            next(changes)
            before.__exit__()
            with CrawlerStandin(port=before.port), pytest.raises(errors.UnknownCrawl):
                next(changes)


# -- looking --------------------------------------------------------------------------------------


def test_the_list_is_a_table_or_an_object_a_line(server: str) -> None:
    table = emojinet(server, "crawl", "list").stdout.decode().splitlines()
    objects = lines(emojinet(server, "crawl", "list", "--json"))

    assert table[0].split() == ["name", "state", "source", "posts", "kept", "pictures", "started"]
    assert table[2].split()[:7] == [
        "collect-1", "running", "import", "/posts.csv", "1,000", "250", "240"
    ]  # fmt: skip
    assert [(line["name"], line["state"]) for line in objects] == [
        ("rank-1", "succeeded"),
        ("collect-1", "running"),
        ("collect-1", "running"),
        ("collect-1", "succeeded"),
    ]


def test_where_there_is_no_crawl_people_read_how_to_start_one() -> None:
    with CrawlerStandin() as standin:
        done = emojinet(standin.address, "crawl", "list")
        as_json = emojinet(standin.address, "crawl", "list", "--json")

    assert b"emojinet crawl start --help" in done.stdout
    assert (as_json.stdout, as_json.returncode) == (b"", 0)


def test_a_ranking_shows_its_most_used_emoji_by_name(server: str) -> None:
    shown = emojinet(server, "crawl", "show", "rank-1", "--top", "2").stdout.decode()

    assert "/posts.csv" in shown
    assert "took 1 min" in shown
    assert "face with tears of joy  1,000,000" in shown
    assert "pizza" in shown
    assert "mailbox" not in shown
    assert "3 emoji in all" in shown


def test_the_skew_of_use_can_be_plotted(server: str, tmp_path: Path) -> None:
    done = emojinet(server, "crawl", "show", "rank-1", "--plot", tmp_path / "skew.png", "--json")

    assert lines(done)[0]["vocabulary"][1] == {"emoji": "🍕", "count": 4_000}
    assert (tmp_path / "skew.png").read_bytes().startswith(b"\x89PNG")


def test_a_vocabulary_can_be_taken_along(server: str, tmp_path: Path) -> None:
    for name in ("v.json", "v.csv"):
        done = emojinet(server, "crawl", "vocabulary", "rank-1", "--output", tmp_path / name)
        assert (done.returncode, done.stdout) == (0, b"")
    table = emojinet(server, "crawl", "vocabulary", "rank-1").stdout.decode()
    as_json = emojinet(server, "crawl", "vocabulary", "rank-1", "--json").stdout

    read = Vocabulary.from_json((tmp_path / "v.json").read_bytes())
    assert tuple(zip(read.emoji, read.counts, strict=True)) == VOCABULARY
    assert as_json == (tmp_path / "v.json").read_bytes()
    assert (tmp_path / "v.csv").read_text().splitlines()[:2] == [
        "rank,emoji,name,count",
        "1,😂,face with tears of joy,1000000",
    ]
    assert table.splitlines()[2].split() == ["2", "🍕", "pizza", "4,000"]


def test_cancelling_says_where_the_crawl_stands(server: str) -> None:
    assert emojinet(server, "crawl", "cancel", "collect-1").stdout == b"collect-1 cancelled\n"
    (line,) = lines(emojinet(server, "crawl", "cancel", "collect-1", "--json"))
    assert line["state"] == "cancelled"


# -- going wrong ----------------------------------------------------------------------------------


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    wild = crawl(name="collect-1", activity="\x1b[31m[bold]x\n\x07")
    with CrawlerStandin(wild, SUCCEEDED) as standin:
        watched = emojinet(standin.address, "crawl", "watch", "collect-1").stdout
    with CrawlerStandin(wild) as standin:
        shown = emojinet(standin.address, "crawl", "show", "collect-1").stdout

    for out in (watched, shown):
        assert b"\\x1b[31m[bold]x\\n\\x07" in out
        assert b"\x1b" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", "collect-1"],
        ["list"],
        ["show", "x"],
        ["cancel", "x"],
        ["vocabulary", "x"],
        ["rank", "import", "/x"],
        ["start", "bluesky", "--watch"],
    ],
)
def test_a_server_that_is_not_there_is_told_with_how_to_start_one(arguments: list[str]) -> None:
    done = emojinet("127.0.0.1:1", "crawl", *arguments)

    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "python -m services.crawler" in line
    assert "127.0.0.1:1" in line


@pytest.mark.parametrize("command", ["watch", "show", "vocabulary"])
def test_a_crawl_that_nobody_knows_is_told_in_one_line(command: str, server: str) -> None:
    done = emojinet(server, "crawl", command, "collect-9")

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"emojinet: There is no collect-9.\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["start", "import"], "PATH"),
        (["start", "import", "x", "--column", "text"], "text=caption"),
        (["start", "import", "x", "--for", "1y"], "60s, 5m, 1h or 2d"),
        (["start", "import", "x", "--for", "9999999999999d"], "60s, 5m, 1h or 2d"),
        (["start", "import", "x", "--per-emoji", "0"], "--per-emoji"),
        (["start", "instagram-v1", "--base-url", "http://x"], "--token-file"),
        (["start", "mastodon"], "mastodon"),
        (["rank", "import", "x", "--vocabulary", "y"], "--vocabulary"),
        (["vocabulary", "x", "--output", "v.txt"], ".csv"),
        (["watch"], "NAME"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crawl", *arguments])

    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert named in line


def test_what_is_no_ranking_has_no_vocabulary_to_write(server: str, tmp_path: Path) -> None:
    output = tmp_path / "v.csv"
    done = emojinet(server, "crawl", "vocabulary", "collect-1", "--output", output)
    plotted = emojinet(server, "crawl", "show", "collect-1", "--plot", output)

    assert done.returncode == plotted.returncode == 2
    assert done.stderr == plotted.stderr
    assert b"collect-1 (succeeded) has no vocabulary" in done.stderr
    assert not output.exists()


# -- without a service ----------------------------------------------------------------------------


def test_checking_is_left_to_the_services_own_program_as_it_is_said(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n")
    python.chmod(0o755)
    arguments = ["import", "a b.csv", "--for", "60s", "--record=x", "-h", "--", "--help"]
    script = (
        f"import sys; from clients.cli import main; sys.executable = {str(python)!r}; "
        f"main(['crawl', 'check', *{arguments!r}])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=clean())

    assert done.returncode == 7
    assert done.stdout.decode().startswith("<-c><")
    assert done.stdout.decode().endswith(
        "".join(f"<{argument}>" for argument in ["check", *arguments])
    )


def test_a_missing_package_is_told_with_the_extra_it_comes_with(tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('no', name=__name__)")

    done = emojinet("", "crawl", "check", "bluesky", path=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "emojinet: this needs the package aiohttp: pip install 'emojinet[crawler]'"
    ]


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([verb, *more] for verb in ("rank", "start")
          for more in ([], ["import"], ["instagram-v1"], ["bluesky"])),
        *([verb] for verb in ("check", "watch", "list", "show", "cancel", "vocabulary")),
    ],
)  # fmt: skip
def test_every_command_explains_itself(command: list[str]) -> None:
    done = emojinet("", "crawl", *command, "--help")

    assert done.returncode == 0
    usage, prose = done.stdout.decode().split("\n", 2)[1:]
    assert " ".join(["Usage: emojinet crawl", *command]) in usage
    assert prose.strip()[0].isupper()
