"""The literal-social score: how much of what people post with an emoji is not what it shows.

Signs are chosen with nine tenths of the authors and counted in the posts of the last tenth, ten
times over: what one author or campaign says often is chosen with them, and then found with nobody
else. The score is the share of an emoji's posts that carry such signs, less the share of other
posts that carry them, at the lower end of its interval. An emoji is flagged if chance explains its
count badly (Poisson tail, false discoveries among all emoji held to 5 %, Benjamini and Hochberg),
if the score is not tiny, and if several authors agree.
"""

# P posts, M mentions, E emoji, V signs, Q pairs of emoji and sign, K folds, T (mention, sign)

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse, special, stats

from services.trainer.atlas import terms
from services.trainer.atlas.corpus import Posts
from services.trainer.atlas.signs import Mentions, Signs
from services.trainer.bootstrap import Interval, wilson

FOLDS = 10
LEAST_CHANCE = 3e-4  # of a sign's count by chance, to be chosen
LEAST_Z = 2.5  # of a sign, to be shown
LEAST_SAYING = 2  # authors among those who choose
MOST_SIGNS = 60  # of an emoji
LEAST_AUTHORS = 8  # of an emoji, to be judged
LEAST_AGREEING = 4  # authors who carry what was chosen, to be flagged
LEAST_SCORE = 0.01
FALSE_DISCOVERIES = 0.05
STRONGEST = 20.0  # powers of ten
SHOWN = 12  # signs of an emoji


class Sign(NamedTuple):
    """A sign that an emoji's posts have more of."""

    name: str
    kind: str
    posts: int
    authors: int
    log_odds: Interval


class Meaning(NamedTuple):
    """What is known of one emoji's meaning."""

    posts: int
    authors: int
    judged: bool
    literal: float
    """Share of the posts that name or show what the emoji is."""
    social: Interval
    """Share of the posts with another meaning, beyond what other posts have of its signs."""
    by: str
    """The channel that says so best: words or pictures."""
    p_value: float
    q_value: float
    agreeing: int
    flagged: bool
    strongest: float
    """How unlikely chance makes the strongest sign, in powers of ten."""
    signs: Sequence[Sign]

    @property
    def score(self) -> float:
        """From below 0, nothing, to 1, all of it.

        Up to a thousandth by the strongest sign, which ranks those of whom nothing is sure.
        """
        return self.social.low + 1e-3 * min(self.strongest / STRONGEST, 1.0)


class Found(NamedTuple):
    """What one channel finds, for each emoji."""

    share_E: np.ndarray
    low_E: np.ndarray
    high_E: np.ndarray
    p_E: np.ndarray
    agreeing_E: np.ndarray
    strongest_E: np.ndarray
    marked_M: np.ndarray
    """Which mentions carry a sign that others chose."""
    signs_E: Sequence[Sequence[Sign]]


def meanings(
    posts: Posts, of: Mentions, channels: Sequence[Signs], emoji: int
) -> tuple[list[Meaning], dict[str, np.ndarray]]:
    """Of every emoji; and by channel, which mentions carry its social meaning (M,)."""
    authors_E = _distinct(of.emoji_M, posts.author[of.post_M], emoji)
    posts_E = np.bincount(of.emoji_M, minlength=emoji)
    judged_E = (authors_E >= LEAST_AUTHORS) & posts.authors_known
    judged_E |= (posts_E >= LEAST_AUTHORS) & (not posts.authors_known)
    found = [_Channel(posts, of, signs, emoji).find() for signs in channels]
    p_NE = np.stack([np.where(judged_E, one.p_E, 1.0) for one in found])
    q_NE = stats.false_discovery_control(p_NE, axis=None).reshape(p_NE.shape)
    literal_E = _literal_shares(of, channels, emoji)
    told = []
    for e in range(emoji):
        # What is surest speaks; where nothing is, what is least unlikely.
        best = max(
            range(len(found)), key=lambda n: (_flagged(found[n], q_NE[n], e), found[n].low_E[e])
        )
        one = found[best]
        signs = _strongest(s for f in found for s in f.signs_E[e])
        told.append(
            Meaning(
                posts=int(posts_E[e]),
                authors=int(authors_E[e]),
                judged=bool(judged_E[e]),
                literal=float(literal_E[e]),
                social=Interval(float(one.share_E[e]), float(one.low_E[e]), float(one.high_E[e])),
                by=channels[best].channel,
                p_value=float(one.p_E[e]),
                q_value=float(q_NE[best, e]),
                agreeing=int(one.agreeing_E[e]),
                flagged=bool(judged_E[e] and _flagged(one, q_NE[best], e)),
                strongest=max(float(f.strongest_E[e]) for f in found),
                signs=signs,
            )
        )
    marks = {signs.channel: one.marked_M for signs, one in zip(channels, found, strict=True)}
    return told, marks


