"""The standings of `bench-serving` as tables and as a picture."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.bench.standings import PHASES, Standing, share_ms

Rows = list[list[str]]


def cell(value: float, digits: int = 1) -> str:
    """A figure, or nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def closed_rows(standings: Mapping[str, Standing]) -> Iterator[list[str]]:
    """Closed loops, a line each."""
    for name, standing in standings.items():
        levels = {f"{level}": ones for level, ones in standing.closed.items()}
        if standing.large:
            levels["32, large"] = standing.large
        for level, ones in levels.items():
            rates = [one.rate for one in ones]
            latencies = sorted(s for one in ones for s in one.latencies)
            yield [
                name,
                level,
                *(f"{f(rates):.1f}" for f in (statistics.median, min, max)),
                *(f"{share_ms(latencies, share):.1f}" for share in (0.5, 0.99)),
                f"{statistics.median(one.server_ms for one in ones):.2f}",
                f"{statistics.median(one.tool_ms for one in ones):.2f}",
                f"{statistics.median(one.memory_mb for one in ones):.0f}",
            ]


CLOSED_COLUMNS = [
    *("server", "in flight", "images/s", "least", "most", "p50, ms", "p99, ms"),
    *("its CPU, ms", "callers' CPU, ms", "MB"),
]


def phase_rows(standings: Mapping[str, Standing]) -> Iterator[list[str]]:
    """Where the time of our answers went, means."""
    for name, standing in standings.items():
        for level, ones in standing.closed.items():
            if ones[0].phases_ms:
                means = (statistics.median(one.phases_ms[p] for one in ones) for p in PHASES)
                yield [name, str(level), *(f"{mean:.1f}" for mean in means)]


def open_rows(standings: Mapping[str, Standing]) -> Iterator[list[str]]:
    """Open loops, a line each."""
    for name, standing in standings.items():
        for what, ones in standing.opened.items():
            goods = [one.goodput for one in ones]
            latencies = sorted(s for one in ones for s in one.latencies)
            refusals = sorted(s for one in ones for s in one.refusals)
            yield [
                name,
                what,
                f"{statistics.median(one.offered for one in ones):.0f}",
                *(f"{f(goods):.1f}" for f in (statistics.median, min, max)),
                *(cell(share_ms(latencies, share)) for share in (0.5, 0.99)),
                *(cell(share_ms(refusals, share)) for share in (0.5, 0.99)),
                f"{statistics.median(one.recovery_seconds for one in ones):.2f}",
                cell(statistics.median(one.wasted_share for one in ones), 3),
            ]


OPEN_COLUMNS = [
    *("server", "offered", "calls/s", "good/s", "least", "most", "p50, ms", "p99, ms"),
    *("refused p50", "refused p99", "recovery, s", "wasted"),
]


def tables(standings: Mapping[str, Standing]) -> list[tuple[str, list[str], Rows]]:
    """Title, columns and rows of each."""
    phases = ["server", "in flight", *(f"{phase}, ms".replace("_", " ") for phase in PHASES)]
    return [
        ("Closed loops", CLOSED_COLUMNS, list(closed_rows(standings))),
        ("Where the time goes", phases, list(phase_rows(standings))),
        ("Open loops, deadlines of 1 s", OPEN_COLUMNS, list(open_rows(standings))),
    ]


def show(standings: Mapping[str, Standing], console: Console) -> None:
    """For people."""
    for title, columns, rows in tables(standings):
        table = Table(*columns, title=title, box=None, padding=(0, 1, 0, 0))
        for row in rows:
            table.add_row(*row)
        console.print(table)


def as_markdown(
    standings: Mapping[str, Standing], facts: Mapping[str, Any], result: Mapping[str, Any]
) -> str:
    """The record of one run."""
    lines = [
        "# Serving",
        "",
        "`make bench-serving`: see the docstring of `tests/bench/serving.py`.",
    ]
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for title, columns, rows in tables(standings):
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += [""]
    lines += ["## Figures", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in result.items()]
    return "\n".join([*lines, "", f"    RESULT {json.dumps(result)}", ""])


def draw(standings: Mapping[str, Standing], path: Path) -> None:
    """Goodput over offered load, both as multiples of each server's own capacity."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, standing in standings.items():
        points = []
        for what, ones in standing.opened.items():
            if what.endswith("x"):
                pairs = zip(ones, standing.capacities(), strict=True)
                kept = statistics.median(one.goodput / capacity for one, capacity in pairs)
                points.append((float(what[:-1]), kept))
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set(xscale="log", xlabel="offered, times capacity", ylabel="goodput, times capacity")
    axes.set(ylim=(0, 1.1), xticks=[0.5, 1, 2, 5, 10], xticklabels=["0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path)
