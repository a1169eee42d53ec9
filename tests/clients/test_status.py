"""`emojinet status` of services started by hand; more in `tests/system/test_up.py`."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from clients.cli import main
from clients.status import ANSWER_SECONDS
from emojinet.v1 import state_pb2 as states
from services.shared import errors
from tests.clients.crawler_standin import CrawlerStandin, crawl
from tests.clients.standin import MODEL, Context, Standin, fail, hold
from tests.clients.trainer_standin import TrainerStandin, model, run

NOBODY = "127.0.0.1:1"
SERVED = f"{MODEL.name}@{MODEL.version}"


def status(
    capsys: pytest.CaptureFixture[str], data: Path, *flags: str, **addresses: str
) -> tuple[int, str]:
    """Its exit status and what it said; of services without an address, that nobody is there."""
    named = {name: addresses.get(name, NOBODY) for name in ("server", "crawler", "trainer")}
    given = [f"--{name}={address}" for name, address in named.items()]
    with pytest.raises(SystemExit) as ended:
        main(["status", f"--data={data}", *given, *flags])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().out


def objects(told: str) -> dict[str, dict[str, Any]]:
    return {row["service"]: row for row in map(json.loads, told.splitlines())}


def test_where_nothing_runs_it_says_how_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, table = status(capsys, tmp_path)
    _, lines = status(capsys, tmp_path, "--json")

    assert code == 1
    rows = [line.split() for line in table.splitlines()]
    assert ["inference", "not", "there", NOBODY, "nobody", "answers"] in rows
    assert objects(lines)["crawler"] == {
        "service": "crawler",
        "state": "not there",
        "ready": False,
        "address": NOBODY,
        "pid": None,
        "since": None,
        "log": None,
        "doing": "nobody answers",
    }


def test_services_that_were_started_by_hand_say_what_they_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run(states.STATE_SUCCEEDED, "train-0", judged=True)
    with (
        Standin() as server,
        CrawlerStandin(crawl(), crawl(states.STATE_SUCCEEDED, "rank-1")) as crawler,
        TrainerStandin(run(), ended, models=(model(live=False),)) as trainer,
    ):
        addresses = {
            "server": server.address, "crawler": crawler.address, "trainer": trainer.address
        }  # fmt: skip
        _, table = status(capsys, tmp_path, **addresses)
        _, lines = status(capsys, tmp_path, "--json", **addresses)

    said = " ".join(table.split())
    assert f"serves {SERVED} (timed:0ms, exact)" in said
    assert "collect-1: reading posts, 240 pictures" in said
    assert "train-1: learning, step 120 of 500" in said
    assert "rank-1" not in said
    assert "train-0" not in said
    by_name = objects(lines)
    assert by_name["inference"]["model"]["backend"] == "timed:0ms"
    assert [c["name"] for c in by_name["crawler"]["crawls"]] == ["collect-1"]
    assert [r["name"] for r in by_name["trainer"]["runs"]] == ["train-1"]
    assert by_name["trainer"]["live"] is None
    assert {row["state"] for name, row in by_name.items() if name != "web"} == {"ready"}


@pytest.mark.parametrize("live", ["quick", MODEL.name])
def test_a_model_that_is_live_and_not_served_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], live: str
) -> None:
    models = (model("other", live=False), model(live, MODEL.version))
    with Standin() as server, TrainerStandin(models=models) as trainer:
        _, table = status(capsys, tmp_path, server=server.address, trainer=trainer.address)

    told = f"{live}@{MODEL.version} is live in the registry, and {SERVED} is served"
    assert (told in " ".join(table.split())) == (live != MODEL.name)


def test_a_service_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with CrawlerStandin() as crawler, HangingTrainer() as trainer:
        began = time.monotonic()
        code, table = status(capsys, tmp_path, crawler=crawler.address, trainer=trainer.address)

    assert code == 1
    assert time.monotonic() - began < ANSWER_SECONDS + 2
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert rows["crawler"][1:3] == ["ready", crawler.address]
    assert rows["trainer"][1:3] == ["silent", trainer.address]


class HangingTrainer(TrainerStandin):
    def ListRuns(self, request: Any, context: Context) -> Any:
        hold(context)


def test_what_a_server_says_cannot_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Standin):
        def GetServedModel(self, request: Any, context: Context) -> Any:
            fail(context, errors.NoModel("[red]None\x1b[2J\nyet."))

    hostile = crawl(name="[bold]\x1b]0;x\x07", activity=":smile:\x1b[31m")
    with Broken() as server, CrawlerStandin(hostile) as crawler:
        _, table = status(capsys, tmp_path, server=server.address, crawler=crawler.address)
        _, lines = status(capsys, tmp_path, "--json", crawler=crawler.address)

    assert "inference starting" in " ".join(table.split())
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "[red]None" in table
    assert "[bold]" in table
    assert ":smile:" in table
    assert objects(lines)["crawler"]["crawls"][0]["name"] == hostile.name
