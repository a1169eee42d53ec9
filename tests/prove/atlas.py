"""`make prove-atlas`: meanings that were planted are found, and none where there is none.

Each seed makes another corpus (`tests/prove/meant.py`): other emoji, words, photographs, authors,
days. Seeds of three digits were never looked at while the atlas was made. What is judged is what
programs read, `atlas.json`. At last, a data set of 20,000 pictures: how long its atlas takes, how
large its page is, how long that takes to open in Chromium, and whether it is the same twice.
"""

import json
import math
import platform
import tempfile
import time
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from services.shared import starter
from services.shared.cores import cores
from services.trainer.atlas import build
from services.trainer.events import Events
from tests.bench.spine import cpu_name
from tests.clients.web.browser import CHROMIUM, QUIET
from tests.prove import meant
from tests.prove.meant import Kind, Pool, Truth

REGISTRY, PHOTOS = Path("data/registry"), Path("data/photos")
RESULTS = Path(__file__).parents[1] / "bench" / "results"
SEEDS = (101, 102, 103)
LARGE = Kind(emoji=170, by_words=12, by_pictures=12, drifting=8, posts=116, authors=4000, px=256)
MONTH_SECONDS = 30.4375 * 86_400


def made(folder: Path, dataset: Path, models: Path) -> dict[str, Any]:
    """What the atlas of a data set says."""
    job = build.Job(path=dataset, output=folder / "atlas", data=folder / "data", registry=models)
    with closing(Events(job.output)) as events:
        build.build(job, events)
    said: dict[str, Any] = json.loads((job.output / "atlas.json").read_bytes())
    return said


def average_precision(scores: dict[str, float], truth: set[str]) -> float:
    """Of the list of emoji by their scores, those with a planted meaning being right.

    >>> average_precision({"a": 3, "b": 2, "c": 1}, {"a", "c"})
    0.8333333333333333
    """
    found, total = 0, 0.0
    for place, emoji in enumerate(sorted(scores, key=lambda e: (-scores[e], e)), 1):
        if emoji in truth:
            found += 1
            total += found / place
    return total / len(truth)


def judged(said: dict[str, Any], truth: Truth) -> dict[str, float]:
    """The figures of one corpus."""
    rows = {row["emoji"]: row for row in said["emoji"]}
    scores = {emoji: row["score"] for emoji, row in rows.items()}
    literal = rows.keys() - truth.planted
    flagged = {emoji for emoji, row in rows.items() if row["flagged"]}
    figures = {
        "average_precision": average_precision(scores, truth.planted),
        "false_flags": len(flagged & literal) / len(literal),
        "flagged": len(flagged & truth.planted) / len(truth.planted),
    }
    for channel, some in (("words", truth.words), ("pictures", truth.pictures)):
        rest = {e: s for e, s in scores.items() if e in some or e in literal}
        figures[f"average_precision_{channel}"] = average_precision(rest, some)
    off = [
        abs(datetime.fromisoformat(f"{date}T12:00:00+00:00").timestamp() - begins) / MONTH_SECONDS
        for emoji, begins in truth.drift.items()
        if (date := rows[emoji]["drift_date"])
    ]
    return figures | {
        "drift_found": len(off) / len(truth.drift) if truth.drift else math.nan,
        "drift_off_months": mean(off) if off else math.nan,
        "drift_off_months_most": max(off) if off else math.nan,
        "false_drift": sum(rows[e]["drifted"] for e in rows.keys() - truth.drift.keys())
        / len(rows),
    }


def prove(seed: int, kind: Kind, folder: Path, models: Path, photos: Path) -> dict[str, float]:
    """The figures of one seed's corpus."""
    dataset, truth = meant.frozen(folder, kind, Pool(photos, kind.px), seed)
    return judged(made(folder, dataset, models), truth)


def large(folder: Path, models: Path, photos: Path, kind: Kind = LARGE) -> dict[str, float]:
    """How long a large data set takes, and how large and quick its page is."""
    dataset, truth = meant.frozen(folder, kind, Pool(photos, kind.px), 999)
    began = time.monotonic()
    said = made(folder, dataset, models)
    seconds = time.monotonic() - began
    page = folder / "atlas" / "atlas.html"
    first = page.read_bytes()
    began = time.monotonic()
    made(folder, dataset, models)
    again = time.monotonic() - began
    found = judged(said, truth)
    return {
        "images": said["pictures"],
        "build_seconds": seconds,
        "again_seconds": again,
        "same_bytes": int(page.read_bytes() == first),
        "page_mb": len(first) / 1e6,
        "open_seconds": opened(page),
        "large_average_precision": found["average_precision"],
        "large_false_flags": found["false_flags"],
    }


def opened(page: Path) -> float:
    """Seconds until Chromium has loaded the page and drawn it, the median of three."""
    spent = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for _ in range(3):
            tab = browser.new_page()
            began = time.monotonic()
            tab.goto(page.resolve().as_uri())
            tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            spent.append(time.monotonic() - began)
            tab.close()
        browser.close()
    return sorted(spent)[1]


def as_markdown(rows: list[dict[str, float]], result: dict[str, Any]) -> str:
    """The record of one run."""
    names = list(rows[0])
    packages = ("numpy", "scipy", "scikit-learn", "openvino")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    lines = [
        "# The atlas",
        "",
        "`make prove-atlas`: see the docstrings of `tests/prove/atlas.py` and `meant.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores()} cores, {cpu_name()}, shared with others",
        f"- versions: Python {platform.python_version()}, {versions}",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
        *(f"| {' | '.join(f'{row[name]:.4g}' for name in names)} |" for row in rows),
        "",
        f"    RESULT {json.dumps(result)}",
        "",
    ]
    return "\n".join(lines)


def main(
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Corpora to make.")] = None,
    photos: Annotated[Path, typer.Option(help="Photographs.")] = PHOTOS,
    with_large: Annotated[bool, typer.Option("--large/--no-large")] = True,
    save: Annotated[bool, typer.Option("--save", help="Record the run among the results.")] = False,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    starter.ensure(REGISTRY)
    rows: list[dict[str, float]] = []
    for seed in seeds or SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            found = prove(seed, Kind(), Path(folder), REGISTRY, photos)
            rows.append({"seed": seed, **found})
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.3g}" for value in row.values()))
    Console(width=200).print(table)
    result: dict[str, Any] = {
        "average_precision": min(row["average_precision"] for row in rows),
        "average_precision_mean": mean(row["average_precision"] for row in rows),
        "false_flags": max(row["false_flags"] for row in rows),
        "drift_off_months": mean(row["drift_off_months"] for row in rows),
        "drift_found": mean(row["drift_found"] for row in rows),
    }
    if with_large:
        with tempfile.TemporaryDirectory() as folder:
            result |= large(Path(folder), REGISTRY, photos)
    result = {name: round(value, 3) for name, value in result.items()}
    if save:
        path = RESULTS / f"{time.strftime('%Y-%m')}_atlas.md"
        path.write_text(as_markdown(rows, result))
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
