"""Finds to freeze, by seed: tiny pictures with posts."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from services.crawler.dataset import Find
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.shared import pixels
from services.shared.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("🍕", "🐕", "❤️", "🌅", "🚗"), (50, 20, 15, 10, 5))


def finds(folder: Path, count: int, seed: int = 0, *, px: int = 24) -> list[Find]:
    """Pictures that look nothing like each other, about two of each author."""
    return list(stream(folder, count, seed, px=px))


def stream(folder: Path, count: int, seed: int = 0, *, px: int = 24) -> Iterator[Find]:
    """The same, one after the other."""
    draw = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        sha256 = hashlib.sha256(b"%d %d" % (seed, number)).digest()
        path = folder / f"{sha256.hex()}.jpg"
        path.write_bytes(pixels.jpeg(draw.integers(0, 256, (px, px + number % 3, 3), np.uint8)))
        yield Find(sha256, draw.bytes(32), 100, 1000 + number, 800, path, [post(number, draw)])


def post(number: int, draw: np.random.Generator) -> Kept:
    """A post about one or two emoji."""
    chosen = draw.choice(len(VOCABULARY), size=1 + number % 2, replace=False)
    return Kept(
        source="import",
        uri=f"post/{number}",
        author=hashlib.sha256(b"%d" % draw.integers(1 + number)).digest()[:16],
        time_seconds=1.4e9 + number,
        segment=("red", "blue")[number % 2],
        mentions=[Mention(VOCABULARY.emoji[index], Where.TEXT) for index in chosen],
        hashtags=["yum"] * (number % 2),
        words=["pizza", "delicious"],
        images=[PostImage(f"https://example.org/{number}.jpg")],
    )
