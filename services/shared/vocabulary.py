"""Emoji as classes: the inventory, the forms an emoji is written in, emoji in text, a model's list.

One emoji has many spellings: with and without U+FE0F, in five skin tones. Here every spelling
becomes the one fully-qualified form, so that what a crawl counts, a training run learns and a
client shows are the same emoji. The inventory is derived, and its licences are, in `inventory.py`.
"""

import csv
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from reprlib import repr as excerpt
from typing import NamedTuple, Self

import regex

MAX_EMOJI = 10_000  # Unicode has 4,000
MAX_COUNT = 10**12  # more than there are posts

_EMOJI_STYLE = "\ufe0f"
# Not U+FE0E: who writes it asks for text, so what carries it is no form of an emoji.
_STYLE_OR_TONE = re.compile(f"[{_EMOJI_STYLE}\U0001f3fb-\U0001f3ff]")

# A character of every emoji of the inventory.
_MAYBE_EMOJI = re.compile("[©®‼⁉\u20e3™-⭕〰〽㊗㊙\U0001f004-\U0001f6ff]")
# `\X` alone counts the flags before each flag anew: a megabyte of them would take it an hour.
_GRAPHEMES = regex.compile(r"\p{RI}{2}(?![\p{GCB=EX}\p{GCB=SpacingMark}\p{GCB=ZWJ}])|\X")

# UAX #31, D2 and R8, with three turns that captions take: tags may touch (`#food#pizza` is two),
# `*` is mark-up, and `#️⃣` starts no tag but may be one. A URL's fragment and `&#39;` are no tags.
_CONTINUE = r"[[\p{XID_Continue}\p{Extended_Pictographic}\p{Emoji_Component}+\-]--[#*]]"
_KEYCAP_HASH = r"#\ufe0f?\u20e3"
_HASHTAG = regex.compile(
    rf"(?V1)(?:\G|(?<![/&]|{_CONTINUE}))[#﹟＃](?![+\-\ufe0f\u20e3])((?:{_CONTINUE}|{_KEYCAP_HASH})+)"
)


class Emoji(NamedTuple):
    """An emoji of the inventory, with its English facts from Unicode CLDR."""

    text: str
    """Fully-qualified, as in every file and message of ours."""
    name: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str


