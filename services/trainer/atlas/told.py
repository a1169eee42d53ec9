"""All that an atlas says, as plain values: what the page shows and the tables hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.trainer.atlas.compare import Comparison
from services.trainer.atlas.drift import Drift
from services.trainer.atlas.groups import Edge
from services.trainer.atlas.meaning import Meaning
from services.trainer.atlas.pictures import Chosen
from services.trainer.atlas.saliency import Explained


@dataclass(frozen=True, kw_only=True)
class SubMeaning:
    """Pictures of an emoji that look alike."""

    share: float
    looks: str
    terms: Sequence[str]
    pictures: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class OfEmoji:
    """All about one emoji."""

    index: int
    emoji: str
    name: str
    group: str
    pictures: int
    place: tuple[float, float]
    """On the map, from 0 to 1."""
    meaning: Meaning
    drift: Drift
    chosen: Chosen
    explained: Explained | None
    sub_meanings: Sequence[SubMeaning]
    neighbours: Sequence[int]
    together: Sequence[Edge]


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All about a corpus."""

    name: str
    kind: str
    digest: str
    model: str
    pictures: int
    posts: int
    authors: int
    months: tuple[str, str] | None
    """The first and the last with a post."""
    removed: int
    unreadable: int
    limits: Sequence[str]
    """What could not be told, why, and what to do about it."""
    emoji: Sequence[OfEmoji]
    edges: Sequence[Edge]
    comparison: Comparison | None
    thumbnails: Mapping[int, str]
    links: Mapping[int, str]
    """The post of a picture, where it has an address on the web."""
    captions: Mapping[int, str]
    """The emoji that a picture was posted with."""

    @property
    def sanity(self) -> float:
        """How much saliency agrees with that of random weights, the median; NaN if unknown."""
        known = [one.explained.agreement for one in self.emoji if one.explained]
        known = [value for value in known if np.isfinite(value)]
        return float(np.median(known)) if known else float("nan")
