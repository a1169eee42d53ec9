"""Captions that are put together from parts, so that what is in them is known without reading.

The traps are those of the facts about emoji in text: forms with and without U+FE0F, skin tones,
text style, clusters and flags outside the inventory, keycaps, digits, ©®™, and the ways in which
hashtags touch all of these.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import regex

from services.shared import vocabulary
from tests.standin.chance import Chance

EMOJI_STYLE, TEXT_STYLE, KEYCAP = "\ufe0f", "\ufe0e", "\u20e3"
TONES = "🏻🏼🏽🏾🏿"
_TONABLE = regex.compile(r"\p{Emoji_Modifier_Base}")

# The start and the end of the order by use; the rest is shuffled by the world's seed.
POPULAR = "❤️ 😂 😍 😊 💕 🔥 😘 👌 ✌️ 😭 💯 👍 🎉 🙏 💙 😎 ☀️ 🌊 🍕 🐕 🌸 🎂 ☕ 🍓 🐱 🌅 🎄 💪 👏 🙌"
RARE = "💉 ✊ 👐 💩 🚱 🉑 🈳 🈷️ 🔡 🆒 🈺 📭"


class Mention(NamedTuple):
    """An emoji of the inventory in a caption."""

    emoji: str
    """Fully-qualified."""
    hashtag: bool
    """Whether in a hashtag's content rather than in running text."""
    bare: bool = False
    """Whether written as text by default (©, ❤ without U+FE0F); then only a hashtag counts."""


class Hashtag(NamedTuple):
    """A hashtag of a caption."""

    content: str
    start: int
    """Of its `#`, in characters of the caption."""


class Caption(NamedTuple):
    """A caption and the truth about it."""

    text: str
    mentions: tuple[Mention, ...]
    hashtags: tuple[Hashtag, ...]


class Part(NamedTuple):
    """A piece of a caption, set apart from others by a space."""

    text: str
    mentions: tuple[Mention, ...] = ()
    hashtags: tuple[Hashtag, ...] = ()


_WORDS = """
dinner sunset weekend friends family best day ever love this so good morning coffee travel summer
winter home new happy 2of3 v2 café été straße Köln ужин закат 晩ごはん 夕焼け 커피 अच्छा niño über
10km 3.5 50% a.m. hello, wow! (really) — … :) <3 &amp; C# 24/7 1 2 3 0 * # 42
"""
WORDS = tuple(Part(each) for each in _WORDS.split())
_TAG_WORDS = """
food foodie pizza nofilter tbt instagood love sunset beach café_5 ラーメン закат straße happy_days
東京 throwback2015 catsofinstagram ootd vsco nature
"""
TAG_WORDS = tuple(_TAG_WORDS.split())

# Not one emoji of the inventory is in these, though they look it.
_NOTHINGS = """
👨‍👩‍👧‍👦 👩‍🚀 👩🏽‍🚀 🏳️‍🌈 👁️‍🗨️ ❤️‍🔥 👨‍❤️‍👨 🐕‍🦺 🧑‍🍳 👩‍❤️‍💋‍👩 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇧🇷 🇧🇷🇳🇱 🇦 🦀 🤗 🦄 🧀 🙄 🖕🏽 🏽 🚬⃠
©2015 ® ™ Acme™ ❤︎ ☺︎ ☀︎ 🍕︎ ✈ ☎ ☀ → ★ ♪ ✓ 1 2nd #! # * @ ½ ℡ Ⅳ
foo#bar https://ex.example/p#top &#39;
"""
NOTHINGS = tuple(Part(each) for each in _NOTHINGS.split())


def _running(text: str, *emoji: str) -> Part:
    return Part(text, tuple(Mention(each, hashtag=False) for each in emoji))


# What a reader may miss, or count in a wrong way.
SOMETHINGS = (
    _running("©️", "©️"),
    _running("Acme™️", "™️"),
    _running("🇯🇵🇰🇷", "🇯🇵", "🇰🇷"),
    _running("🇯🇵🇧🇷🇫🇷", "🇯🇵", "🇫🇷"),
    _running("🇺🇸🇦", "🇺🇸"),
    _running("1️⃣2️⃣", "1️⃣", "2️⃣"),
    _running("#️⃣", "#️⃣"),
    _running("7⃣", "7️⃣"),
    _running("👍🏽", "👍"),
    _running("✌🏿", "✌️"),
    _running("☝️", "☝️"),
    _running("👏🏻👏🏼👏", "👏", "👏", "👏"),
    _running("x❤️y", "❤️"),
    _running("❤❤️", "❤️"),
    _running("👨👩👧", "👨", "👩", "👧"),
    _running("👍🦀", "👍"),
    _running("🎅🏾", "🎅"),
    Part("#👩‍🚀", (), (Hashtag("👩‍🚀", 0),)),
    Part("#🦀", (), (Hashtag("🦀", 0),)),
    Part("#❤︎", (), (Hashtag("❤︎", 0),)),
    Part("#food#pizza", (), (Hashtag("food", 0), Hashtag("pizza", 5))),
    Part("(#tbt)", (), (Hashtag("tbt", 1),)),
    Part("#happy!", (), (Hashtag("happy", 0),)),
)