@cache
def inventory() -> tuple[Emoji, ...]:
    """The 845 base emoji that the article started from, by code points."""
    with Path(__file__).with_name("inventory.tsv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file, delimiter="\t")
    return tuple(
        Emoji(text, name, tuple(keywords.split("|")), group, subgroup)
        for text, _, name, group, subgroup, keywords in rows
    )


@cache
def _names() -> dict[str, str]:
    return {emoji.text: emoji.name for emoji in inventory()}


@cache
def _foreign_names() -> dict[str, str]:
    import emoji  # 40 ms that only a model of another inventory needs

    return {
        text: facts["en"].strip(":").replace("_", " ")
        for text, facts in emoji.EMOJI_DATA.items()
        if facts["status"] == emoji.STATUS["fully_qualified"]
    }


def name(emoji: str) -> str:
    """The short English name of a fully-qualified emoji, of any inventory; KeyError without one.

    >>> name("❤️"), name("🦀")
    ('red heart', 'crab')
    """
    return _names().get(emoji) or _foreign_names()[emoji]


def _fold(form: str) -> str:
    """What all spellings of an emoji have in common."""
    return _STYLE_OR_TONE.sub("", form)


@cache
def _by_fold() -> dict[str, str]:
    return {_fold(text): text for text in _names()}


def canonical(grapheme: str) -> str | None:
    """The emoji of the inventory that a grapheme cluster is a form of; skin tones fold to the base.

    A cluster that only contains one is another emoji: 👨‍👩‍👧 is not 👨, 🚬⃠ not 🚬. No normalisation
    comes first: NFC neither makes nor changes an emoji, and NFKC would turn ™ into TM.

    >>> canonical("❤"), canonical("👍🏽"), canonical("❤︎"), canonical("👩‍🚀"), canonical("1")
    ('❤️', '👍', None, None, None)
    """
    return _by_fold().get(_fold(grapheme))


def find(text: str, *, hashtag: bool = False) -> list[str]:
    """The emoji of the inventory in running text or in a hashtag, in order, as often as they occur.

    In running text a character that is text by default (©, ❤ without U+FE0F) is text; as (part of)
    a hashtag's content it was picked as an emoji.

    >>> find("Pizza 🍕🍕 with 👩‍🚀, © ❤️"), find("I❤NY", hashtag=True)
    (['🍕', '🍕', '❤️'], ['❤️'])
    """
    return [
        emoji
        for word in text.split(" ")  # no cluster with an emoji has a space
        if may_have_emoji(word)
        for grapheme in _GRAPHEMES.findall(word)
        if (emoji := canonical(grapheme)) and (hashtag or emoji != grapheme + _EMOJI_STYLE)
    ]


def may_have_emoji(text: str) -> bool:
    """False for most texts without an emoji of the inventory, in any spelling, and only for such.

    Most posts have none, and this tells in 7 ns a character; graphemes alone take 25 times as long,
    `emoji.emoji_list` 110 times.
    """
    return _MAYBE_EMOJI.search(text) is not None


def hashtags(text: str) -> list[str]:
    """The contents of the hashtags in a caption, in order, in NFC.

    >>> hashtags("#pizza#🍕 at #café_5, not C# or foo#bar")
    ['pizza', '🍕', 'café_5']
    """
    return [unicodedata.normalize("NFC", content) for content in _HASHTAG.findall(text)]


def without_hashtags(text: str) -> str:
    """The running text of a caption, with a space in the place of each hashtag.

    >>> without_hashtags("#pizza#🍕 at 🍕, not C#")
    '   at 🍕, not C#'
    """
    return _HASHTAG.sub(" ", text)


@dataclass(frozen=True)
class Vocabulary:
    """The ordered emoji that a model knows; an emoji's place is its class index.

    Raises:
        ValueError: an emoji or count breaks its rule; the message says which, and what is right.
    """

    emoji: tuple[str, ...]
    """Fully-qualified, each once; of any inventory."""
    counts: tuple[int, ...]
    """How often each was counted; all zero if nothing was."""

    def __post_init__(self) -> None:
        if len(self.emoji) != len(self.counts):
            raise ValueError(
                f"{len(self.emoji)} emoji have {len(self.counts)} counts, not one each"
            )
        if not 1 <= len(self.emoji) <= MAX_EMOJI:
            raise ValueError(f"a vocabulary has 1 to {MAX_EMOJI} emoji, not {len(self.emoji)}")
        for emoji, count in zip(self.emoji, self.counts, strict=True):
            _check(emoji, count)
        ((emoji, times),) = Counter(self.emoji).most_common(1)
        if times > 1:
            raise ValueError(f"{emoji} is there {times} times, an emoji belongs there once")

    def __len__(self) -> int:
        return len(self.emoji)

    @cached_property
    def _indices(self) -> dict[str, int]:
        exact = {emoji: index for index, emoji in enumerate(self.emoji)}
        # A vocabulary may list 👍 and 👍🏽 apart: the exact form goes first, then the earliest.
        folded = {_fold(emoji): index for emoji, index in reversed(exact.items())}
        return folded | exact

    def index(self, form: str) -> int | None:
        """The class index of an emoji in any form, None for one the model does not know."""
        indices = self._indices
        return indices.get(form, indices.get(_fold(form)))

    def prior(self) -> tuple[float, ...]:
        """The share of each emoji in all counts; equal shares if nothing was counted."""
        total = sum(self.counts)
        return tuple(count / total if total else 1 / len(self) for count in self.counts)

    def to_json(self) -> str:
        """A list of `{"emoji": …, "count": …}` in the order of the classes, one a line."""
        entries = (
            json.dumps({"emoji": emoji, "count": count}, ensure_ascii=False)
            for emoji, count in zip(self.emoji, self.counts, strict=True)
        )
        return "[\n" + ",\n".join(entries) + "\n]\n"

    @classmethod
    def from_json(cls, content: str | bytes) -> Self:
        """Reads what `to_json` wrote, distrusting it.

        Raises:
            ValueError: it is not JSON, has another shape, or breaks a rule of the class.
        """
        try:
            entries = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(entries, list):
            raise ValueError(f"a vocabulary is a list, not {excerpt(entries)}")
        for entry in entries:
            if not isinstance(entry, dict) or entry.keys() != {"emoji", "count"}:
                raise ValueError(
                    f'{excerpt(entry)} should be an object of "emoji" and "count" and no more'
                )
        return cls(
            tuple(entry["emoji"] for entry in entries), tuple(entry["count"] for entry in entries)
        )


def _check(emoji: object, count: object) -> None:
    if not isinstance(emoji, str):
        raise ValueError(f"an emoji is a string, not {excerpt(emoji)}")
    if emoji not in _names() and emoji not in _foreign_names():
        known = canonical(emoji)
        raise ValueError(
            f"{excerpt(emoji)} is no fully-qualified emoji"
            + (f", {known!r} is" if known else " of Unicode's emoji-test.txt")
        )
    if type(count) is not int or not 0 <= count <= MAX_COUNT:
        raise ValueError(
            f"the count of {emoji} is a whole number from 0 to {MAX_COUNT}, not {excerpt(count)}"
        )
