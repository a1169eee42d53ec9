"""A run for people: one page that needs no network, no script and no other file.

What it shows was written by others: data sets, settings, pictures. Text is escaped, pictures are
decoded and encoded anew, plots are images, and the page's policy lets nothing run or be fetched.
"""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from services.shared import pixels, vocabulary
from services.shared.errors import EmojinetError
from services.trainer import plots
from services.trainer.bootstrap import Interval, paired
from services.trainer.evaluate import Evaluation
from services.trainer.facts import BASELINES, MODEL, Facts
from services.trainer.figures import PARTS

NAME = "report.html"
THUMBNAIL_PX, QUALITY = 112, 70
PICTURE_BYTES = 2 << 20  # of all pictures: a third more in base64
CONFUSIONS = 24
ROWS = 1000  # of the table of emoji; the rest is in evaluation.json
TEXT = 2000  # characters of what others wrote


class Line(NamedTuple):
    """A figure in a table: what it is called, what it means, and whether it is a share."""

    metric: str
    label: str
    meaning: str
    share: bool = True


LINES = (
    Line("top1", "Top-1", "the first suggestion is one of the picture's emoji"),
    Line("top5", "Top-5", "one of the first five is"),
    Line("top10", "Top-10", "one of the first ten is"),
    Line("macro_recall", "Macro recall", "found, averaged over emoji: rare ones count alike"),
    Line("macro_f1", "Macro F1", "of recall and precision, averaged over emoji"),
    Line("map", "mAP", "average precision of each emoji's list of pictures"),
    Line("gallery_precision", "Gallery precision", "right among each emoji's ten surest pictures"),
    Line("mrr", "MRR", "one over the place of the best emoji", share=False),
    Line("msap", "MSAP", "average precision of each picture's list of emoji", share=False),
    Line(
        "coverage_error", "Coverage error", "places down to the last emoji; less is better", False
    ),
    Line("semantic_top1", "Semantic top-1", "as top-1; another of Unicode's subgroup counts too"),
    Line("semantic_top5", "Semantic top-5", "as top-5; another of the subgroup counts too"),
    Line("nll", "NLL", "negative log-likelihood; less is better", share=False),
    Line("brier", "Brier", "squared error of the probabilities; less is better", share=False),
    Line("ece", "ECE", "how far confidence is from being right; less is better"),
    Line("aurc", "AURC", "area under risk and coverage; less is better"),
)
BY_NAME = {line.metric: line for line in LINES}
SHOWN = {"top1": "top-1", "top5": "top-5", "macro_recall": "macro recall", "map": "mAP"}
CALIBRATIONS = ("ece", "nll", "brier")


def write(folder: Path, facts: Facts) -> Path:
    """Writes `report.html` into the folder, whole or not at all; returns its path."""
    path = folder / NAME
    staged = path.with_name(f".{NAME}")
    staged.write_text(page(facts), encoding="utf-8", errors="replace")
    os.replace(staged, path)
    return path


def page(facts: Facts) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "number": number, "text": _text}
    judged, everyone = facts.judged, {"model": facts.judged, **facts.others}
    before = facts.judgements[facts.split][MODEL]
    return environment.get_template(f"{NAME}.j2").render(
        facts=facts,
        judged=judged,
        emoji=facts.vocabulary.emoji,
        named=vocabulary.name,
        tiles=[(BY_NAME[metric], judged.metrics[metric]) for metric in (*SHOWN, "ece")],
        everyone=everyone,
        baselines=BASELINES,
        lines=_table(everyone, LINES),
        gains=_gains(facts),
        calibrations=_table(
            {"before": before, "after": judged}, [BY_NAME[n] for n in CALIBRATIONS]
        ),
        parts=_parts(facts),
        confusions=_confusions(facts),
        rows=sorted(judged.per_class, key=lambda row: (-row.trained, row.index))[:ROWS],
        omitted=max(0, len(judged.per_class) - ROWS),
        accounts=_accounts(facts.seconds),
        plots=_plots(facts, before, everyone),
    )


