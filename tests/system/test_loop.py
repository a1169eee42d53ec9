"""`make loop`, in short: the whole program, against a smaller network."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.loop.programs import Ended, Programs

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
SMALL = ("--posts=1200", "--emoji=30", "--vocabulary=20", "--edge-px=224", "--steps=60")


def command(data: Path) -> list[str]:
    return [sys.executable, "-m", "tests.loop", f"--data={data}", *SMALL]


def loop(data: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(data), cwd=ROOT, capture_output=True, text=True, check=False)


def left(data: Path) -> list[str]:
    """Processes that work on the folder."""
    every = (" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
    return [line for line in every if str(data) in line]


def test_from_posts_to_a_better_model_that_is_served_and_no_call_fails(tmp_path: Path) -> None:
    data = tmp_path / "loop"
    done = loop(data)
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    found = json.loads(last.removeprefix("RESULT "))
    assert found["failed_calls"] == 0
    assert found["top5_trained"] > found["top5_prior"]
    assert found["top5_trained"] > found["top5_starter"]
    assert 0 < found["kept"] < found["listed"]
    assert found["seconds"] > 0
    assert json.loads((data / "result.json").read_text()) == found
    for name in ("vocabulary.json", "datasets/loop/manifest.parquet", "registry/live.json"):
        assert (data / name).stat().st_size > 0
    assert list(data.glob("runs/*/report.html"))
    summary = (data / "summary.txt").read_text()
    assert "Right among the first five" in summary
    assert any("Right among the first five" in line for line in told)
    assert not left(data)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_ends_it_ends_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "loop" / "logs" / "inference.log"
    pipe = subprocess.PIPE
    with subprocess.Popen(command(log.parents[1]), cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        wait_until(lambda: log.exists() and log.stat().st_size > 0)  # all three are started
        assert left(log.parents[1])
        process.send_signal(number)
        _, complaints = process.communicate(timeout=60)
    assert not complaints
    assert process.returncode in (128 + number, -number)
    wait_until(lambda: not left(log.parents[1]))


def test_a_service_that_dies_is_told_with_the_last_that_it_said(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        crawler = programs.start("crawler")
        trainer = programs.start("trainer")
        programs.wait_until_ready()
        programs.check()
        crawler.process.kill()
        with pytest.raises(
            Ended, match=r"crawler ended with -9; .*crawler.log ends with: .*listen"
        ):
            programs.check(5.0)
        assert trainer.process.poll() is None
    assert not left(tmp_path)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = loop(tmp_path)
    assert done.returncode == 1
    assert "has files that are of no loop" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = loop(tmp_path / "file" / "loop")
    assert done.returncode == 1
    assert done.stderr.startswith("loop: ")
    assert "Traceback" not in done.stderr


def wait_until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
