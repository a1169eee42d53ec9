"""Two segments of the posts side by side: a brand's and its category's, one campaign and the last.

Authors are counted, not posts: lift is the odds that an author of the one uses an emoji (or, with
it, a sign), over those of the other's.
"""

# Q things that are compared

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
    among: tuple[int, int]
    lift: Interval


class Comparison(NamedTuple):
    """Of two segments, what differs most surely first."""

    segments: tuple[str, str]
    posts: tuple[int, int]
    authors: tuple[int, int]
    lines: Sequence[Line]


def asked(text: str) -> tuple[str, str]:
    """The two segments of `segment=A,B`.

    Raises:
        MalformedRequest: it is something else.

    >>> asked("segment=brand,category")
    ('brand', 'category')
    """
    field, _, names = text.partition("=")
    parts = names.split(",")
    if field != "segment" or len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise MalformedRequest(
            f"`compare` is segment=A,B with two different segments, and not {text!r:.80}.",
            field="compare",
        )
    return parts[0], parts[1]


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
    authors: list[set[int]] = [set(), set()]
    users: dict[tuple[int, str], tuple[set[int], set[int]]] = {}
    for post, side in enumerate(side_P):
        if side < 0:
            continue
        author = int(posts.author[post])
        authors[side].add(author)
        for emoji in posts.emoji[post]:
            for term in ("", *posts.terms[post]):
                users.setdefault((emoji, term), (set(), set()))[side].add(author)
    return Comparison(
        segments,
        (side_P.count(0), side_P.count(1)),
        (len(authors[0]), len(authors[1])),
        _lines(users, (len(authors[0]), len(authors[1]))),
    )


def _lines(
    users: dict[tuple[int, str], tuple[set[int], set[int]]], everyone: tuple[int, int]
) -> list[Line]:
    lines = []
    for (emoji, term), (one, other) in sorted(users.items()):
        if len(one | other) < LEAST_AUTHORS:
            continue
        of_emoji = users[emoji, ""]
        among = (len(of_emoji[0]), len(of_emoji[1])) if term else everyone
        if min(among) == 0:
            continue
        lines.append(
            Line(emoji, term, (len(one), len(other)), among, _lift(len(one), len(other), among))
        )
    surest = sorted(lines, key=lambda line: (-_surely(line.lift), line.emoji, line.term))
    terms = [line for line in surest if line.term][:MOST_TERMS]
    return [line for line in surest if not line.term] + terms


def _lift(one: int, other: int, among: tuple[int, int]) -> Interval:
    """The odds ratio with half a case added everywhere (Haldane, Anscombe), and its interval."""
    cells = np.array([one, among[0] - one, other, among[1] - other]) + 0.5
    value, error = np.log(cells[0] / cells[1] * cells[3] / cells[2]), np.sqrt((1 / cells).sum())
    ends = np.exp([value, value - Z * error, value + Z * error])
    return Interval(*(float(end) for end in ends))


def _surely(lift: Interval) -> float:
    """How far the interval is from no difference; negative if it holds that."""
    return float(max(np.log(lift.low), -np.log(lift.high)))
