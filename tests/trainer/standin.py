"""A training that learns nothing: a real process that goes through its steps as its data set says.

`python -m tests.trainer.standin OUTPUT DATASET`; `script.json` in the data set's folder says what
happens. It keeps the step that it goes on from, and counts how often it was started.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors
from services.trainer.events import Events

BATCH = 8


def command(run: pb.Run, dataset: Path, data: Path) -> Sequence[str]:
    """As `services.trainer.runs.command`."""
    return [sys.executable, "-m", "tests.trainer.standin", run.uri, str(dataset)]


def script(data: Path, name: str = "first", **said: Any) -> Path:
    """Writes a data set whose training does this."""
    folder = data / "datasets" / name
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / "script.tmp"
    staged.write_text(json.dumps(said))
    staged.replace(folder / "script.json")
    return folder


def starts(folder: Path | str) -> list[int]:
    """The processes that have worked in a run's folder."""
    path = Path(folder) / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def main(output: Path, dataset: Path) -> None:
    with (output / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    said = json.loads((dataset / "script.json").read_text())
    if said.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events, kept = Events(output), output / "step"
    first = step = int(kept.read_text()) if kept.exists() else 0
    events.activity("learning")
    while step < said["steps"]:
        step += 1
        events.progress(
            step=step,
            steps=said["steps"],
            images=step * BATCH,
            loss=1 / step,
            images_per_second=100.0,
            data_wait_share=0.25,
            remaining_seconds=said["steps"] - step,
            seconds={"compute": step * 0.5, "data_wait": step * 0.25},
        )
        if step == said.get("stuck"):
            os.kill(os.getpid(), signal.SIGKILL)
        staged = output / "step.tmp"
        staged.write_text(f"{step}")
        staged.replace(kept)
        if said.get("mortal") and step == first + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(said.get("seconds", 0.01))
    if "exits" in said:
        sys.exit(said["exits"])
    if failure := said.get("fails"):
        events.failed(getattr(errors, failure)("So it is.", path="/x"))
        sys.exit(1)
    events.metrics("test", {"top1": [0.5, 0.4, 0.6], "prior_top1": [0.1, 0.1, 0.1]})
    events.done()
    time.sleep(said.get("lingers", 0))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
