"""The page of `prove-scaling`: a table of every signal, and pictures of the runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.prove.scaling_figures import Run, waits
from tests.prove.simulated import DEMAND, OBJECTIVE_SECONDS
from tests.prove.stretches import ideal, rates

COLUMNS = (
    "settle_periods",
    "direction_changes_at_constant_load",
    "direction_changes",
    "replica_hours_over_ideal",
    "late_share",
    "refused_share",
    "failed_calls",
    "new_replica_share",
)
AIMS = {
    "settle_periods": "at most 5",
    "direction_changes_at_constant_load": "0",
    "replica_hours_over_ideal": "at most 0.15",
    "failed_calls": "0",
    "new_replica_share": "at least 0.5",
}


def rows(runs: Sequence[Run], found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each signal, ours first."""
    each = {f"{runs[0].signal}, live": found, **found["alternatives"]}
    return [
        [name, *(_cell(figures.get(column)) for column in COLUMNS)]
        for name, figures in each.items()
    ]


def show(runs: Sequence[Run], found: Mapping[str, Any]) -> None:
    """Prints the table."""
    table = Table("signal", *(column.replace("_", " ") for column in COLUMNS))
    for row in rows(runs, found):
        table.add_row(*row)
    Console(width=150).print(table)


def as_markdown(
    runs: Sequence[Run], found: Mapping[str, Any], facts: Mapping[str, str], picture: str
) -> str:
    """The whole page."""
    heading = ["signal", *(column.replace("_", " ") for column in COLUMNS)]
    table = [heading, ["---"] * len(heading), *rows(runs, found)]
    stretches = ", ".join(
        f"{name} {seconds} s for {first:g}" + (f" to {last:g}" if last != first else "")
        for name, seconds, first, last in runs[0].stretches
    )
    aims = ", ".join(f"{name.replace('_', ' ')} {aim}" for name, aim in AIMS.items())
    return "\n".join(
        [
            "# Scaling",
            "",
            "`make prove-scaling`: see the docstring of `tests/prove/scaling.py`.",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            f"- load, in seconds of control and replicas' worth of work: {stretches}",
            f"- aims, of ours: {aims}",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            "Simulated: an hour, at most 50 replicas (`tests/prove/simulated.py`). Late is the "
            "share of periods whose mean wait was over the objective; simulated, of images that "
            "waited for longer. Replicas that only down-stabilisation holds count neither as used "
            "nor as ideal.",
            "",
            f"![the fleet over time]({picture})",
            "",
            f"    RESULT {json.dumps(found)}",
            "",
        ]
    )


def draw(runs: Sequence[Run], path: Path) -> None:
    """Of each run the fleet and the wait, one above the other."""
    figure = Figure((11, 5 * len(runs)), layout="constrained")
    axes = figure.subplots(2 * len(runs), 1, sharex=True, height_ratios=[3, 2] * len(runs))
    for n, run in enumerate(runs):
        _fleet(axes[2 * n], run)
        _waits(axes[2 * n + 1], run)
    axes[-1].set_xlabel("seconds of control")
    figure.savefig(path, dpi=80)


def _fleet(axes: Axes, run: Run) -> None:
    needed = [ideal(rate) for rate in rates(run.stretches)]
    times = [sync.at for sync in run.syncs]
    axes.fill_between(range(len(needed)), needed, step="post", color="0.88", label="ideal")
    axes.step(times, [s.replicas for s in run.syncs], where="post", label="replicas")
    axes.step(times, [s.ready for s in run.syncs], where="post", ls=":", label="ready")
    if asked := [
        (s.at, s.values["emojinet_demand"]) for s in run.syncs if "emojinet_demand" in s.values
    ]:
        above = axes.twinx()
        above.plot(*zip(*asked, strict=True), color="tab:green", lw=0.7)
        above.axhline(DEMAND, color="tab:green", lw=0.5, ls="--")
        above.set(ylabel="demand", ylim=(0, 3))
    axes.set(
        ylabel="replicas", ylim=(0, None), title=f"{run.signal}, clocks divided by {run.factor:g}"
    )
    axes.legend(loc="upper left", ncols=3, frameon=False)


def _waits(axes: Axes, run: Run) -> None:
    axes.step(*zip(*waits(run), strict=True), where="post", color="tab:red")
    axes.axhline(OBJECTIVE_SECONDS, color="0.4", lw=0.5, ls="--")
    axes.set(ylabel="mean wait, s", yscale="log", ylim=(1e-3, 1.2))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
