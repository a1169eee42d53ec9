"""The emoji of each sample in the order a model puts them, and what follows from that order."""

# N samples, K emoji, P pairs of a sample and one of its emoji, M places, C columns of weights

from typing import NamedTuple

import numpy as np

PLACES = 10  # that are looked at, unless a sample has more emoji
ROWS = 1024  # sorted at once


class Ranking(NamedTuple):
    """What a model puts first for each sample, and where it puts the truth."""

    first_NM: np.ndarray
    """The emoji in the first places."""
    sample_P: np.ndarray
    """Of each pair the sample, ascending."""
    class_P: np.ndarray
    """Of each pair the emoji."""
    rank_P: np.ndarray
    """Of each pair the place, from 1."""

    @property
    def emoji_N(self) -> np.ndarray:
        """How many emoji each sample has."""
        return np.bincount(self.sample_P, minlength=len(self.first_NM))

    def best(self, part_K: np.ndarray) -> np.ndarray:
        """The best place of any of the sample's emoji in the part, (N,); infinite without one."""
        best_N = np.full(len(self.first_NM), np.inf)
        inside_P = part_K[self.class_P]
        np.minimum.at(best_N, self.sample_P[inside_P], self.rank_P[inside_P])
        return best_N

    def per_sample(self, value_P: np.ndarray) -> np.ndarray:
        """The mean over a sample's emoji, (N,)."""
        return np.bincount(self.sample_P, value_P, len(self.first_NM)) / self.emoji_N

    def average_precision(self) -> np.ndarray:
        """Of each sample's list, (N,): how far up all its emoji stand."""
        inner = np.lexsort((self.rank_P, self.sample_P))  # samples stay in order
        begins_N = np.cumsum(self.emoji_N) - self.emoji_N
        nth_P = np.arange(len(inner)) - np.repeat(begins_N, self.emoji_N) + 1
        return self.per_sample(nth_P / self.rank_P[inner])

    def same_group(self, groups_K: np.ndarray, k: int) -> np.ndarray:
        """Whether one of the first `k` has the group of one of the sample's emoji, (N,) bool."""
        first_Nk = groups_K[self.first_NM[:, :k]]
        fits_P = (first_Nk[self.sample_P] == groups_K[self.class_P][:, None]).any(1)
        return self.per_sample(fits_P) > 0


def ranking(probabilities_NK: np.ndarray, truth_NK: np.ndarray, seed: int) -> Ranking:
    """Sorts each sample's emoji; equals in an order drawn by `seed`, lest the first one profit."""
    count, outputs = probabilities_NK.shape
    sample_P, class_P = np.nonzero(truth_NK)
    places = min(max(PLACES, int(truth_NK.sum(1).max())), outputs)
    first_NM = np.empty((count, places), np.int32)
    rank_P = np.empty(len(sample_P), np.int32)
    random = np.random.Generator(np.random.Philox(seed))
    shifts_N = np.asarray(random.integers(0, outputs, count))
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        turned = (np.arange(outputs) + shifts_N[rows, None]) % outputs
        belief = np.take_along_axis(probabilities_NK[rows], turned, 1)
        order = np.take_along_axis(turned, np.argsort(-belief, axis=1, kind="stable"), 1)
        first_NM[rows] = order[:, :places]
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(1, outputs + 1)[None], 1)
        begin, end = np.searchsorted(sample_P, np.array([start, start + ROWS]))
        pairs = slice(begin, end)
        rank_P[pairs] = place[sample_P[pairs] - start, class_P[pairs]]
    return Ranking(first_NM, sample_P, class_P, rank_P)


def average_precision(score_N: np.ndarray, truth_N: np.ndarray) -> tuple[float, np.ndarray]:
    """Of one emoji over all samples: its average precision, and each sample's influence on it.

    The influence is the derivative by the sample's weight. To first order a resample with weights w
    has the value plus w · influence, which costs one sort for a thousand resamples instead of one
    each (the infinitesimal jackknife; the tests hold it against real resampling).
    """
    order = np.argsort(-score_N, kind="stable")
    score, true = score_N[order], truth_N[order].astype(float)
    # Samples of equal score are found together: at the end of their group.
    new = np.concatenate([[True], score[1:] != score[:-1]])
    begins = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    found = np.append(begins[1:], len(score))[group]  # samples down to here
    right = np.cumsum(true)[found - 1]
    total, precision = true.sum(), right / found
    value = float((true * precision).sum() / total)

    def below(terms: np.ndarray) -> np.ndarray:
        return np.cumsum(terms[::-1])[::-1][begins][group]

    slope = true * (below(true / found) + precision - value) - below(true * precision / found)
    influence_N = np.empty(len(score))
    influence_N[order] = slope / total
    return value, influence_N


class Gallery(NamedTuple):
    """The samples that a model is surest of, emoji by emoji."""

    sample_KT: np.ndarray
    true_KT: np.ndarray

    def precision(self, weight_NC: np.ndarray, size: int = PLACES) -> np.ndarray:
        """Of the first `size` drawn samples of each emoji, the share that carries it, (K, C)."""
        weight_KTC = weight_NC[self.sample_KT]
        above_KTC = np.cumsum(weight_KTC, axis=1) - weight_KTC
        taken_KTC = np.clip(size - above_KTC, 0, weight_KTC)
        return np.einsum("ktc,kt->kc", taken_KTC, self.true_KT) / taken_KTC.sum(1)


def gallery(probabilities_NK: np.ndarray, truth_NK: np.ndarray) -> Gallery:
    """More samples of each emoji than any resample needs to fill ten places."""
    size = min(len(probabilities_NK), 6 * PLACES)
    score_KN = np.ascontiguousarray(probabilities_NK.T)
    surest_KT = np.argpartition(-score_KN, size - 1, axis=1)[:, :size]
    inner = np.argsort(-np.take_along_axis(score_KN, surest_KT, 1), axis=1, kind="stable")
    sample_KT = np.take_along_axis(surest_KT, inner, 1)
    true_KT = truth_NK[sample_KT, np.arange(len(sample_KT))[:, None]]
    return Gallery(sample_KT, true_KT.astype(np.float32))
