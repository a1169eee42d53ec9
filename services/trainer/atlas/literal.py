"""What an emoji shows by itself: by its names in Unicode, and by what the starter sees.

A word or hashtag is literal for an emoji that is called so, or kept under that keyword, in whatever
ending; a picture is, if the starter sees the emoji, or one of the same name, in it.
"""

# I emoji of the inventory, E emoji of the corpus, C classes

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from services.shared import extras, synsets, vocabulary
from services.shared.vocabulary import inventory

COMMON = 12  # a word in more emoji's names says little: face, hand, button
LEAST_STEM = 4  # letters, for a hashtag that only begins or ends so: #pizzatime
_LETTERS = re.compile(r"[^\W\d_]+")
_ENDINGS = ("ings", "ing", "ers", "er", "ies", "es", "ed", "s", "y", "e")


def stem(word: str) -> str:
    """A word without its ending, roughly.

    >>> {stem(word) for word in ("bike", "bikes", "biker", "biking")}
    {'bik'}
    """
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


@cache
def _facts() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.text: (one.name, (*one.keywords, one.group, one.subgroup)) for one in inventory()}


@cache
def _common() -> frozenset[str]:
    counts = Counter(word for one in inventory() for word in set(_words(one.name)))
    return frozenset(word for word, count in counts.items() if count > COMMON)


@cache
def spellings(emoji: str) -> frozenset[str]:
    """The parts of its names as they are: no, 18, +1."""
    name, keywords = _facts().get(emoji, (vocabulary.name(emoji), ()))
    texts = [text.lower() for text in (name, *keywords)]
    return frozenset([*texts, *(part.strip(",:.") for text in texts for part in text.split())])


def _words(*texts: str) -> Iterable[str]:
    for text in texts:
        yield from (word for word in _LETTERS.findall(text.lower()) if len(word) > 2)


@cache
def stems(emoji: str) -> frozenset[str]:
    """Of all words that name the emoji, or things that mean it in the starter's tables."""
    name, keywords = _facts().get(emoji, (vocabulary.name(emoji), ()))
    return frozenset(stem(word) for word in _words(name, *keywords, *_things().get(emoji, ())))


@cache
def _things() -> dict[str, list[str]]:
    """The classes that mean an emoji above all."""
    found: dict[str, list[str]] = {}
    for row in synsets.load():
        if row.how in ("name", "near", "kind"):
            found.setdefault(row.emoji, []).append(row.name)
    for extra in extras.load():
        if extra.how in ("name", "near", "kind"):
            found.setdefault(extra.emoji, []).append(extra.name)
    return found


class Literal:
    """Whether terms are literal for emoji; each pair is decided once."""

    def __init__(self, emoji: Sequence[str]) -> None:
        self._stems = [stems(one) for one in emoji]
        self._compounds = [tuple(s for s in own if len(s) >= LEAST_STEM) for own in self._stems]
        self._texts = list(emoji)
        self._known: dict[tuple[int, str], bool] = {}

    def term(self, emoji: int, term: str) -> bool:
        """Whether the emoji's own names explain a word or hashtag."""
        pair = (emoji, term)
        if pair not in self._known:
            self._known[pair] = self._decide(emoji, term)
        return self._known[pair]

    def _decide(self, emoji: int, term: str) -> bool:
        if term.removeprefix("#") in spellings(self._texts[emoji]):
            return True
        words = list(_words(term))
        if self._texts[emoji] in term or any(stem(word) in self._stems[emoji] for word in words):
            return True
        # People run words together in hashtags, and leave the blanks of names out.
        joined = "".join(words) if term.startswith("#") else ""
        return any(joined.startswith(s) or joined.endswith(s) for s in self._compounds[emoji])


def relatives(emoji: Sequence[str]) -> np.ndarray:
    """(I, E): which emoji of the inventory show what an emoji shows, itself included.

    Those whose names share a word that is not in many names: 🐱, 🐈 and 😺.
    """
    names = [{stem(w) for w in _words(one.name) if w not in _common()} for one in inventory()]
    own = [_own_stems(one) for one in emoji]
    related_IE = np.zeros((len(names), len(emoji)), bool)
    for column, stems_of in enumerate(own):
        for row, name in enumerate(names):
            related_IE[row, column] = bool(name & stems_of)
    places = {one.text: row for row, one in enumerate(inventory())}
    for column, text in enumerate(emoji):
        if text in places:
            related_IE[places[text], column] = True
    return related_IE


def _own_stems(emoji: str) -> set[str]:
    name = _facts().get(emoji, (vocabulary.name(emoji), ()))[0]
    return {stem(word) for word in _words(name) if word not in _common()}


def class_names(extra_names: Sequence[str]) -> list[str]:
    """ImageNet's classes and the starter's extra ones, as people call them."""
    by_index = {row.class_index: row.name for row in synsets.load()}
    names = [by_index[index].replace("_", " ") for index in range(synsets.CLASSES)]
    return names + [_extra(name) for name in extra_names]


def _extra(name: str) -> str:
    drawn = _facts().get(name)
    if name == extras.NOTHING:
        return "no thing"
    return f"drawing of {drawn[0]}" if drawn else name.replace("-", " ").replace("_", " ")


def siblings(emoji: Sequence[str]) -> np.ndarray:
    """(I, E): which emoji of the inventory are of an emoji's subgroup."""
    kinds = {one.text: one.subgroup for one in inventory()}
    own = np.array([kinds.get(text, "") for text in emoji])
    return np.asarray(np.array([one.subgroup for one in inventory()])[:, None] == own[None])


def shown_by(table_CK: np.ndarray, related_IE: np.ndarray) -> np.ndarray:
    """(C, E): how much of each class means an emoji or its relatives."""
    return np.minimum(table_CK[:, : len(related_IE)] @ related_IE, 1.0)