@cache
def order(seed: int) -> tuple[str, ...]:
    """The inventory, from the most used emoji to the least."""
    first, last = POPULAR.split(), RARE.split()
    middle = [e.text for e in vocabulary.inventory() if e.text not in {*first, *last}]
    chance = Chance(seed, "order")
    middle.sort(key=lambda _: chance.below(1 << 30))
    return (*first, *middle, *last)


@cache
def spellings(emoji: str) -> tuple[str, ...]:
    """All ways to write an emoji that count in running text; its own form first."""
    bare = emoji.replace(EMOJI_STYLE, "")
    if KEYCAP in emoji:
        return emoji, bare
    if _TONABLE.fullmatch(bare):
        return emoji, *(bare + tone for tone in TONES)
    return (emoji,)


def is_text_by_default(emoji: str) -> bool:
    """Whether it is no emoji in running text when U+FE0F is missing."""
    return emoji.endswith(EMOJI_STYLE)


def word(chance: Chance) -> Part:
    return chance.of(WORDS)


def tag(content: str, *mentions: Mention, after: str = "") -> Part:
    return Part(f"#{content}{after}", mentions, (Hashtag(content, 0),))


def tag_word(chance: Chance) -> Part:
    return tag(chance.of(TAG_WORDS) + ("" if chance.below(2) else str(chance.below(1000))))


def tag_emoji(chance: Chance, emoji: str) -> Part:
    """`#🍕` alone, as a source lists it; sometimes followed by a full stop, sometimes bare."""
    after = chance.of((".", "!", ",", "…", " yum")) if chance.below(8) == 0 else ""
    if is_text_by_default(emoji) and chance.below(2):
        return tag(emoji[:-1], Mention(emoji, hashtag=True, bare=True), after=after)
    return tag(emoji, Mention(emoji, hashtag=True), after=after)


def tag_mixed(chance: Chance, emoji: str) -> Part:
    """A hashtag that holds an emoji and more: another tag to a source, the same emoji to us."""
    seen = Mention(emoji, hashtag=True)
    written = chance.of(spellings(emoji))
    if emoji.startswith("#") or KEYCAP in emoji:
        return tag(emoji + "pizza", seen)
    match chance.below(4):
        case 0:
            return tag(written + written, seen, seen)
        case 1:
            return tag("pizza" + written, seen)
        case 2:
            return tag(written + "_day", seen)
    return tag(written + "x" + emoji, seen, seen)


def running(chance: Chance, emoji: str) -> Part:
    """An emoji in running text, in one of its spellings, sometimes in a row or within a word."""
    written = chance.of(spellings(emoji)) if chance.below(3) == 0 else emoji
    match chance.below(8):
        case 0:
            return _running(written * 3, emoji, emoji, emoji)
        case 1 if KEYCAP not in emoji:
            return _running(f"yum{written}!", emoji)
    return _running(written, emoji)


def not_quite(chance: Chance, emoji: str) -> Part:
    """Something with the emoji's characters that is not the emoji."""
    bare = emoji.replace(EMOJI_STYLE, "")
    if is_text_by_default(emoji) and chance.below(2):
        return Part(bare, (Mention(emoji, hashtag=False, bare=True),))
    if len(bare) == 1:
        return Part(bare + TEXT_STYLE) if chance.below(2) else Part(bare + "\u200d🚀")
    return chance.of(NOTHINGS)


def mention_someone(chance: Chance) -> Part:
    return Part(f"@{chance.of(('anna', 'b.ob', 'c_4', 'дима', 'somebody.bsky.social'))}")


Maker = Callable[[Chance], Part]
FILLERS: Sequence[Maker] = (
    *[word] * 9,
    *[tag_word] * 5,
    mention_someone,
    lambda chance: chance.of(NOTHINGS),
    lambda chance: chance.of(SOMETHINGS),
)


def join(parts: Sequence[Part]) -> Caption:
    """One caption of all parts, its truth with it."""
    text, at = " ".join(part.text for part in parts), 0
    hashtags = []
    for part in parts:
        hashtags += [Hashtag(h.content, at + h.start) for h in part.hashtags]
        at += len(part.text) + 1
    return Caption(text, tuple(m for part in parts for m in part.mentions), tuple(hashtags))
