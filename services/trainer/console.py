"""A run as whoever started it by hand sees it: a bar in a terminal, lines elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.trainer.events import NAME, Tail

LOOK_SECONDS = 0.25
LINE_SECONDS = 5.0  # between lines of progress, where nobody looks at a terminal


@contextmanager
def shown(folder: Path) -> Iterator[None]:
    """Shows on stdout what a run says in its folder meanwhile, and all that it has said before."""
    tail, console, ended = Tail(folder / NAME), Console(highlight=False), threading.Event()
    tail.new()  # of earlier processes
    show = _Bar(console) if console.is_terminal else _Lines(console)

    def follow() -> None:
        last = False
        while not last:
            last = ended.wait(LOOK_SECONDS)
            for event in tail.new():
                show.tell(event)

    follower = threading.Thread(target=follow, daemon=True)
    with show:
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


def _measured(event: dict[str, Any]) -> str:
    rate = f"{event['images_per_second']:,.1f} images/s"
    if not event["images"]:  # nothing is learned: an atlas looks at pictures
        return rate
    return f"loss {event['loss']:.3f}, {rate}, {event['data_wait_share']:.0%} waiting for data"


def _judged(event: dict[str, Any]) -> str:
    """The metrics that a line has room for."""
    named = ("top1", "top5", "macro_recall")
    values = (f"{n} {event['metrics'][n][0]:.3f}" for n in named if n in event["metrics"])
    return f"{event['split']}: {', '.join(values)}"


class _Lines:
    """Each thing said is a line."""

    def __init__(self, console: Console) -> None:
        self._console, self._printed = console, 0.0

    def tell(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "activity" | "note":
                self._say(event["text"])
            case "metrics":
                self._say(_judged(event))
            case "progress" if self._is_time(event):
                left = f"{event['remaining_seconds']:.0f} s left"
                self._say(f"step {event['step']} of {event['steps']}, {_measured(event)}, {left}")

    def _is_time(self, event: dict[str, Any]) -> bool:
        if event["step"] < event["steps"] and time.monotonic() - self._printed < LINE_SECONDS:
            return False
        self._printed = time.monotonic()
        return True

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, soft_wrap=True)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Bar:
    """Steps are a bar, what else is said stands above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[measured]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=None, measured="")

    def tell(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "activity":
                self._progress.update(self._task, description=escape(event["text"]))
            case "note":
                self._progress.console.print(event["text"], markup=False)
            case "metrics":
                self._progress.console.print(_judged(event), markup=False)
            case "progress":
                self._progress.update(
                    self._task,
                    completed=event["step"],
                    total=event["steps"],
                    measured=_measured(event),
                )

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
