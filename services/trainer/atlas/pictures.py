"""Which pictures stand for an emoji, and how they come into the page.

Beside the best ones stand some by chance and some that are wrong: a gallery alone always flatters.
"""

# S pictures, E emoji

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from services.shared import pixels
from services.shared.cores import cores
from services.shared.errors import EmojinetError
from services.trainer import bootstrap, faces
from services.trainer.atlas.corpus import Corpus
from services.trainer.bootstrap import Interval

GALLERY, STRIP, TYPICAL = 12, 6, 4
PRECISION_AT = 20
THUMBNAIL_PX, LEAST_PX, QUALITY = 120, 64, 55
TOTAL_BYTES = 36 << 20  # of all pictures of a page; a third more in base64
THUMBNAIL_BYTES = 3200  # of one, about
LEAST_CHANCE = 1e-6


class Chosen(NamedTuple):
    """The pictures of one emoji, by number."""

    gallery: Sequence[int]
    """Posted with it, those first that the model is surest of."""
    lifted: Sequence[int]
    """Of all pictures those on which it rises most above its own frequency, beside other emoji."""
    chance: Sequence[int]
    wrong: Sequence[int]
    """Not posted with it, though the model is sure."""
    precision: Interval
    """Share of the surest pictures that were posted with it."""
    among: int


class Choice:
    """Chooses pictures; each author and each look-alike once in a strip."""

    def __init__(self, corpus: Corpus, belief_SE: np.ndarray, judged_S: np.ndarray) -> None:
        """With beliefs, NaN where a picture cannot be read, and where precision may be judged."""
        self._belief_SE, self._judged_S = belief_SE, judged_S
        self._there_S = np.isfinite(belief_SE[:, 0])
        self._has_SE = np.zeros(belief_SE.shape, bool)
        for picture, own in enumerate(corpus.labels):
            self._has_SE[picture, list(own)] = True
        mean_E = np.nanmean(belief_SE, 0) if self._there_S.any() else np.ones(belief_SE.shape[1])
        lift_SE = np.log(np.maximum(belief_SE, LEAST_CHANCE) / np.maximum(mean_E, LEAST_CHANCE))
        first_S = np.where(self._there_S, np.nan_to_num(lift_SE, nan=-np.inf).argmax(1), -1)
        top = np.sort(lift_SE, 1)[:, -2:] if lift_SE.shape[1] > 1 else lift_SE
        self._margin_S, self._first_S = top[:, -1] - top[:, 0], first_S
        self._authors = [
            {int(corpus.posts.author[post]) for post in corpus.posts.of_picture[picture]}
            if corpus.posts.of_picture
            else set()
            for picture in range(len(corpus.labels))
        ]

    def of(self, emoji: int) -> Chosen:
        """Of one emoji."""
        belief_S, has_S = self._belief_SE[:, emoji], self._has_SE[:, emoji]
        own = np.flatnonzero(has_S & self._there_S)
        others = np.flatnonzero(~has_S & self._there_S)
        first = np.flatnonzero(self._first_S == emoji)
        random = np.random.Generator(np.random.Philox(emoji))
        sure = others[belief_S[others] > 0]
        precision, among = self._precision(emoji)
        return Chosen(
            gallery=self._apart(own[np.argsort(-belief_S[own], kind="stable")], GALLERY),
            lifted=self._apart(first[np.argsort(-self._margin_S[first], kind="stable")], STRIP),
            chance=self._apart(random.permutation(own), STRIP),
            wrong=self._apart(sure[np.argsort(-belief_S[sure], kind="stable")], STRIP),
            precision=precision,
            among=among,
        )

    def _apart(self, ordered: Iterable[int], most: int) -> list[int]:
        """The first that share no author; near-duplicates are one picture in a data set."""
        shown: list[int] = []
        authors: set[int] = set()
        for picture in ordered:
            if authors.isdisjoint(self._authors[picture]):
                shown.append(int(picture))
                authors |= self._authors[picture]
            if len(shown) == most:
                break
        return shown

    def _precision(self, emoji: int) -> tuple[Interval, int]:
        """Of the surest pictures that may be judged on, how many were posted with it (Wilson)."""
        judged = np.flatnonzero(self._judged_S & self._there_S)
        there = int(self._has_SE[judged, emoji].sum())
        count = min(PRECISION_AT, there)
        if not count:
            return Interval(float("nan"), float("nan"), float("nan")), 0
        sure = judged[np.argsort(-self._belief_SE[judged, emoji], kind="stable")][:count]
        hits = np.array([self._has_SE[sure, emoji].sum()])
        low, high = bootstrap.wilson(hits, np.array([count]))
        return Interval(float(hits[0] / count), float(low[0]), float(high[0])), count


def thumbnails(
    corpus: Corpus,
    wanted: Sequence[int],
    how: str,
    progress: Callable[[int, int], None],
) -> dict[int, str]:
    """Small pictures as base64 of WebP, by number; those that may not be shown are not there.

    They are smaller, and not as good, where there are many, so that a page stays one that opens.
    """
    room = TOTAL_BYTES / max(1, len(wanted))
    px = int(
        np.clip(THUMBNAIL_PX * min(1.0, room / THUMBNAIL_BYTES) ** 0.5, LEAST_PX, THUMBNAIL_PX)
    )

    def small(picture: int) -> str:
        return _thumbnail(corpus, picture, px, how)

    found, left = {}, float(TOTAL_BYTES)
    with ThreadPoolExecutor(cores()) as pool:
        for done, (picture, text) in enumerate(zip(wanted, pool.map(small, wanted), strict=True)):
            left -= len(text) * 0.75
            if text and left > 0:
                found[picture] = text
            if done % 100 == 0:
                progress(done, len(wanted))
    progress(len(wanted), len(wanted))
    return found


def _thumbnail(corpus: Corpus, picture: int, px: int, how: str) -> str:
    try:
        upright = pixels.decode(corpus.read(picture), edge_px=2 * px)
    except EmojinetError:
        return ""
    shown = faces.treated(Image.fromarray(upright), how)
    if shown is None:
        return ""
    square, _ = pixels.crop(np.asarray(shown), size_px=px, fraction=1.0)
    file = io.BytesIO()
    # Encoded anew: of the file that somebody posted nothing but colours remains.
    Image.fromarray(square).save(file, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(file.getvalue()).decode()
