"""Whether what an emoji means has changed, and when.

For every sign, and for being literal, posts before and after each possible date are compared; the
largest difference of all is held against those of the same posts with their times shuffled. So
many comparisons cost nothing but sharpness: chance has had as many. An author counts once a month.
"""

# M mentions, U units (an author's posts of a month), X signs, B bins

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from services.trainer.atlas.corpus import Posts
from services.trainer.atlas.signs import Mentions, Signs

MONTH_SECONDS = 30.4375 * 86_400
LEAST_UNITS, LEAST_AUTHORS = 30, 5  # of an emoji; of a sign
MOST_SIGNS, BINS = 48, 40
EDGE = 0.05  # of the units lie before the first date that is tried
SHUFFLES, ENOUGH = 4999, 10
RELATED = 0.6  # of the largest difference: what changed together
LEAST_Z = 3.0
FALSE_DISCOVERIES = 0.05
SHOWS = "what it shows"


class Change(NamedTuple):
    """A sign's share of the posts before and after."""

    name: str
    before: float
    after: float


class Drift(NamedTuple):
    """How one emoji fares in time."""

    posts: int
    p_value: float
    q_value: float
    drifted: bool
    seconds: float
    """When the change was, since 1970; NaN where none was found."""
    changes: Sequence[Change]


NONE = Drift(0, 1.0, 1.0, False, float("nan"), ())


def drifts(
    posts: Posts,
    of: Mentions,
    channels: Sequence[Signs],
    marks: Mapping[str, np.ndarray],
    emoji: int,
) -> list[Drift]:
    """Of every emoji; `marks` say by channel which mentions carry a social meaning, if any."""
    known_M = np.isfinite(posts.seconds[of.post_M])
    order_M = np.argsort(of.emoji_M, kind="stable")
    starts = np.searchsorted(of.emoji_M[order_M], np.arange(emoji + 1))
    carried = [_by_mention(signs, len(of.post_M)) for signs in channels]
    whole = {SHOWS: np.logical_or.reduce([signs.literal_M for signs in channels])}
    whole |= {f"another meaning, by {channel}": marked for channel, marked in marks.items()}
    found = []
    for one in range(emoji):
        inside = order_M[starts[one] : starts[one + 1]]
        inside = inside[known_M[inside]]
        seconds = posts.seconds[of.post_M[inside]]
        inside = inside[np.argsort(seconds, kind="stable")]
        found.append(_of_one(posts, of, channels, carried, whole, inside))
    return _corrected(found)


def _by_mention(signs: Signs, count: int) -> list[np.ndarray]:
    order = np.argsort(signs.mention_T, kind="stable")
    ends = np.searchsorted(signs.mention_T[order], np.arange(1, count))
    return np.split(signs.sign_T[order], ends)


def _of_one(
    posts: Posts,
    of: Mentions,
    channels: Sequence[Signs],
    carried: Sequence[Sequence[np.ndarray]],
    whole: Mapping[str, np.ndarray],
    inside: np.ndarray,
) -> Drift:
    author_N = posts.author[of.post_M[inside]]
    seconds_N = posts.seconds[of.post_M[inside]]
    names, x_NX = _columns(channels, carried, whole, inside, author_N)
    unit_N, count = _units(author_N, seconds_N)
    if count < LEAST_UNITS or seconds_N[0] == seconds_N[-1]:
        return NONE._replace(posts=len(inside))
    sizes_U = np.bincount(unit_N, minlength=count)
    x_UX = np.stack([np.bincount(unit_N, column, count) for column in x_NX.T], 1) / sizes_U[:, None]
    when_U = np.bincount(unit_N, seconds_N, count) / sizes_U
    x_UX = x_UX[np.argsort(when_U, kind="stable")]
    p_value, best_X = _shuffled(x_UX)
    strongest = np.abs(best_X).max(initial=0)
    lead = best_X[np.abs(best_X).argmax()] if len(best_X) else 0.0
    same = (np.sign(best_X) == np.sign(lead)) & (
        np.abs(best_X) >= max(LEAST_Z, RELATED * strongest)
    )
    if not same.any():
        return NONE._replace(posts=len(inside), p_value=p_value)
    date, place = _date(x_NX[:, same].max(1), seconds_N)
    strong = np.flatnonzero(np.abs(best_X) >= max(LEAST_Z, RELATED * strongest))
    strong = strong[np.argsort(-np.abs(best_X[strong]), kind="stable")][:6]
    changes = [
        Change(names[x], float(x_NX[:place, x].mean()), float(x_NX[place:, x].mean()))
        for x in strong
    ]
    return Drift(len(inside), p_value, 1.0, False, date, changes)


