"""What a load did: to those who called, and to the tool itself.

Latency counts from the moment a call was due, so that a tool or a server that falls behind cannot
make itself look better. A refusal is an answer that came in time and says no: RESOURCE_EXHAUSTED,
or DEADLINE_EXCEEDED from the server before the deadline. What is neither good, nor refused, nor
cancelled by us has failed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

from rich.console import Console
from rich.table import Table

from clients.options import needs

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
LATENCIES = ("p50", "p90", "p99")  # over time
MAX_BINS = 40
# Past these the figures say as much of the tool as of the server.
LATE_SECONDS = 0.02
BUSY_SHARE = 0.8


class Kind(StrEnum):
    """What became of a call."""

    GOOD = "good"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    THROTTLED = "throttled"  # kept back, since the server refuses most
    UNSENT = "unsent"  # the tool came to it after its deadline


class Outcome(NamedTuple):
    """One call. Times in seconds; `latency` and `lag` from when it was due."""

    at: float
    lag: float
    latency: float
    kind: Kind
    why: str  # code and reason, empty for good


class Report:
    """The outcomes of a load, in figures."""

    def __init__(self, outcomes: Iterable[Outcome], cpu_seconds: float, wall_seconds: float):
        self.outcomes = sorted(outcomes)
        self.seconds = max(self.outcomes[-1].at, 1e-3)  # in which the calls were due
        self.width = max(1, math.ceil(self.seconds / MAX_BINS))  # of a bin of the series, seconds
        self.cpu_seconds = cpu_seconds
        self.wall_seconds = wall_seconds

    def count(self, kind: Kind) -> int:
        return sum(outcome.kind is kind for outcome in self.outcomes)

    def latencies(self, kind: Kind) -> list[float]:
        """In ascending order."""
        return sorted(outcome.latency for outcome in self.outcomes if outcome.kind is kind)

    def figures(self) -> dict[str, Any]:
        """Everything measured, as for JSON."""
        counts = {kind.value: self.count(kind) for kind in Kind}
        offered = len(self.outcomes)
        sent = offered - counts[Kind.UNSENT] - counts[Kind.THROTTLED]
        lags = sorted(outcome.lag for outcome in self.outcomes)
        return {
            "seconds": round(self.seconds, 3),
            "offered": offered,
            "offered_per_second": round(offered / self.seconds, 3),
            "sent": sent,
            **counts,
            "goodput_per_second": round(counts[Kind.GOOD] / self.seconds, 3),
            "why": dict(Counter(o.why for o in self.outcomes if o.why).most_common()),
            "latency_seconds": {
                kind.value: percentiles(self.latencies(kind)) for kind in (Kind.GOOD, Kind.REFUSED)
            },
            "tool": {
                "lag_seconds": percentiles(lags),
                "cpu_share": round(self.cpu_seconds / self.wall_seconds, 4),
                "cpu_seconds_per_call": round(self.cpu_seconds / max(1, sent), 6),
                "warning": self.warning(),
            },
            "series": self.series(),
        }

    def warning(self) -> str:
        """Why these figures say as much of the tool as of the server; empty if they do not."""
        unsent = self.count(Kind.UNSENT)
        if unsent:
            return f"this tool never came to {unsent} calls: it or its machine is too slow"
        late = percentiles(sorted(outcome.lag for outcome in self.outcomes))["p99"]
        if late > LATE_SECONDS:
            return f"this tool sent 1 % of the calls more than {late * 1e3:.0f} ms late"
        if self.cpu_seconds > BUSY_SHARE * self.wall_seconds:
            return "this tool used nearly all of the one core that it can use"
        return ""

    def series(self) -> list[dict[str, float]]:
        """Calls a second over time, by when they were due, and the latency of the good ones."""
        bins: dict[int, list[Outcome]] = {n: [] for n in range(int(self.seconds // self.width) + 1)}
        for outcome in self.outcomes:
            bins[int(outcome.at // self.width)].append(outcome)
        return [
            {"second": n * self.width, **_over(self.width, outcomes)}
            for n, outcomes in bins.items()
        ]

    def print(self, console: Console) -> None:
        """Tables for people."""
        figures = self.figures()
        tool = figures["tool"]
        seen = ["offered", *(kind for kind in Kind if figures[kind] or kind is Kind.GOOD)]
        counts = {name: f"{figures[name]:,}" for name in seen}
        console.print(_table([counts | {"good/s": f"{figures['goodput_per_second']:,.1f}"}]))
        for why, number in figures["why"].items():
            console.print(f"{number:>9,}  {why}", highlight=False)
        latency = figures["latency_seconds"].items()
        console.print(_table({"ms": kind, **_milliseconds(row)} for kind, row in latency if row))
        console.print(_table(_series_row(row, seen) for row in figures["series"]))
        late = _milliseconds(tool["lag_seconds"])["p99"]
        each = tool["cpu_seconds_per_call"] * 1e3
        console.print(
            f"This tool sent {late} ms late at p99, and used {tool['cpu_share']:.0%} of a core, "
            f"{each:.2f} ms a call.",
            highlight=False,
        )
        if tool["warning"]:
            console.print(f"Warning: {tool['warning']}.", style="bold red", highlight=False)

    def draw(self, out: BinaryIO) -> None:
        """A PNG of rates and latency over time."""
        with needs("report"):
            from matplotlib.figure import Figure
        series = self.series()
        edges = [row["second"] for row in series] + [series[-1]["second"] + self.width]
        figure = Figure(figsize=(9, 6), layout="constrained")
        rates, latency = figure.subplots(2, sharex=True)
        for name in ("offered", *Kind):
            if any(row[name] for row in series):
                rates.stairs([row[name] for row in series], edges, label=str(name))
        for name in LATENCIES:
            latency.stairs([row.get(name, math.nan) for row in series], edges, label=name)
        rates.set(ylabel="calls a second", ylim=(0, None))
        latency.set(ylabel="latency of good calls, seconds", xlabel="second", ylim=(0, None))
        for axes in (rates, latency):
            axes.legend(loc="upper left")
            axes.grid(alpha=0.3)
        figure.savefig(out, format="png")


def percentiles(ascending: Sequence[float]) -> dict[str, float]:
    """By nearest rank, so each is a value that was measured; empty where there is none.

    >>> percentiles([0.001 * n for n in range(1, 101)])
    {'p50': 0.05, 'p90': 0.09, 'p99': 0.099, 'p99.9': 0.1, 'max': 0.1}
    """
    if not ascending:
        return {}
    return {
        name: round(ascending[math.ceil(share * len(ascending)) - 1], 6)
        for name, share in PERCENTILES.items()
    }


def _over(seconds: float, outcomes: Sequence[Outcome]) -> dict[str, float]:
    kinds = Counter(outcome.kind for outcome in outcomes)
    good = percentiles(sorted(o.latency for o in outcomes if o.kind is Kind.GOOD))
    return {
        "offered": len(outcomes) / seconds,
        **{kind.value: kinds[kind] / seconds for kind in Kind},
        **{name: good[name] for name in LATENCIES if good},
    }


def _series_row(row: dict[str, float], seen: Iterable[str]) -> dict[str, str]:
    rates = {name: f"{row[name]:,.1f}" for name in seen}
    latency = {name: row[name] for name in LATENCIES if name in row}
    return {"second": f"{row['second']:.0f}", **rates, **_milliseconds(latency)}


def _milliseconds(latency: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{seconds * 1e3:,.1f}" for name, seconds in latency.items()}


def _table(rows: Iterable[dict[str, str]]) -> Table:
    rows = list(rows)
    columns = max(rows, key=len, default={})
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(*(row.get(name, "") for name in columns))
    return table