def share(interval: Interval | float) -> str:
    """As percentages, one digit after the point.

    >>> share(Interval(0.5, 0.45, 0.551)), share(0.25)
    ('50.0 % (45.0 to 55.1)', '25.0 %')
    """
    if isinstance(interval, Interval):
        if not np.isfinite(interval.value):
            return "–"
        ends = f" ({interval.low * 100:.1f} to {interval.high * 100:.1f})"
        return share(interval.value) + (ends if np.isfinite(interval.low) else "")
    return f"{interval * 100:.1f} %"


def number(interval: Interval) -> str:
    """With three digits after the point.

    >>> number(Interval(0.5, 0.45, 0.551))
    '0.500 (0.450 to 0.551)'
    """
    value, low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _table(
    everyone: Mapping[str, Evaluation], lines: Sequence[Line]
) -> list[tuple[Line, list[str]]]:
    return [
        (
            line,
            [
                (share if line.share else number)(evaluation.metrics[line.metric])
                for evaluation in everyone.values()
            ],
        )
        for line in lines
        if all(line.metric in evaluation.metrics for evaluation in everyone.values())
    ]


def _gains(facts: Facts) -> list[tuple[str, str, Interval]]:
    """By how much the model is better than each baseline, on the same pictures."""
    return [
        (name, label, paired([(facts.judged.judged(metric), other.judged(metric))]))
        for name, other in facts.others.items()
        for metric, label in SHOWN.items()
    ]


def _parts(facts: Facts) -> list[tuple[str, int, int, list[str]]]:
    """Of head, torso and tail: how many emoji and training samples, and the figures."""
    metrics = facts.judged.metrics
    lines = []
    for part in PARTS:
        rows = [row for row in facts.judged.per_class if row.part == part]
        names = [f"{name}_{part}" for name in ("top1", "top5", "macro_recall", "macro_f1", "map")]
        cells = [share(metrics[n]) if n in metrics else "–" for n in names]
        lines.append((part, len(rows), sum(row.trained for row in rows), cells))
    return lines


def _confusions(facts: Facts) -> list[dict[str, Any]]:
    """The worst, each with pictures as long as there is room for any."""
    left = PICTURE_BYTES
    found = []
    for confusion in facts.judged.confusions[:CONFUSIONS]:
        images = []
        for row in confusion.examples:
            content = _thumbnail(facts.example, row) if facts.example else b""
            left -= len(content)
            if content and left > 0:
                images.append("data:image/jpeg;base64," + base64.b64encode(content).decode())
        found.append({**confusion._asdict(), "images": images})
    return found


def _thumbnail(example: Callable[[int], bytes], row: int) -> bytes:
    """A small JPEG, encoded anew; nothing if the picture cannot be read."""
    try:
        upright = pixels.decode(example(row), edge_px=THUMBNAIL_PX)
    except EmojinetError:
        return b""
    square, _ = pixels.crop(upright, size_px=THUMBNAIL_PX, fraction=1.0)
    return pixels.jpeg(square, quality=QUALITY)


def _accounts(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Where the time went, with shares of all of it."""
    total = sum(seconds.values()) or 1.0
    return [(name.replace("_", " "), spent, spent / total) for name, spent in seconds.items()]


def _plots(facts: Facts, before: Evaluation, everyone: Mapping[str, Evaluation]) -> dict[str, str]:
    judged = facts.judged
    drawn = {
        "comparison": plots.comparison(everyone, SHOWN),
        "parts": plots.parts(everyone, "macro_recall", PARTS),
        "reliability": plots.reliability(before.reliability, judged.reliability),
        "risk_coverage": plots.risk_coverage({n: e.risk_coverage for n, e in everyone.items()}),
        "per_emoji": plots.per_emoji(judged.per_class),
        "extremes": plots.extremes(judged.per_class, facts.vocabulary),
    }
    if judged.confusions:
        drawn["confusions"] = plots.confusions(judged.confusions, facts.vocabulary)
    if facts.losses:
        drawn["loss"] = plots.loss(facts.losses)
    return drawn


def _text(value: object) -> str:
    """What somebody else wrote, on one line and not for ever."""
    line = "".join(c if c.isprintable() else " " for c in str(value)[: TEXT + 1])
    return line if len(line) <= TEXT else line[:TEXT] + "…"
