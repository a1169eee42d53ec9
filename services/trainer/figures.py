"""All figures of an evaluation as functions of how often each sample counts.

Once each gives the value; drawn with replacement, a thousand times, its spread. What does not
depend on the weights (the order of the emoji, the bins) is prepared once, so that 1000 resamples of
20,000 samples and 500 emoji take seconds.
"""

# N samples, K emoji, P pairs of a sample and one of its emoji, C columns of weights

from dataclasses import dataclass
from typing import Any

import numpy as np

from services.trainer.ranking import Gallery, Ranking, average_precision, gallery, ranking

BINS = 15
KS = (1, 5, 10)
PARTS = ("head", "torso", "tail")
THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(10))
LEAST_BELIEF = 1e-12  # whose logarithm is still a number

Columns = dict[str, np.ndarray]


def parts(counts_K: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each emoji: thirds of the vocabulary, the most trained first; ties by place."""
    part_K = np.empty(len(counts_K), int)
    for number, third in enumerate(np.array_split(np.argsort(-counts_K, kind="stable"), 3)):
        part_K[third] = number
    return part_K


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What is needed to compute all figures for any weights of the samples."""

    ranking: Ranking
    gallery: Gallery
    confidence_N: np.ndarray
    right_N: np.ndarray
    counts_K: np.ndarray
    part_K: np.ndarray
    shares: dict[str, tuple[np.ndarray, np.ndarray]]
    """Of each mean over samples, what each sample adds above and below the line, (N,)."""
    gaps: dict[str, tuple[np.ndarray, np.ndarray]]
    """Of each calibration error, confidence less rightness of each sample in its bin, (N, bins),
    and which samples are in a bin, (N,)."""
    precision_K: np.ndarray
    """Average precision; NaN without a sample."""
    spread_K: np.ndarray
    """And its standard error."""
    influence_NQ: np.ndarray
    """Of each sample on `map`, overall and in the parts."""

    @classmethod
    def prepared(
        cls,
        belief_NK: np.ndarray,
        truth_NK: np.ndarray,
        counts_K: np.ndarray,
        groups_K: np.ndarray | None,
        seed: int,
    ) -> "Figures":
        """From probabilities (N, K), float32, and which emoji each sample carries, bool."""
        ranks = ranking(belief_NK, truth_NK, seed)
        confidence_N = belief_NK.max(1)
        right_N = truth_NK[np.arange(len(truth_NK)), ranks.first_NM[:, 0]]
        part_K = parts(counts_K)
        everyone = np.ones(len(truth_NK))
        means = _means(belief_NK, ranks, groups_K) | _hits(ranks, np.ones(len(part_K), bool))
        shares = {name: (value_N, everyone) for name, value_N in means.items()}
        first_N = part_K[ranks.first_NM[:, 0]]
        gaps = {"ece": _gaps(confidence_N, right_N, first_N >= 0)}
        for number, part in enumerate(PARTS):
            inside_N = np.isfinite(ranks.best(part_K == number))
            if inside_N.any():
                for name, value_N in _hits(ranks, part_K == number).items():
                    shares[f"{name}_{part}"] = (value_N, inside_N)
            if (first_N == number).any():
                gaps[f"ece_{part}"] = _gaps(confidence_N, right_N, first_N == number)
        for threshold in THRESHOLDS:
            sure_N = confidence_N >= threshold
            shares[f"answered_{threshold}"] = (sure_N, everyone)
            shares[f"right_{threshold}"] = (sure_N & right_N, sure_N)
        return cls(
            ranking=ranks,
            gallery=gallery(belief_NK, truth_NK),
            confidence_N=confidence_N,
            right_N=right_N,
            counts_K=counts_K,
            part_K=part_K,
            shares=shares,
            gaps=gaps,
            **_precisions(belief_NK, truth_NK, part_K),
        )

    def of(self, weight_NC: np.ndarray) -> tuple[Columns, Columns]:
        """All figures for these weights: overall (C,), and of each emoji (K, C)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            above, below = (
                np.stack([s[side] for s in self.shares.values()]).astype(np.float32) @ weight_NC
                for side in (0, 1)
            )
            overall = dict(zip(self.shares, above / below, strict=True))
            for name, (gap_NB, among_N) in self.gaps.items():
                overall[name] = np.abs(gap_NB.T @ weight_NC).sum(0) / (among_N @ weight_NC)
            overall["aurc"] = self._area(weight_NC)
            of_emoji = self._of_emoji(weight_NC)
            lost_QC = self.influence_NQ.T @ weight_NC
        for number, part in enumerate(("", *(f"_{p}" for p in PARTS))):
            inside_K = (self.part_K == number - 1) | (number == 0)
            inside_K &= np.isfinite(self.precision_K)
            if not inside_K.any():
                continue
            for name, column in (("macro_recall", "recall"), ("macro_f1", "f1")):
                overall[name + part] = _mean(of_emoji[column][inside_K])
            overall["gallery_precision" + part] = _mean(of_emoji["gallery_precision"][inside_K])
            overall["map" + part] = np.clip(
                self.precision_K[inside_K].mean() + lost_QC[number], 0, 1
            )
        return overall, of_emoji

    def _of_emoji(self, weight_NC: np.ndarray) -> Columns:
        ranks, outputs = self.ranking, len(self.part_K)
        nth_NM = np.arange(ranks.first_NM.shape[1]) < ranks.emoji_N[:, None]
        guess_sample, _ = np.nonzero(nth_NM)
        guess_class = ranks.first_NM[nth_NM]
        drawn_PC = weight_NC[ranks.sample_P]

        def found(value_P: np.ndarray) -> np.ndarray:
            return _sums(ranks.class_P, drawn_PC * value_P[:, None].astype(np.float32), outputs)

        there_KC = found(np.ones(len(ranks.rank_P)))
        hits_KC = found(ranks.rank_P <= ranks.emoji_N[ranks.sample_P])
        guessed_KC = _sums(guess_class, weight_NC[guess_sample], outputs)
        gap_N = (self.confidence_N - self.right_N).astype(np.float32)
        first_KC = _sums(ranks.first_NM[:, 0], weight_NC, outputs)
        gap_KC = _sums(ranks.first_NM[:, 0], weight_NC * gap_N[:, None], outputs)
        return {
            "recall": hits_KC / there_KC,
            "precision": hits_KC / guessed_KC,
            "f1": np.where(there_KC > 0, 2 * hits_KC / (there_KC + guessed_KC), np.nan),
            **{f"top{k}": found(ranks.rank_P <= k) / there_KC for k in KS},
            "mrr": found(1 / ranks.rank_P) / there_KC,
            "gallery_precision": self.gallery.precision(weight_NC),
            "overconfidence": gap_KC / first_KC,
        }

    def _area(self, weight_NC: np.ndarray) -> np.ndarray:
        order = np.argsort(-self.confidence_N, kind="stable")
        drawn_NC = weight_NC[order]
        wrong_N = np.logical_not(self.right_N[order])
        wrong_NC = np.cumsum(drawn_NC * wrong_N[:, None], axis=0)
        answered_NC = np.maximum(np.cumsum(drawn_NC, axis=0), 1)
        return (wrong_NC / answered_NC * drawn_NC).sum(0) / len(drawn_NC)


def _means(belief_NK: np.ndarray, ranks: Ranking, groups_K: np.ndarray | None) -> Columns:
    """The figures that are means over samples."""
    found_P = belief_NK[ranks.sample_P, ranks.class_P]
    last_N = np.zeros(len(belief_NK))
    np.maximum.at(last_N, ranks.sample_P, ranks.rank_P)
    squares_N = np.einsum("nk,nk->n", belief_NK, belief_NK)
    columns = {
        "msap": ranks.average_precision(),
        "coverage_error": last_N,
        "nll": ranks.per_sample(-np.log(np.maximum(found_P, LEAST_BELIEF))),
        "brier": squares_N - 2 * ranks.per_sample(found_P) + 1 / ranks.emoji_N,
    }
    if groups_K is not None:
        columns |= {f"semantic_top{k}": ranks.same_group(groups_K, k) for k in KS}
    return columns


def _hits(ranks: Ranking, part_K: np.ndarray) -> Columns:
    best_N = ranks.best(part_K)
    return {f"top{k}": best_N <= k for k in KS} | {"mrr": 1 / best_N}


def _gaps(
    confidence_N: np.ndarray, right_N: np.ndarray, among_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence less rightness of each sample in the column of its bin; bins of equal size."""
    members = np.flatnonzero(among_N)
    gap_NB = np.zeros((len(among_N), BINS), np.float32)
    ordered = members[np.argsort(confidence_N[members], kind="stable")]
    for column, inside in enumerate(np.array_split(ordered, BINS)):
        gap_NB[inside, column] = confidence_N[inside] - right_N[inside]
    return gap_NB, among_N.astype(np.float32)


def _precisions(belief_NK: np.ndarray, truth_NK: np.ndarray, part_K: np.ndarray) -> dict[str, Any]:
    """Average precision of each emoji, its standard error, and the samples' influence on means."""
    count, outputs = truth_NK.shape
    value_K, spread_K = np.full(outputs, np.nan), np.full(outputs, np.nan)
    influence_NQ = np.zeros((count, 1 + len(PARTS)))
    met_K = np.asarray(truth_NK.any(0))
    met_Q = [met_K.sum(), *(met_K[part_K == number].sum() for number in range(len(PARTS)))]
    for index in np.flatnonzero(met_K):
        value_K[index], influence_N = average_precision(
            np.ascontiguousarray(belief_NK[:, index]), truth_NK[:, index]
        )
        spread_K[index] = np.sqrt((influence_N**2).sum())
        for column in (0, 1 + part_K[index]):
            influence_NQ[:, column] += influence_N / met_Q[column]
    influence = influence_NQ.astype(np.float32)
    return {"precision_K": value_K, "spread_K": spread_K, "influence_NQ": influence}


def _sums(class_P: np.ndarray, value_PC: np.ndarray, outputs: int) -> np.ndarray:
    """The sum of the rows of each class, (K, C)."""
    sums_KC = np.zeros((outputs, value_PC.shape[1]), np.float32)
    if len(class_P):
        order = np.argsort(class_P, kind="stable")
        present, begins = np.unique(class_P[order], return_index=True)
        sums_KC[present] = np.add.reduceat(value_PC[order], begins, axis=0)
    return sums_KC


def _mean(value_KC: np.ndarray) -> np.ndarray:
    """Over the emoji that the resample has, (C,)."""
    known_KC = np.isfinite(value_KC)
    return np.where(known_KC, value_KC, 0).sum(0) / np.maximum(known_KC.sum(0), 1)
