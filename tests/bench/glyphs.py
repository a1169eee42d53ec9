"""`make bench-glyphs`: drawings recognised as another vendor draws them, whom nothing learned from.

Each vendor is left out in turn: the recipe `glyphs` learns 500 emoji from the drawings of the
others, its temperature is fitted on drawings of theirs, and it is judged on all that the vendor
left out drew, on white. The starter is no baseline here: it has learned from all vendors. These
are drawings: how good the model is on photographs it does not say. What is complete in
data/bench/glyphs is not done again, and a run that was stopped goes on. The last line is `RESULT`.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from services.shared import model, starter
from services.trainer import drawings, glyphs, lessons
from services.trainer.facts import CALIBRATED, MODEL

FOLDER = Path("data/bench/glyphs")
VENDORS = [vendor.name for vendor in drawings.VENDORS]

# K emoji, F features


def trained(folder: Path, vendor: str, settings: list[str]) -> dict[str, Any]:
    """How good the model is that never saw the vendor: `evaluation.json`, made if need be."""
    dataset, run = folder / f"pictures-{vendor}", folder / f"run-{vendor}"
    evaluation, report = run / "evaluation.json", run / "report.html"
    if not report.exists():  # which is written last
        with _timed(folder / f"seconds-{vendor}"):
            if not dataset.exists():
                glyphs.write(dataset, vendor)
            options = ["--dataset", str(dataset), "--output", str(run), "--data", str(folder)]
            changed = [part for setting in settings for part in ("--set", setting)]
            command = [sys.executable, "-m", "services.trainer", "run", "glyphs"]
            subprocess.run([*command, *options, *changed], check=True)
        shutil.rmtree(dataset)
    found: dict[str, Any] = json.loads(evaluation.read_text())
    return found


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Adds to the seconds in a file, also when the work fails."""
    began = time.perf_counter()
    try:
        yield
    finally:
        with path.open("a") as file:
            file.write(f"{time.perf_counter() - began:.1f}\n")


def nearest() -> dict[str, float]:
    """How often the nearest class mean of frozen features is right, by the vendor left out."""
    net = lessons.imagenet()
    looks = {}
    for vendor in VENDORS:
        squares = (
            model.view(starter.PREPROCESSING, glyphs.on_white(vendor, emoji))
            for emoji in glyphs.chosen()
        )
        features_KF = np.concatenate(list(lessons.pooled(net, squares)))
        looks[vendor] = features_KF / np.linalg.norm(features_KF, axis=1, keepdims=True)
    right = {}
    for vendor, asked_KF in looks.items():
        means_KF = sum(seen_KF for other, seen_KF in looks.items() if other != vendor)
        means_KF = means_KF / np.linalg.norm(means_KF, axis=1, keepdims=True)
        best_K = (asked_KF @ means_KF.T).argmax(1)
        right[vendor] = float((best_K == np.arange(len(best_K))).mean())
    return right


def figures(folder: Path, judged: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What RESULT says; means are over vendors."""

    def mean(which: str, name: str) -> float:
        return float(np.mean([said["test"][which]["metrics"][name][0] for said in judged.values()]))

    seconds = [
        float(line)
        for vendor in judged
        for line in (folder / f"seconds-{vendor}").read_text().split()
    ]
    return {
        "top1": mean(CALIBRATED, "top1"),
        "top5": mean(CALIBRATED, "top5"),
        "per_vendor": {
            vendor: said["test"][CALIBRATED]["metrics"]["top1"][0]
            for vendor, said in judged.items()
        },
        "ece_before": mean(MODEL, "ece"),
        "ece_after": mean(CALIBRATED, "ece"),
        "minutes": sum(seconds) / 60,
    }


def shown(judged: dict[str, dict[str, Any]], means: dict[str, float]) -> Table:
    """A row for each vendor."""
    head = ("left out", "first", "95 %", "in five", "nearest mean", "ECE", "calibrated")
    table = Table(*head, "temperature")
    for vendor, said in judged.items():
        test, best = said["test"], said["test"][CALIBRATED]["metrics"]
        value, low, high = best["top1"]
        table.add_row(
            vendor,
            f"{value:.1%}",
            f"{low:.1%} - {high:.1%}",
            f"{best['top5'][0]:.1%}",
            f"{means[vendor]:.1%}",
            f"{test[MODEL]['metrics']['ece'][0]:.3f}",
            f"{best['ece'][0]:.3f}",
            f"{said['temperature']:.2f}",
        )
    return table


def main(
    folder: Annotated[Path, typer.Option(help="Where runs are kept.")] = FOLDER,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE")] = None,
    vendors: Annotated[list[str] | None, typer.Option("--without", help="Only these.")] = None,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out = vendors or VENDORS
    judged = {vendor: trained(folder, vendor, settings or []) for vendor in left_out}
    means = nearest()
    Console().print(shown(judged, means))
    baselines = {
        "chance": 1 / glyphs.EMOJI,
        "nearest_class_mean": float(np.mean([means[vendor] for vendor in left_out])),
    }
    print("RESULT", json.dumps(figures(folder, judged) | baselines))


if __name__ == "__main__":
    typer.run(main)
