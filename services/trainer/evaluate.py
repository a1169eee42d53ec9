"""How good a model is on samples it has not learned from: every figure with its interval.

Where many emoji are rare, one share over all
samples says how well the frequent ones are known, so there are means over emoji, and three parts:
head, torso and tail are thirds of the emoji by how often the model saw them in training.
"""

# N samples, K emoji, P pairs of a sample and one of its emoji, C columns of weights, R resamples

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from services.shared import vocabulary
from services.shared.errors import TrainingFailed
from services.shared.vocabulary import Vocabulary
from services.trainer.bootstrap import Interval, Judged, weights, wilson
from services.trainer.figures import BINS, KS, PARTS, THRESHOLDS, Columns, Figures

EXAMPLES = 6
CONFUSIONS = 100
CURVE_POINTS = 101
UNBOUNDED = {"coverage_error", "nll", "brier"}  # and plain means: a resample does not bias them


class Bin(NamedTuple):
    """Samples of like confidence: a bar of the reliability diagram."""

    samples: int
    confidence: float
    right: float
    low: float
    high: float


class Point(NamedTuple):
    """Answering only where the model is at least so sure."""

    threshold: float
    coverage: float
    risk: float


class Abstention(NamedTuple):
    """What a threshold does: the share that is answered, and of those the share that is right."""

    threshold: float
    answered: Interval
    right: Interval


class Confusion(NamedTuple):
    """An emoji that was there, and another that the model put first."""

    truth: int
    predicted: int
    samples: int
    share: float
    """Of the samples with the emoji that was there."""
    examples: tuple[int, ...]
    """Numbers of samples, those where the model was surest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfEmoji:
    """One emoji of the vocabulary, as the samples that carry it show it."""

    index: int
    samples: int
    """That carry it."""
    trained: int
    """How many it was learned from."""
    part: str
    metrics: dict[str, Interval]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that is known about how good a model is on one split."""

    samples: int
    classes: int
    met: int
    """How many emoji at least one sample carries: means over emoji are over these."""
    resamples: int
    metrics: dict[str, Interval]
    per_class: list[OfEmoji]
    reliability: list[Bin]
    risk_coverage: list[Point]
    abstain: list[Abstention]
    confusions: list[Confusion]
    draws: Columns = field(repr=False, compare=False)
    """What each resample gave, (R,) by metric: for `paired`, not for the report."""

    def judged(self, name: str) -> Judged:
        """A figure for `bootstrap.paired`."""
        return Judged(self.metrics[name].value, self.draws[name])

    def flat(self) -> dict[str, list[float]]:
        """The figures over all samples, as events and `emojinet train show` have them."""
        return {n: list(i) for n, i in self.metrics.items() if np.isfinite(i.value)}

    def to_json(self, known: Vocabulary) -> dict[str, Any]:
        """Everything but the draws; figures are [value, low, high], null where there is none."""
        return {
            "samples": self.samples,
            "classes": self.classes,
            "met": self.met,
            "resamples": self.resamples,
            "metrics": _plain(self.metrics),
            "per_class": [
                {
                    "emoji": known.emoji[row.index],
                    "samples": row.samples,
                    "trained": row.trained,
                    "part": row.part,
                    **_plain(row.metrics),
                }
                for row in self.per_class
            ],
            "reliability": [bar._asdict() for bar in self.reliability],
            "risk_coverage": [point._asdict() for point in self.risk_coverage],
            "abstain": [_plain(a._asdict()) for a in self.abstain],
            "confusions": [
                c._asdict() | {"truth": known.emoji[c.truth], "predicted": known.emoji[c.predicted]}
                for c in self.confusions
            ],
        }


