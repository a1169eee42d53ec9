"""The report's plots, as SVG in data URIs: sharp at any size, and nothing in them can run.

Text in them is names from Unicode and ours; emoji themselves are left to the browser's fonts.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from services.shared import vocabulary
from services.shared.vocabulary import Vocabulary
from services.trainer.bootstrap import Interval
from services.trainer.evaluate import Bin, Confusion, Evaluation, OfEmoji, Point

INK, FAINT, MODEL, WARM = "#33373d", "#d9dce1", "#2b5f93", "#c4633a"
COLOURS = {"model": MODEL, "starter": WARM, "prior": "#8a8f98", "chance": "#bfc3ca"}
STYLE: Any = {
    "font.family": "DejaVu Sans",  # matplotlib brings it
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#a9adb5",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#eceef1",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "emojinet",  # the same report twice is the same file
    "text.parse_math": False,
}
NAMED = 12  # where hundreds could be named
WIDTH = 7.2  # inches


def drawn(figure: Figure) -> str:
    """The figure as `data:image/svg+xml;…`, for an `img`."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()


def loss(losses: Sequence[tuple[int, float]]) -> str:
    """The loss of each step that was told, and its running mean."""
    with _style(2.5) as (figure, axes):
        steps, values = (np.array(column, float) for column in zip(*losses, strict=True))
        axes.plot(steps, values, color=FAINT, linewidth=1)
        width = max(1, len(values) // 20)
        if width > 1:
            smooth = np.convolve(values, np.ones(width) / width, "valid")
            axes.plot(steps[width // 2 :][: len(smooth)], smooth, color=MODEL, linewidth=1.8)
        else:
            axes.plot(steps, values, color=MODEL, linewidth=1.8)
        axes.set(xlabel="step", ylabel="loss", xlim=(0, None))
        return drawn(figure)


def comparison(evaluations: Mapping[str, Evaluation], names: Mapping[str, str]) -> str:
    """Some figures of the model and the baselines, with their intervals."""
    with _style(0.5 + 0.5 * len(names)) as (figure, axes):
        for row, (name, evaluation) in enumerate(evaluations.items()):
            intervals = [evaluation.metrics[metric] for metric in names]
            heights = np.arange(len(names)) + (row - (len(evaluations) - 1) / 2) * 0.16
            _whiskers(axes, intervals, heights, COLOURS[name], name)
        _rows(axes, list(names.values()))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return drawn(figure)


def reliability(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """How often the model is right where it is so sure, before and after the temperature."""
    with _style(3.1, panels=2) as (figure, *panels):
        for axes, bars, title in zip(panels, (before, after), ("before", "after"), strict=True):
            axes.plot([0, 1], [0, 1], color="#a9adb5", linewidth=1, dashes=(4, 3))
            sure, right = [b.confidence for b in bars], [b.right for b in bars]
            reach = np.abs(np.array([[b.right - b.low, b.high - b.right] for b in bars]).T)
            axes.errorbar(sure, right, yerr=reach, color=MODEL, marker="o", ms=4, lw=1, capsize=0)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence")
            axes.set_title(f"{title} temperature", fontsize=9)
            axes.xaxis.set_major_formatter(_percent())
            axes.yaxis.set_major_formatter(_percent())
        panels[0].set_ylabel("first suggestion right")
        return drawn(figure)


def risk_coverage(curves: Mapping[str, Sequence[Point]]) -> str:
    """How often an answer is wrong, if the model may keep silent where it is least sure."""
    with _style(2.6) as (figure, axes):
        for name, points in curves.items():
            coverage, risk = ([p.coverage for p in points], [p.risk for p in points])
            axes.plot(coverage, risk, color=COLOURS[name], linewidth=1.8, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="answered", ylabel="of those, wrong")
        axes.xaxis.set_major_formatter(_percent())
        axes.yaxis.set_major_formatter(_percent())
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return drawn(figure)


def per_emoji(rows: Sequence[OfEmoji]) -> str:
    """Recall of each emoji over how many samples it was learned from."""
    with _style(3.4) as (figure, axes):
        trained = np.array([max(row.trained, 0.5) for row in rows])
        recall = np.array([row.metrics["recall"].value for row in rows])
        sizes = np.array([8 + 2 * np.sqrt(row.samples) for row in rows])
        axes.scatter(trained, recall, s=sizes, color=MODEL, alpha=0.45, linewidths=0)
        axes.set(xscale="log", ylim=(-0.06, 1.06), ylabel="recall")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("samples it was learned from (dots grow with the samples judged on)")
        axes.yaxis.set_major_formatter(_percent())
        return drawn(figure)


def extremes(rows: Sequence[OfEmoji], known: Vocabulary) -> str:
    """The emoji that are surely found best and worst: by the near end of the recall's interval."""
    recalls = [(row.metrics["recall"], _name(known, row.index)) for row in rows]
    count = min(NAMED, (len(recalls) + 1) // 2)
    best = sorted(recalls, key=lambda entry: -entry[0].low)[:count]
    worst = sorted(recalls, key=lambda entry: entry[0].high)[:count]
    with _style(0.6 + 0.24 * count, panels=2) as (figure, *panels):
        for axes, shown, title in zip(panels, (best, worst), ("best", "worst"), strict=True):
            colour = MODEL if title == "best" else WARM
            _whiskers(axes, [interval for interval, _ in shown], np.arange(count), colour, "")
            _rows(axes, [name for _, name in shown])
            axes.set_title(f"{title} found", fontsize=9)
        return drawn(figure)


def confusions(worst: Sequence[Confusion], known: Vocabulary) -> str:
    """How many samples of one emoji had another put first, the most frequent."""
    shown = worst[:NAMED]
    names = [f"{_name(known, c.truth)} → {_name(known, c.predicted)}" for c in shown]
    with _style(0.6 + 0.24 * len(shown)) as (figure, axes):
        axes.barh(range(len(shown)), [c.samples for c in shown], height=0.55, color=WARM)
        axes.set(yticks=range(len(shown)), yticklabels=names, xlabel="samples")
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return drawn(figure)


def parts(evaluations: Mapping[str, Evaluation], metric: str, names: Sequence[str]) -> str:
    """A figure in head, torso and tail, of the model and the baselines."""
    with _style(0.5 + 0.5 * len(names)) as (figure, axes):
        for row, (name, evaluation) in enumerate(evaluations.items()):
            there = [part for part in names if f"{metric}_{part}" in evaluation.metrics]
            heights = np.array([names.index(part) for part in there], float)
            heights += (row - (len(evaluations) - 1) / 2) * 0.16
            intervals = [evaluation.metrics[f"{metric}_{part}"] for part in there]
            _whiskers(axes, intervals, heights, COLOURS[name], name)
        _rows(axes, names)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return drawn(figure)


def _whiskers(
    axes: Axes, intervals: Sequence[Interval], heights: np.ndarray, colour: str, name: str
) -> None:
    values = [interval.value for interval in intervals]
    reach = np.array([[i.value - i.low, i.high - i.value] for i in intervals]).T
    axes.errorbar(
        values, heights, xerr=reach, fmt="o", color=colour, ms=5, lw=1.6, capsize=0, label=name
    )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Shares by name, from the top."""
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(_percent())
    axes.grid(axis="y", visible=False)


def _name(known: Vocabulary, index: int) -> str:
    """In letters that matplotlib's font has."""
    return vocabulary.name(known.emoji[index])[:28].encode("ascii", "replace").decode()


@contextmanager
def _style(height: float, panels: int = 1) -> Iterator[Any]:
    """A figure in our style, and its axes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_alpha(0)
        yield figure, *np.atleast_1d(figure.subplots(1, panels))


def _percent() -> PercentFormatter:
    return PercentFormatter(1, decimals=0)
