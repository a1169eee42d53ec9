"""What is shown of each step while it happens, and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

STEPS = ("start", "rank", "collect", "freeze", "train", "publish")


class Steps:
    """The steps of the loop, one after the other."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        """Of the steps that are done."""
        self.now = ""
        """The step that goes on, or was the last."""

    @contextmanager
    def step(self, name: str, about: str) -> Iterator[None]:
        """Around what a step does."""
        self.now = name
        number = f"{STEPS.index(name) + 1} of {len(STEPS)}"
        heading = (f"{name[0].upper()}{name[1:]}", "bold cyan"), (f"  {number}", "dim")
        self.console.print()
        self.console.print(Text.assemble(*heading, f"  {about}"))
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began
        self.console.print(Text(f"done in {self.seconds[name]:.1f} s", style="green"))

    def say(self, text: str) -> None:
        """A line below the step."""
        self.console.print(Text(text), soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what is waited for; in a terminal, only for as long as that takes."""
        if self.console.is_terminal:
            with self.console.status(what):
                yield
        else:
            self.say(what)
            yield