def _strength(sign: Sign) -> tuple[bool, float, str]:
    """What has a name of its own comes first."""
    return sign.kind == "look", -sign.log_odds.low, sign.name


def _strongest(signs: Iterable[Sign]) -> list[Sign]:
    """Each name once: two grains of looks may be called alike."""
    by_name: dict[str, Sign] = {}
    for sign in sorted(signs, key=_strength):
        by_name.setdefault(sign.name, sign)
    return list(by_name.values())[:SHOWN]


def _flagged(found: Found, q_E: np.ndarray, emoji: int) -> bool:
    return bool(
        q_E[emoji] <= FALSE_DISCOVERIES
        and found.low_E[emoji] >= LEAST_SCORE
        and found.agreeing_E[emoji] >= LEAST_AGREEING
    )


def _literal_shares(of: Mentions, channels: Sequence[Signs], emoji: int) -> np.ndarray:
    literal_M = np.logical_or.reduce([signs.literal_M for signs in channels])
    return _sums(of.emoji_M, of.weight_M * literal_M, emoji) / np.maximum(
        _sums(of.emoji_M, of.weight_M, emoji), 1e-9
    )


def _sums(places: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(places, values, count)


def _distinct(groups: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
    """How many different members each group has."""
    pairs = np.unique(np.stack([groups, members]), axis=1)
    return np.bincount(pairs[0], minlength=count)


class _Channel:
    """One channel's signs, held against every emoji."""

    def __init__(self, posts: Posts, of: Mentions, signs: Signs, emoji: int) -> None:
        self._of, self._signs, self._emoji = of, signs, emoji
        self._author_M = posts.author[of.post_M]
        fold_P = posts.author % FOLDS
        self._fold_P, self._fold_M = fold_P, fold_P[of.post_M]
        _, inverse, counts = np.unique(posts.author, return_inverse=True, return_counts=True)
        self._weight_P = counts[inverse] ** -0.5
        self._count = max(1, len(signs.names))
        self._pairs()

    def _pairs(self) -> None:
        """Counts of each pair of emoji and sign, by fold."""
        of, signs = self._of, self._signs
        emoji_T = of.emoji_M[signs.mention_T]
        key_Q, self._pair_T = np.unique(emoji_T * self._count + signs.sign_T, return_inverse=True)
        self._emoji_Q, self._sign_Q = np.divmod(key_Q, self._count)
        pairs, fold_T = len(key_Q), self._fold_M[signs.mention_T]
        post_T = of.post_M[signs.mention_T]
        slot_T = self._pair_T * FOLDS + fold_T
        self._has_QK = _sums(slot_T, of.weight_M[signs.mention_T], pairs * FOLDS)
        self._has_QK = self._has_QK.reshape(pairs, FOLDS)
        self._among_QK = _sums(slot_T, self._weight_P[post_T], pairs * FOLDS).reshape(pairs, FOLDS)
        author_T = self._author_M[signs.mention_T]
        self._authors_QK = _distinct(slot_T, author_T, pairs * FOLDS).reshape(pairs, FOLDS)
        self._all_EK = _sums(
            of.emoji_M * FOLDS + self._fold_M, of.weight_M, self._emoji * FOLDS
        ).reshape(self._emoji, FOLDS)
        self._theirs_EK = _sums(
            of.emoji_M * FOLDS + self._fold_M, self._weight_P[of.post_M], self._emoji * FOLDS
        ).reshape(self._emoji, FOLDS)
        self._total_VK = np.stack(
            [signs.in_PV.T @ (self._weight_P * (self._fold_P == fold)) for fold in range(FOLDS)],
            1,
        )
        self._total_K = _sums(self._fold_P, self._weight_P, FOLDS)

    def find(self) -> Found:
        """What is chosen by some authors and carried by others."""
        tested = [self._log_odds(fold) for fold in range(FOLDS)]
        z_QK = np.stack([value / error for value, error, _ in tested], 1)
        saying_QK = self._authors_QK.sum(1, keepdims=True) - self._authors_QK
        chance_QK = np.stack([chance for _, _, chance in tested], 1)
        chosen_QK = (chance_QK <= LEAST_CHANCE) & (saying_QK >= LEAST_SAYING)
        for fold in range(FOLDS):
            chosen_QK[:, fold] &= self._among_best(z_QK[:, fold], chosen_QK[:, fold])
        marked_M = self._marked(z_QK, chosen_QK)
        expected_E = self._expected(chosen_QK)
        return self._judge(marked_M, expected_E)

    def _log_odds(self, without: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, error and chance of each pair, by the authors of all folds but one, or of all."""
        kept = np.array([fold != without for fold in range(FOLDS)])
        has_Q, among_Q = self._has_QK[:, kept].sum(1), self._among_QK[:, kept].sum(1)
        total_V, total = self._total_VK[:, kept].sum(1), self._total_K[kept].sum()
        own_E, theirs_E = self._all_EK[:, kept].sum(1), self._theirs_EK[:, kept].sum(1)
        design_Q = self._design() if without is None else 1.0
        counts = (
            has_Q,
            own_E[self._emoji_Q],
            np.maximum(total_V[self._sign_Q] - among_Q, 0),
            np.maximum(total - theirs_E, 0)[self._emoji_Q],
            total_V[self._sign_Q] / max(total, 1e-9),
        )
        return *terms.log_odds(*counts, design_Q), terms.chance(*counts)

    def _design(self) -> np.ndarray:
        """How many posts with a pair's sign count as one, since the same author wrote them."""
        pair_T, author_T = self._pair_T, self._author_M[self._signs.mention_T]
        weight_T = self._of.weight_M[self._signs.mention_T]
        return _design(pair_T, author_T, weight_T, len(self._emoji_Q))

    def _among_best(self, z_Q: np.ndarray, chosen_Q: np.ndarray) -> np.ndarray:
        """Whether each is one of its emoji's strongest."""
        order = np.lexsort((self._sign_Q, -z_Q, ~chosen_Q, self._emoji_Q))
        starts = np.searchsorted(self._emoji_Q[order], np.arange(self._emoji))
        place_Q = np.empty(len(order), np.int64)
        place_Q[order] = np.arange(len(order)) - starts[self._emoji_Q[order]]
        return place_Q < MOST_SIGNS

    def _marked(self, z_QK: np.ndarray, chosen_QK: np.ndarray) -> np.ndarray:
        """(M,) Mentions with a chosen sign, which speaks for no other emoji of the post more."""
        signs, of = self._signs, self._of
        fold_T = self._fold_M[signs.mention_T]
        z_T, chosen_T = z_QK[self._pair_T, fold_T], chosen_QK[self._pair_T, fold_T]
        _, place_T = np.unique(
            of.post_M[signs.mention_T] * self._count + signs.sign_T, return_inverse=True
        )
        best = np.full(place_T.max(initial=0) + 1, -np.inf)
        np.maximum.at(best, place_T, z_T)
        marked_M = np.zeros(len(of.post_M), bool)
        marked_M[signs.mention_T[chosen_T & (z_T >= best[place_T])]] = True
        return marked_M

    def _expected(self, chosen_QK: np.ndarray) -> np.ndarray:
        """(E,) How many marks there would be if the emoji's posts were like others."""
        expected_E = np.zeros(self._emoji)
        for fold in range(FOLDS):
            rows = np.flatnonzero(self._fold_P == fold)
            chosen = np.flatnonzero(chosen_QK[:, fold])
            chosen_VE = sparse.csr_array(
                (np.ones(len(chosen)), (self._sign_Q[chosen], self._emoji_Q[chosen])),
                shape=(self._count, self._emoji),
            )
            carry_PE = (self._signs.in_PV[rows] @ chosen_VE).astype(bool).astype(float)
            weight_P = self._weight_P[rows]
            inside = self._fold_M == fold
            place_M = np.searchsorted(rows, self._of.post_M[inside])
            own_PE = sparse.csr_array(
                (np.ones(inside.sum()), (place_M, self._of.emoji_M[inside])),
                shape=carry_PE.shape,
            )
            others_E = weight_P @ carry_PE - weight_P @ carry_PE.multiply(own_PE).tocsr()
            there_E = np.maximum(self._total_K[fold] - self._theirs_EK[:, fold], 0)
            expected_E += self._all_EK[:, fold] * (others_E + 0.5) / (there_E + 1)
        return expected_E

    def _judge(self, marked_M: np.ndarray, expected_E: np.ndarray) -> Found:
        of, emoji = self._of, self._emoji
        marked = np.flatnonzero(marked_M)
        weight_M = of.weight_M
        total_E = np.maximum(self._all_EK.sum(1), 1e-9)
        count_E = _sums(of.emoji_M[marked], weight_M[marked], emoji)
        design_E = _design(of.emoji_M[marked], self._author_M[marked], weight_M[marked], emoji)
        p_E = np.where(
            count_E > 0,
            special.gammainc(np.maximum(count_E / design_E, 1e-9), expected_E / design_E),
            1.0,
        )
        share_E, base_E = count_E / total_E, expected_E / total_E
        strongest_E = np.zeros(emoji)
        powers_Q = -np.log10(np.maximum(self._log_odds(None)[2], 1e-300))
        several_Q = self._authors_QK.sum(1) >= LEAST_SAYING
        np.maximum.at(strongest_E, self._emoji_Q, powers_Q * several_Q)
        low_E, high_E = wilson(count_E / design_E, total_E / design_E)
        return Found(
            share_E=share_E - base_E,
            low_E=low_E - base_E,
            high_E=high_E - base_E,
            p_E=p_E,
            agreeing_E=_distinct(of.emoji_M[marked], self._author_M[marked], emoji),
            strongest_E=strongest_E,
            marked_M=marked_M,
            signs_E=self._shown(),
        )

    def _shown(self) -> list[list[Sign]]:
        """The signs of each emoji that are surely over-represented, by all authors."""
        value_Q, error_Q, _ = self._log_odds(None)
        z_Q = value_Q / error_Q
        posts_Q = np.bincount(self._pair_T, minlength=len(z_Q))
        authors_Q = self._authors_QK.sum(1)
        shown: list[list[Sign]] = [[] for _ in range(self._emoji)]
        sure = np.flatnonzero((z_Q >= LEAST_Z) & (authors_Q >= LEAST_SAYING + 1))
        for q in sure.tolist():
            reach = terms.Z * error_Q[q]
            sign = int(self._sign_Q[q])
            shown[self._emoji_Q[q]].append(
                Sign(
                    self._signs.names[sign],
                    self._signs.kinds[sign],
                    int(posts_Q[q]),
                    int(authors_Q[q]),
                    Interval(
                        float(value_Q[q]), float(value_Q[q] - reach), float(value_Q[q] + reach)
                    ),
                )
            )
        return [_strongest(signs) for signs in shown]


def _design(
    group_N: np.ndarray, author_N: np.ndarray, weight_N: np.ndarray, groups: int
) -> np.ndarray:
    """The design effect of each group: what its posts weigh, over how many authors carry it."""
    pairs, inverse = np.unique(np.stack([group_N, author_N]), axis=1, return_inverse=True)
    sum_A = np.bincount(inverse.ravel(), weight_N, pairs.shape[1])
    squares = np.bincount(pairs[0], sum_A**2, groups)
    total = np.bincount(pairs[0], sum_A, groups)
    return np.maximum(squares / np.maximum(total, 1e-9), 1.0)
