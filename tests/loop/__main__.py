"""`make loop`: from posts to a model that answers, against the stand-in social network.

Ranks emoji, collects pictures, freezes a data set, trains, publishes, and swaps the model under a
client that keeps asking; every program is started here, and ended. Everything is in `data/loop`,
which is cleared at the start. Prints a summary, and as the last line RESULT with the figures as
JSON. Exits with 1 where a step failed, not where a figure is poor.
"""

import json
import shutil
import signal
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from services.shared import harness
from services.shared.errors import EmojinetError
from tests.loop import summary
from tests.loop.programs import Ended
from tests.loop.steps import Steps
from tests.loop.story import Scale, Told, tell

DATA = Path("data/loop")
MARK = ".loop"  # of a folder that is ours to clear
COLUMNS = 100  # of the summary on disk
SKEW = 0.5  # exponent of the emoji's use
# Splits share no author and no look-alike: with many of both, hardly a picture could be held out.
POSTS_OF_AUTHOR, DUPLICATES = 4, 0.05
TEST_SHARE = 0.2


def prepared(folder: Path) -> None:
    """Clears the folder of an earlier loop, and keeps others from it.

    Raises:
        EmojinetError: another loop is at work there, or it cannot be written.
        OSError: the same.
    """
    if folder.exists() and not (folder / MARK).is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} has files that are of no loop: name another --data")
    harness.lock(folder / MARK, "loop")
    for path in folder.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def kept(told: Told, folder: Path, seconds: float) -> dict[str, object]:
    """The figures, which are on disk, with the summary and the pictures that it names."""
    pictures = folder / "held-out"
    pictures.mkdir()
    for number, sample in enumerate(told.shown, 1):
        (pictures / f"{number}.jpg").write_bytes(sample.jpeg)
    found = summary.figures(told, seconds)
    (folder / "result.json").write_text(json.dumps(found) + "\n")
    page = StringIO()
    Console(file=page, width=COLUMNS).print(summary.view(told, folder, seconds))
    lines = (f"{line.rstrip()}\n" for line in page.getvalue().splitlines())
    (folder / "summary.txt").write_text("".join(lines), encoding="utf-8")
    return found


def ended(number: int, _: object) -> NoReturn:
    """Ends everything by leaving every context; a second signal while it does ends at once."""
    raise SystemExit(128 + number)


def main(
    data: Annotated[Path, typer.Option(help="A folder for it alone: it is cleared.")] = DATA,
    posts: Annotated[int, typer.Option(min=100, help="Of the network.")] = 5000,
    emoji: Annotated[int, typer.Option(min=2, help="In use in the network.")] = 80,
    vocabulary: Annotated[int, typer.Option(min=2, help="Of these, learned.")] = 60,
    edge_px: Annotated[int, typer.Option(min=64, help="Longer edge of a picture.")] = 320,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 100,
    seed: int = 7,
) -> None:
    """The whole story, with a summary at its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    began = time.monotonic()
    scale = Scale(
        seed=seed,
        posts=posts,
        emoji=emoji,
        vocabulary=vocabulary,
        skew=SKEW,
        authors=posts // POSTS_OF_AUTHOR,
        duplicates=DUPLICATES,
        edge_px=edge_px,
        steps=steps,
        test_share=TEST_SHARE,
    )
    console = Console()
    shown = Steps(console)
    try:
        prepared(data)
        told = tell(data, scale, shown)
        seconds = time.monotonic() - began
        found = kept(told, data, seconds)
    except (EmojinetError, Ended, OSError) as error:
        print(f"loop: {shown.now + ': ' if shown.now else ''}{error}", file=sys.stderr)
        raise SystemExit(1) from None
    console.print()
    console.print(summary.view(told, data, seconds))
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
