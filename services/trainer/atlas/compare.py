"""Two segments of the posts side by side: a brand's and its category's, one campaign and the last.

Lift is the share of the one's posts with an emoji (or, of those, with a sign), over the other's.
Whoever posts much weighs less, and the interval is as wide as if each author had spoken once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from services.shared.errors import MalformedRequest
from services.trainer.atlas.corpus import Posts
from services.trainer.bootstrap import Interval

LEAST_AUTHORS = 5  # of both segments together, for a line
MOST_TERMS = 400
NAMED = 10
Z = 1.96


class Line(NamedTuple):
    """How much more the first segment has of something."""

    emoji: int
    term: str
    """Empty for the emoji itself."""
    authors: tuple[int, int]
    """Who use it, in each segment."""
    shares: tuple[float, float]
    """Of the posts, or of those with the emoji."""
    lift: Interval


class Comparison(NamedTuple):
    """Of two segments, what differs most surely first."""

    segments: tuple[str, str]
    posts: tuple[int, int]
    authors: tuple[int, int]
    lines: Sequence[Line]


def compared(posts: Posts, segments: tuple[str, str]) -> Comparison:
    """The comparison.

    Raises:
        MalformedRequest: a segment has no post; says which there are.
    """
    known = sorted(set(posts.segment) - {""})
    for segment in segments:
        if segment not in known:
            there = ", ".join(known[:NAMED]) if known else "none; a table's column `segment` says"
            raise MalformedRequest(
                f"No post is of the segment {segment!r:.80}. There are: {there:.400}.",
                field="compare",
            )
    side_P = [segments.index(name) if name in segments else -1 for name in posts.segment]
    wrote = Counter(zip(posts.author.tolist(), side_P, strict=True))
    users: dict[tuple[int, str], _Sides] = {}
    everyone: _Sides = ({}, {})
    for post, side in enumerate(side_P):
        if side < 0:
            continue
        author = int(posts.author[post])
        weight = wrote[author, side] ** -0.5
        _add(everyone[side], author, weight)
        for emoji in posts.emoji[post]:
            for term in ("", *posts.terms[post]):
                _add(users.setdefault((emoji, term), ({}, {}))[side], author, weight)
    return Comparison(
        segments,
        (side_P.count(0), side_P.count(1)),
        (len(everyone[0]), len(everyone[1])),
        _lines(users, everyone),
    )


_Sides = tuple[dict[int, float], dict[int, float]]
"""What the posts of each author weigh, in both segments."""


def _add(weights: dict[int, float], author: int, weight: float) -> None:
    weights[author] = weights.get(author, 0.0) + weight


def _lines(users: dict[tuple[int, str], _Sides], everyone: _Sides) -> list[Line]:
    lines = []
    for (emoji, term), sides in sorted(users.items()):
        among = users[emoji, ""] if term else everyone
        if len(sides[0].keys() | sides[1].keys()) < LEAST_AUTHORS or not all(among):
            continue
        authors = (len(sides[0]), len(sides[1]))
        shares = (_share(sides[0], among[0]), _share(sides[1], among[1]))
        lines.append(Line(emoji, term, authors, shares, _lift(sides, among)))
    surest = sorted(lines, key=lambda line: (-_surely(line.lift), line.emoji, line.term))
    terms = [line for line in surest if line.term][:MOST_TERMS]
    return [line for line in surest if not line.term] + terms


def _share(some: dict[int, float], among: dict[int, float]) -> float:
    return sum(some.values()) / sum(among.values())


def _lift(sides: _Sides, among: _Sides) -> Interval:
    """The ratio of the shares, half a post added to each, with its interval."""
    value, variance = 0.0, 0.0
    for side, sign in ((0, 1), (1, -1)):
        has, total = sum(sides[side].values()), sum(among[side].values())
        squares = sum(weight**2 for weight in sides[side].values())
        design = max(1.0, squares / has) if has else 1.0
        share = (has + 0.5) / (total + 1)
        value += sign * float(np.log(share))
        variance += design * (1 - share) / (has + 0.5)
    reach = Z * float(np.sqrt(variance))
    return Interval(*(float(np.exp(end)) for end in (value, value - reach, value + reach)))


def _surely(lift: Interval) -> float:
    """How far the interval is from no difference; negative if it holds that."""
    return float(max(np.log(lift.low), -np.log(lift.high)))