def evaluate(
    probabilities_NK: np.ndarray,
    truth_NK: np.ndarray,
    *,
    counts_K: Sequence[int] | np.ndarray,
    groups_K: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Judges a model by its probabilities for samples that carry one or more emoji.

    Overall: `top1`, `top5`, `top10` (any of the sample's emoji is among the first k), the same with
    `semantic_` (one of its subgroup is), `mrr`, `msap` (the mean average precision of each
    sample's list), `coverage_error` (how far down the last of its emoji is), `nll`, `brier`, `ece`
    (15 bins of equally many samples), `aurc` (area under the risk-coverage curve). Means over the
    emoji: `macro_recall`, `macro_f1` (predicted are the first n of a sample with n emoji), `map`,
    `gallery_precision` (the share that carries it of the ten samples the model is surest of). With
    `_head`, `_torso`, `_tail`: over emoji of that part, or samples that carry one; `ece` over
    samples for which one comes first.

    Args:
        truth_NK: bool; every row has at least one.
        counts_K: how many training samples carry each emoji.
        groups_K: a number for each emoji, equal for those of one subgroup: `subgroups`.

    Raises:
        TrainingFailed: there is nothing to judge on, or a probability is not a finite number.
    """
    if not len(truth_NK):
        raise TrainingFailed("There is no sample to judge the model on.")
    if probabilities_NK.shape != truth_NK.shape or len(counts_K) != truth_NK.shape[1]:
        raise ValueError(f"{probabilities_NK.shape}, {truth_NK.shape} and {len(counts_K)} differ")
    if not truth_NK.any(1).all():
        raise ValueError("a sample has no emoji")
    if not np.isfinite(probabilities_NK).all():
        raise TrainingFailed("The model's probabilities are not finite: it cannot be judged.")
    belief_NK = np.ascontiguousarray(probabilities_NK, np.float32)
    truth_NK = truth_NK.astype(bool)
    figures = Figures.prepared(belief_NK, truth_NK, np.asarray(counts_K), groups_K, seed)
    return _judged(figures, resamples, seed)


def subgroups(known: Vocabulary) -> np.ndarray:
    """A number for each emoji, equal for those of one Unicode subgroup; strangers stand alone."""
    of = {emoji.text: emoji.subgroup for emoji in vocabulary.inventory()}
    return np.unique([of.get(emoji, emoji) for emoji in known.emoji], return_inverse=True)[1]


def _judged(figures: Figures, resamples: int, seed: int) -> Evaluation:
    count = len(figures.right_N)
    values, of_emoji = figures.of(np.ones((count, 1), np.float32))
    drawn = [figures.of(weight_NC) for weight_NC in weights(count, resamples, seed)]
    draws = {
        n: _centred(np.concatenate([columns[n] for columns, _ in drawn]), value[0], n)
        for n, value in values.items()
    }
    known = {n: Interval.of(float(v[0]), draws[n]) for n, v in values.items()}
    abstain = [
        Abstention(t, known.pop(f"answered_{t}"), known.pop(f"right_{t}")) for t in THRESHOLDS
    ]
    draws_of = {n: np.concatenate([c[n] for _, c in drawn], axis=1) for n in of_emoji}
    return Evaluation(
        samples=count,
        classes=len(figures.part_K),
        met=int(np.isfinite(figures.precision_K).sum()),
        resamples=resamples,
        metrics=known,
        per_class=_per_class(figures, of_emoji, draws_of),
        reliability=_reliability(figures),
        risk_coverage=_risk_coverage(figures),
        abstain=abstain,
        confusions=_confusions(figures),
        draws=draws,
    )


def _per_class(figures: Figures, values: Columns, draws: Columns) -> list[OfEmoji]:
    there_K = np.bincount(figures.ranking.class_P, minlength=len(figures.part_K))
    ends = {
        name: wilson(values[name][:, 0] * there_K, there_K)
        for name in ("recall", *(f"top{k}" for k in KS))
    }
    rows = []
    for index in np.flatnonzero(there_K):
        metrics = {
            n: Interval.of(value[index, 0], _centred(draws[n][index], value[index, 0], n))
            for n, value in values.items()
        }
        for name, (low_K, high_K) in ends.items():
            value, low, high = metrics[name]
            # Five hits in five have no spread among their resamples: Wilson's interval has.
            metrics[name] = Interval(
                value, min(low, float(low_K[index])), max(high, float(high_K[index]))
            )
        at, spread = float(figures.precision_K[index]), 1.96 * float(figures.spread_K[index])
        metrics["ap"] = Interval(at, max(at - spread, 0.0), min(at + spread, 1.0))
        rows.append(
            OfEmoji(
                index=int(index),
                samples=int(there_K[index]),
                trained=int(figures.counts_K[index]),
                part=PARTS[figures.part_K[index]],
                metrics=metrics,
            )
        )
    return rows


def _risk_coverage(figures: Figures) -> list[Point]:
    order = np.argsort(-figures.confidence_N, kind="stable")
    count = len(order)
    risk_N = np.cumsum(~figures.right_N[order]) / np.arange(1, count + 1)
    at = np.unique(np.linspace(0, count - 1, min(CURVE_POINTS, count)).round().astype(int))
    return [
        Point(float(figures.confidence_N[order[i]]), (int(i) + 1) / count, float(risk_N[i]))
        for i in at
    ]


def _reliability(figures: Figures) -> list[Bin]:
    bars = []
    for members in np.array_split(np.argsort(figures.confidence_N, kind="stable"), BINS):
        if len(members):
            hits = figures.right_N[members].sum()
            low, high = wilson(hits, np.asarray(len(members)))
            mean = float(figures.confidence_N[members].mean(dtype=float))
            share = float(hits / len(members))
            bars.append(Bin(len(members), mean, share, float(low), float(high)))
    return bars


def _confusions(figures: Figures) -> list[Confusion]:
    ranks, outputs = figures.ranking, len(figures.part_K)
    there_K = np.bincount(ranks.class_P, minlength=outputs)
    wrong_P = ~figures.right_N[ranks.sample_P]
    samples, truths = ranks.sample_P[wrong_P], ranks.class_P[wrong_P]
    surest = np.argsort(-figures.confidence_N[samples], kind="stable")
    samples, truths = samples[surest], truths[surest]
    codes = truths * outputs + ranks.first_NM[samples, 0]
    kinds, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rows = []
    for kind in np.argsort(-counts, kind="stable")[:CONFUSIONS]:
        truth, predicted = divmod(int(kinds[kind]), outputs)
        examples = samples[inverse == kind][:EXAMPLES]
        count, share = int(counts[kind]), float(counts[kind] / there_K[truth])
        rows.append(Confusion(truth, predicted, count, share, tuple(examples.tolist())))
    return rows


def _centred(draws_R: np.ndarray, value: float, name: str) -> np.ndarray:
    """The draws around the value.

    A resample repeats samples and their luck: errors of calibration read higher in it, F1 of rare
    emoji and galleries lower. So only the spread is believed.
    """
    known = draws_R[np.isfinite(draws_R)]
    if name in UNBOUNDED or not len(known):
        return draws_R
    return np.clip(draws_R - (known.mean() - value), -1 if name == "overconfidence" else 0, 1)


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """With intervals as lists, without what JSON has no number for."""
    return {
        name: [float(v) if np.isfinite(v) else None for v in fact]
        if isinstance(fact, Interval)
        else fact
        for name, fact in facts.items()
    }
