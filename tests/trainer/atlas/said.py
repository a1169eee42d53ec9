"""Posts in memory, to tell meanings from; nothing in them is by chance but by seed."""

import numpy as np

from services.trainer.atlas import corpus, meaning, signs
from services.trainer.atlas.corpus import Post, Posts
from services.trainer.atlas.literal import Literal

EMOJI = ("💉", "🍕", "🚗", "🐶", "⚽", "🎸")
START = 1.4e9
DAY = 86_400.0


def post(
    number: int, *emoji: int, author: str, terms: tuple[str, ...], seconds: float = float("nan")
) -> Post:
    return Post(f"https://posts.example/{number}", author, seconds, "", emoji, terms)


def everyday(count: int = 120, seed: int = 0) -> list[Post]:
    """As many posts of each emoji, by many authors, of words that mean nothing."""
    draw = np.random.default_rng(seed)
    made: list[Post] = []
    for emoji in range(len(EMOJI)):
        for _ in range(count):
            words = {f"word{chr(97 + n)}" for n in draw.integers(0, 26, 4)}
            author, day = f"author {draw.integers(400)}", draw.uniform(0, 700)
            terms, seconds = tuple(sorted(words)), START + day * DAY
            made.append(post(len(made), emoji, author=author, terms=terms, seconds=seconds))
    return made


def posts(made: list[Post]) -> Posts:
    return corpus.columns(made, [(n,) for n in range(len(made))], len(made))


def meanings(made: list[Post]) -> dict[str, meaning.Meaning]:
    """By words alone."""
    found = posts(made)
    of = signs.mentions(found, len(EMOJI))
    said = signs.words(found, of, Literal(EMOJI))
    told, _ = meaning.meanings(found, of, [said], len(EMOJI))
    return dict(zip(EMOJI, told, strict=True))