def _columns(
    channels: Sequence[Signs],
    carried: Sequence[Sequence[np.ndarray]],
    whole: Mapping[str, np.ndarray],
    inside: np.ndarray,
    author_N: np.ndarray,
) -> tuple[list[str], np.ndarray]:
    """The signs of most authors, as columns of posts in the order of time."""
    names, columns = list(whole), [column[inside] for column in whole.values()]
    for signs, by_mention in zip(channels, carried, strict=True):
        rows: dict[int, list[int]] = {}
        for row, mention in enumerate(inside.tolist()):
            for sign in by_mention[mention].tolist():
                rows.setdefault(sign, []).append(row)
        counted = {sign: len(np.unique(author_N[own])) for sign, own in rows.items()}
        often = sorted(
            (s for s, n in counted.items() if n >= LEAST_AUTHORS), key=lambda s: (-counted[s], s)
        )
        for sign in often[: MOST_SIGNS // len(channels)]:
            column = np.zeros(len(inside), bool)
            column[rows[sign]] = True
            names.append(signs.names[sign])
            columns.append(column)
    return names, np.stack(columns, 1)


def _units(author_N: np.ndarray, seconds_N: np.ndarray) -> tuple[np.ndarray, int]:
    months = np.floor(seconds_N / MONTH_SECONDS).astype(np.int64)
    pairs, unit_N = np.unique(np.stack([author_N, months]), axis=1, return_inverse=True)
    return unit_N.ravel(), pairs.shape[1]


def _shuffled(x_UX: np.ndarray) -> tuple[float, np.ndarray]:
    """The p-value of the largest difference, and each column's largest, with its sign.

    A difference is the root of twice the gain in log-likelihood: unlike one in standard errors it
    does not run wild where a rare sign meets a short stretch of time.
    """
    count = len(x_UX)
    places = np.linspace(count * EDGE, count * (1 - EDGE), min(BINS, count // 3))
    cuts_B = np.unique(np.maximum(places.astype(int), 1))
    starts = np.concatenate([[0], cuts_B[:-1]])
    total_X, before_B1 = x_UX.sum(0), cuts_B[:, None].astype(float)
    whole_X = _likelihood(total_X, np.array(float(count)))

    def gains(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        has_BX = np.add.reduceat(rows[: cuts_B[-1]], starts, axis=0).cumsum(0)
        split_BX = _likelihood(has_BX, before_B1)
        split_BX += _likelihood(total_X - has_BX, count - before_B1)
        return split_BX - whole_X, has_BX

    found_BX, has_BX = gains(x_UX)
    columns = np.arange(len(total_X))
    largest_X = found_BX.argmax(0)
    rising_X = has_BX[largest_X, columns] < total_X * cuts_B[largest_X] / count
    best_X = np.sqrt(2 * np.maximum(found_BX[largest_X, columns], 0)) * np.where(rising_X, 1, -1)
    least = found_BX.max() * (1 - 1e-9)
    random = np.random.Generator(np.random.Philox(count))
    exceeding = 0
    for shuffle in range(1, SHUFFLES + 1):
        exceeding += bool(gains(x_UX[random.permutation(count)])[0].max() >= least)
        if exceeding == ENOUGH:  # Besag and Clifford: as good a p-value, and soon
            return ENOUGH / shuffle, best_X
    return (exceeding + 1) / (SHUFFLES + 1), best_X


def _likelihood(has: np.ndarray, posts: np.ndarray) -> np.ndarray:
    """Logarithm of the greatest likelihood of so many posts with a sign."""
    lacks = np.maximum(posts - has, 0)
    return np.asarray(
        special.xlogy(has, np.maximum(has, 1e-12) / posts) + special.xlogy(lacks, lacks / posts)
    )


def _date(has_N: np.ndarray, seconds_N: np.ndarray) -> tuple[float, int]:
    """When a share changed most likely, between two posts."""
    count = len(has_N)
    before = np.arange(1.0, count)
    has = has_N.cumsum()[:-1].astype(float)
    gain = _likelihood(has, before) + _likelihood(has_N.sum() - has, count - before)
    margin = max(1, int(count * EDGE / 2))
    place = margin + int(gain[margin - 1 : count - margin].argmax())
    return float((seconds_N[place - 1] + seconds_N[place]) / 2), place


def _corrected(found: list[Drift]) -> list[Drift]:
    """With false discoveries among all emoji held down (Benjamini and Hochberg)."""
    q_E = stats.false_discovery_control([drift.p_value for drift in found])
    return [
        drift._replace(
            q_value=float(one),
            drifted=bool(one <= FALSE_DISCOVERIES and np.isfinite(drift.seconds)),
        )
        for drift, one in zip(found, q_E, strict=True)
    ]
