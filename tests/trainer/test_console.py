"""What whoever starts a run by hand is shown."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from services.trainer.console import shown
from services.trainer.events import Events
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
events = Events(folder)
events.note("of an earlier process")
measured = dict(images=8, images_per_second=85.0, data_wait_share=0.25, remaining_seconds=9.0)
with shown(folder):
    events.activity("learning [bold]all[/]")
    for step in range(1, 5):
        events.progress(step=step, steps=4, loss=2.5, seconds={}, **measured)
    events.metrics("test", {"top1": [0.5, 0.4, 0.6], "ece": [0.1, 0.1, 0.1]})
    events.note("so it was")
    if sys.argv[2:]:
        raise SystemExit(3)
"""


def test_where_nobody_looks_there_are_lines_and_the_last_step_is_among_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), "fails"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "")
    told = [line[9:] for line in done.stdout.splitlines()]
    measured = "loss 2.500, 85.0 images/s, 25% waiting for data, 9 s left"
    assert told == [
        "learning [bold]all[/]",
        f"step 1 of 4, {measured}",
        f"step 4 of 4, {measured}",
        "test: top1 0.500",
        "so it was",
    ]


@pytest.mark.system
def test_in_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "140"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run")],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    ):  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # how a terminal says that its last process has left
            pass
        os.close(ours)
    for seen in ("learning [bold]all[/]", "━━━", "4/4", "25% waiting for data", "so it was"):
        assert seen in shown.decode()
    assert "of an earlier process" not in shown.decode()
