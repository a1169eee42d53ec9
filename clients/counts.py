"""How often each emoji was used, most used first: as rows, a table, JSON, and a plot."""

import csv
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import BinaryIO

from rich.table import Table

from clients.progress import columns, printable_text
from emojinet.v1 import crawler_service_pb2 as pb

COLUMNS = ("rank", "emoji", "name", "count")
NAMED_IN_PLOT = 8  # of the most and of the least used emoji


@cache
def _names() -> dict[str, str]:
    """Of the inventory; a plain install lacks what `services.shared.vocabulary` needs."""
    with (files("services.shared") / "inventory.tsv").open(encoding="utf-8") as file:
        return {row["emoji"]: row["name"] for row in csv.DictReader(file, delimiter="\t")}


def rows(counts: Iterable[pb.EmojiCount]) -> list[tuple[int, str, str, int]]:
    """In the order of `COLUMNS`."""
    return [
        (rank, count.emoji, _names().get(count.emoji, ""), count.count)
        for rank, count in enumerate(counts, start=1)
    ]


def table(counts: Iterable[pb.EmojiCount]) -> Table:
    """For a terminal."""
    shown = columns("rank>", "", "name", "count>")
    for rank, emoji, name, count in rows(counts):
        shown.add_row(f"{rank}", printable_text(emoji), name, f"{count:,}")
    return shown


def text(counts: Iterable[pb.EmojiCount]) -> str:
    """The JSON that `services.shared.vocabulary` reads."""
    entries = (json.dumps({"emoji": c.emoji, "count": c.count}, ensure_ascii=False) for c in counts)
    return "[\n" + ",\n".join(entries) + "\n]\n"


def draw(counts: Iterable[pb.EmojiCount], out: BinaryIO) -> None:
    """A PNG of how unequally emoji are used; by name, since plots' fonts lack them."""
    from matplotlib.figure import Figure

    every = rows(counts)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    axes.loglog([row[0] for row in every], [max(1, row[3]) for row in every], ".", markersize=4)
    least = every[NAMED_IN_PLOT:][-NAMED_IN_PLOT:]
    corners = ((0.98, 0.98, "top", every[:NAMED_IN_PLOT]), (0.02, 0.02, "bottom", least))
    for x, y, where, named in corners:
        lines = "\n".join(f"{rank}. {name}  {count:,}" for rank, _, name, count in named)
        axes.text(
            x, y, lines, transform=axes.transAxes, ha="right" if x > 0.5 else "left", va=where,
            fontsize=9,
        )  # fmt: skip
    axes.set(xlabel="rank", ylabel="uses")
    axes.grid(alpha=0.3)
    figure.savefig(out, format="png")
