"""What came of the loop, for people and for programs."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clients.client import DEFAULT_TIMEOUT_SECONDS
from clients.progress import columns, printable_text, tally
from emojinet.v1 import trainer_service_pb2 as training
from services.shared.printable import printable
from tests.loop.story import Told

JUDGED = {  # the run's metric of each, and what each goes by
    "prior": ("prior_top5", "always says the most used"),
    "starter": ("starter_top5", "knows things, and no post"),
    "trained": ("top5", "has learned from the posts"),
}
FAILURES = 3  # of calls that are named


def figures(told: Told, seconds: float) -> dict[str, Any]:
    """What RESULT has: shares from 0 to 1."""
    top5 = {name: round(metric.value, 4) for name, metric in _top5(told).items()}
    took = [answer.seconds for answer in told.asker.answers]
    return {
        "seconds": round(seconds, 1),
        "listed": tally(told.crawl.funnel, "post"),
        "kept": tally(told.crawl.funnel, "post", "kept"),
        "stored": tally(told.crawl.funnel, "image", "stored"),
        "pictures": sum(told.dataset.samples.values()),
        "held_out": told.dataset.samples["test"],
        "emoji": told.model.emoji,
        **{f"top5_{name}": value for name, value in top5.items()},
        "calls": len(told.asker.answers),
        "failed_calls": len(told.asker.failed),
        "late_calls": sum(seconds > DEFAULT_TIMEOUT_SECONDS for seconds in took),
        "slowest_call_ms": round(max(took) * 1e3),
        "models": told.asker.models,
        "swap_seconds": round(told.swap_seconds, 1),
    }


def view(told: Told, folder: Path, seconds: float) -> RenderableType:
    """All that a person wants to know of it."""
    return Group(
        Text("Summary", style="bold cyan"),
        _facts(told, seconds),
        Text("\nRight among the first five, on what was held out", style="bold"),
        _judgement(told),
        Text("\nBefore and after the swap", style="bold"),
        _beside(told),
        Text("\nOn disk", style="bold"),
        _files(told, folder),
    )


def _facts(told: Told, seconds: float) -> Table:
    said, samples = figures(told, seconds), told.dataset.samples
    times = [answer.seconds * 1e3 for answer in told.asker.answers]
    took = ", ".join(f"{step} {spent:.0f}" for step, spent in told.seconds.items())
    facts = {
        "posts": f"{said['listed']:,} listed, {said['kept']:,} kept by the rules, "
        f"{said['stored']:,} pictures stored",
        "data set": f"{said['pictures']:,} pictures of {said['emoji']} emoji: "
        f"{samples['train']:,} to learn from, {samples['validation']:,} to calibrate by, "
        f"{samples['test']:,} held out",
        "client": f"asked {said['calls']:,} times meanwhile, {said['failed_calls']} failed; "
        f"median {statistics.median(times):.0f} ms, slowest {said['slowest_call_ms']:,} ms, "
        f"{said['late_calls']} over {DEFAULT_TIMEOUT_SECONDS:.0f} s",
        "answers of": f"{' → '.join(told.asker.models)}, swapped in {told.swap_seconds:.1f} s",
        "seconds": f"{seconds:.0f} in all: {took}",
    }
    table = columns("", "")
    for name, fact in facts.items():
        table.add_row(Text(name, style="dim"), printable_text(fact))
    for failure in told.asker.failed[:FAILURES]:
        table.add_row(Text("failed", style="red"), printable_text(failure.error))
    return table


def _judgement(told: Told) -> Table:
    table = columns("", "", "share>", "95 %>")
    for name, metric in _top5(told).items():
        style = "bold" if name == "trained" else ""
        table.add_row(
            Text(name, style=style),
            Text(JUDGED[name][1], style="dim"),
            Text(f"{metric.value:.1%}", style=style),
            f"{metric.low:.1%} to {metric.high:.1%}",
        )
    return table


def _top5(told: Told) -> dict[str, training.Metric]:
    of_test = {metric.name: metric for metric in told.run.metrics if metric.split == "test"}
    return {name: of_test[metric] for name, (metric, _) in JUDGED.items()}


def _beside(told: Told) -> Table:
    table = columns("held out", "posted with", "starter", "", "trained", "")
    for number, sample in enumerate(told.shown):
        cells: list[Text] = []
        for said in (told.before[number], told.after[number]):
            right = any(emoji in sample.emoji for emoji in said)
            cells += [_emoji(said), Text("✓" if right else "", style="green")]
        table.add_row(f"{number + 1}.jpg", _emoji(sample.emoji), *cells)
    return table


def _emoji(some: Sequence[str]) -> Text:
    return Text(printable(" ".join(some)), no_wrap=True)


def _files(told: Told, folder: Path) -> Table:
    run = told.run.uri
    files: dict[str, str | Path] = {
        "vocabulary": folder / "vocabulary.json",
        "data set": told.dataset.uri,
        "held out": folder / "held-out",
        "run": run,
        "report": f"{run}/report.html",
        "model": told.model.uri,
        "logs": folder / "logs",
        "summary": folder / "summary.txt",
    }
    table = columns("", "")
    for name, path in files.items():
        table.add_row(Text(name, style="dim"), Text(_shown(Path(path))))
    return table


def _shown(path: Path) -> str:
    """As one types it here."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
