"""What belongs together: looks of pictures, sub-meanings and neighbours of emoji, and their map."""

# S pictures, F features, D dimensions, E emoji

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

DIMENSIONS = 48
FINE, COARSE = 160, 32  # looks, at most
PER_LOOK = 25  # pictures, at least, on the average
SUB_MEANINGS = 4
LEAST_IN_GROUP = 6  # pictures
PERPLEXITY = 18.0
LEAST_TOGETHER = 5  # authors who post two emoji together
STEPS = 700


class Looks(NamedTuple):
    """The kinds of pictures that there are, whatever they show; -1 for what cannot be read."""

    fine_S: np.ndarray
    coarse_S: np.ndarray
    fine: int
    coarse: int
    names: Sequence[str]
    """First of the fine, then of the coarse: the class that most of their pictures show."""
    embedded_SD: np.ndarray

    def middles(self) -> np.ndarray:
        """(K, D) The mean of each fine look."""
        there = self.fine_S >= 0
        sums_KD = np.zeros((self.fine, self.embedded_SD.shape[1]))
        np.add.at(sums_KD, self.fine_S[there], self.embedded_SD[there])
        return sums_KD / np.maximum(np.linalg.norm(sums_KD, axis=1, keepdims=True), 1e-9)


def embedded(features_SF: np.ndarray) -> np.ndarray:
    """(S, D) Directions of features, centred, the main ones alone; NaN where there are none."""
    there = np.isfinite(features_SF[:, 0])
    x = features_SF[there].astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    dimensions = min(DIMENSIONS, *x.shape)
    embedded_SD = np.full((len(features_SF), dimensions), np.nan, np.float32)
    if len(x):
        x = PCA(dimensions, svd_solver="randomized", random_state=0).fit_transform(x)
        embedded_SD[there] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return embedded_SD


def looks(embedded_SD: np.ndarray, class_S: np.ndarray, names: Sequence[str]) -> Looks:
    """Clusters of all pictures, at two grains."""
    there = np.isfinite(embedded_SD[:, 0]) if embedded_SD.size else np.zeros(len(embedded_SD), bool)
    found, counts, titles = [], [], []
    for most in (FINE, COARSE):
        count = int(np.clip(there.sum() // PER_LOOK, 1, most))
        of_S = np.full(len(embedded_SD), -1)
        if there.any():
            of_S[there] = _clusters(embedded_SD[there], count)
        found.append(of_S)
        counts.append(count)
        titles += [title(class_S[of_S == cluster], names) for cluster in range(count)]
    return Looks(found[0], found[1], counts[0], counts[1], titles, embedded_SD)


def _clusters(x_ND: np.ndarray, count: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different pictures than clusters
        fitted = KMeans(count, n_init=2, max_iter=60, random_state=0).fit(x_ND)
    return np.asarray(fitted.labels_)


def title(class_N: np.ndarray, names: Sequence[str]) -> str:
    """What pictures of these classes look like, in words."""
    counted = Counter(class_N[class_N >= 0].tolist())
    best = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:2]
    return "like " + " or ".join(names[one] for one, _ in best) if best else "without a name"


def sub_meanings(embedded_SD: np.ndarray, members: Sequence[int]) -> list[list[int]]:
    """Groups of an emoji's pictures, the largest first, each with its most typical ones first."""
    there = [s for s in members if embedded_SD.size and np.isfinite(embedded_SD[s, 0])]
    count = min(SUB_MEANINGS, len(there) // LEAST_IN_GROUP)
    if count < 2:
        return [there] if there else []
    x_ND = embedded_SD[there]
    of_N = _clusters(x_ND, count)
    groups = []
    for cluster in range(count):
        inside = np.flatnonzero(of_N == cluster)
        if not len(inside):
            continue
        near = x_ND[inside] @ x_ND[inside].mean(0)
        groups.append([there[inside[place]] for place in np.argsort(-near, kind="stable")])
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def means(embedded_SD: np.ndarray, members_E: Sequence[Sequence[int]]) -> np.ndarray:
    """(E, D) The mean direction of each emoji's pictures; zero for one without any."""
    mean_ED = np.zeros((len(members_E), embedded_SD.shape[1]), np.float32)
    for emoji, members in enumerate(members_E):
        if len(members):
            rows = embedded_SD[list(members)]
            rows = rows[np.isfinite(rows[:, 0])] if rows.size else rows
            if len(rows):
                mean_ED[emoji] = rows.mean(0)
    centred_ED = mean_ED - mean_ED.mean(0)
    return centred_ED / np.maximum(np.linalg.norm(centred_ED, axis=1, keepdims=True), 1e-6)


def neighbours(mean_ED: np.ndarray, shown: Sequence[int], most: int = 6) -> dict[int, list[int]]:
    """Of each emoji, those whose pictures are most like its own."""
    near_NN = mean_ED[list(shown)] @ mean_ED[list(shown)].T
    np.fill_diagonal(near_NN, -np.inf)
    order_NN = np.argsort(-near_NN, axis=1, kind="stable")[:, : min(most, len(shown) - 1)]
    return {one: [shown[n] for n in order_NN[row]] for row, one in enumerate(shown)}


def plane(mean_ED: np.ndarray) -> np.ndarray:
    """(E, 2) A map in [0, 1] where emoji with like pictures lie together; always the same."""
    count = len(mean_ED)
    if count < 4:
        return np.stack([np.linspace(0.2, 0.8, count), np.full(count, 0.5)], 1)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    start_E2 = PCA(2, svd_solver="full").fit_transform(mean_ED)
    start_E2 = (start_E2 / np.maximum(start_E2.std(0), 1e-9) * 1e-4).astype(np.float32)
    map_E2 = TSNE(
        2, perplexity=perplexity, init=start_E2, random_state=0, max_iter=STEPS, method="exact"
    ).fit_transform(mean_ED)
    low, high = map_E2.min(0), map_E2.max(0)
    return (map_E2 - low) / np.maximum(high - low, 1e-9)


class Edge(NamedTuple):
    """Two emoji that people post together, and how many times as often as by chance."""

    one: int
    other: int
    authors: int
    lift: float


def together(authors: Sequence[int], emoji: Sequence[tuple[int, ...]]) -> list[Edge]:
    """Pairs by lift, counted by authors, the most surprising that are no accident first."""
    pairs, singles = set(), set()
    for author, own in zip(authors, emoji, strict=True):
        singles |= {(one, author) for one in own}
        pairs |= {(one, other, author) for one in own for other in own if one < other}
    of_one = Counter(one for one, _ in singles)
    total = max(1, len({author for _, author in singles}))
    edges = [
        Edge(one, other, count, count * total / (of_one[one] * of_one[other]))
        for (one, other), count in Counter((a, b) for a, b, _ in pairs).items()
        if count >= LEAST_TOGETHER
    ]
    # By surprise: authors times log lift is the log-likelihood that chance must explain.
    return sorted(
        (edge for edge in edges if edge.lift > 1),
        key=lambda edge: (-edge.authors * np.log(edge.lift), edge.one, edge.other),
    )
