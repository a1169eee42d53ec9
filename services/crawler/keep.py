"""Which posts are worth keeping, and what is kept of them.

The article's rules, each a named predicate: at most five hashtags, the emoji in the caption itself
and not only in its comments' tags, a few thousand pictures for each emoji. What a rule rejects is
counted under its name: that funnel is a result of the crawl.
"""

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import regex

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Flag, Post, PostImage
from services.shared import vocabulary

VERSION = 1  # of the rules and of how captions are read; data sets name it
MAX_HASHTAGS = 5
IMAGES_PER_EMOJI = 3000
IMAGES_PER_AUTHOR = 100
MAX_WORDS, MAX_WORD = 64, 40

# Marks of what is no word: an address of any kind, a handle, a hashtag, a number, `insta:anna`.
_ADDRESS = re.compile(r"[@＠﹫#＃﹟/\\_\d]|\w[.:]\w")
_WORD = regex.compile(r"\p{L}\p{M}*(?:['’-]?\p{L}\p{M}*){2,}")


class Where(StrEnum):
    """Where in a post an emoji stood."""

    TEXT = "text"
    HASHTAG = "hashtag"
    LABEL = "label"
    """Given apart from the text, by whoever made an import."""


class Mention(NamedTuple):
    """An emoji and where it stood."""

    emoji: str
    where: Where


class Verdict(StrEnum):
    """What became of a post: the outcomes of the funnel's first stage."""

    KEPT = "kept"
    COUNTED = "counted"
    """By a ranking, which keeps nothing."""
    SEEN = "seen_before"
    MALFORMED = "malformed"
    REMOVED = "removed"
    SENSITIVE = "sensitive"
    OPTED_OUT = "opted_out"
    NO_EMOJI = "no_emoji_in_caption"
    NO_IMAGE = "no_image"
    TOO_MANY_HASHTAGS = "too_many_hashtags"
    EMOJI_CAP = "emoji_cap"
    AUTHOR_CAP = "author_cap"


class Kept(NamedTuple):
    """What is stored of a post: nothing that names its author or anybody whom it mentions."""

    source: str
    uri: str
    author: bytes
    """Keyed hash; empty if the source names none."""
    time_seconds: float
    segment: str
    mentions: Sequence[Mention]
    """Each emoji once for each place that it stood in."""
    hashtags: Sequence[str]
    words: Sequence[str]
    images: Sequence[PostImage]


class Caps:
    """How many pictures each emoji and each author has got so far."""

    def __init__(
        self, rules: pb.KeepRules, emoji: dict[str, int], of_author: Callable[[bytes], int]
    ) -> None:
        self._per_emoji = rules.images_per_emoji or IMAGES_PER_EMOJI
        self._per_author = rules.images_per_author or IMAGES_PER_AUTHOR
        self._emoji, self._of_author = Counter(emoji), of_author

    def wanted(self, emoji: str) -> bool:
        """Whether the emoji still lacks pictures."""
        return self._emoji[emoji] < self._per_emoji

    def welcome(self, author: bytes) -> bool:
        """Whether more of the author may be taken."""
        return not author or self._of_author(author) < self._per_author

    def count(self, kept: Kept) -> None:
        """Counts the pictures of a post that was kept."""
        for emoji in {mention.emoji for mention in kept.mentions}:
            self._emoji[emoji] += len(kept.images)


class Keeper:
    """Judges the posts of one crawl, one after the other: the caps make their order matter."""

    def __init__(
        self, source: str, emoji: Iterable[str], rules: pb.KeepRules, caps: Caps, key: bytes
    ) -> None:
        self._source, self._emoji, self._key = source, frozenset(emoji), key
        self._max_hashtags = rules.max_hashtags or MAX_HASHTAGS
        self.caps = caps

    def judge(self, post: Post, removed: Callable[[str, bytes], Verdict | None]) -> Kept | Verdict:
        """What is to be stored of the post, or why nothing is.

        Args:
            removed: why a post may not be taken, by its URI and its author's hash.
        """
        # The rule that most posts fail comes first: most captions have no emoji at all.
        mentions = [m for m in mentioned(post) if m.emoji in self._emoji]
        if not mentions:
            return Verdict.NO_EMOJI
        if not post.images:
            return Verdict.NO_IMAGE
        if Flag.OPTED_OUT in post.flags:
            return Verdict.OPTED_OUT
        if Flag.SENSITIVE in post.flags:
            return Verdict.SENSITIVE
        author = author_hash(self._source, post.author, self._key)
        if gone := removed(post.uri, author):
            return gone
        hashtags = vocabulary.hashtags(post.text)
        if len(hashtags) > self._max_hashtags:
            return Verdict.TOO_MANY_HASHTAGS
        if not any(self.caps.wanted(mention.emoji) for mention in mentions):
            return Verdict.EMOJI_CAP
        if not self.caps.welcome(author):
            return Verdict.AUTHOR_CAP
        return Kept(
            source=self._source,
            uri=post.uri,
            author=author,
            time_seconds=post.time_seconds,
            segment=post.segment,
            mentions=mentions,
            hashtags=hashtags,
            words=words(post.text),
            images=post.images,
        )


def mentioned(post: Post) -> list[Mention]:
    """The emoji of the inventory in a post's own words, once for each place: hashtags come first.

    >>> mentioned(Post(uri="1", text="Best #🍕 in town 🍕 ☕", images=[]))[0]
    Mention(emoji='🍕', where=<Where.HASHTAG: 'hashtag'>)
    """
    found = []
    if vocabulary.may_have_emoji(post.text):
        found += [
            Mention(emoji, Where.HASHTAG)
            for tag in vocabulary.hashtags(post.text)
            for emoji in vocabulary.find(tag, hashtag=True)
        ]
        running = vocabulary.find(vocabulary.without_hashtags(post.text))
        found += [Mention(emoji, Where.TEXT) for emoji in running]
    found += [Mention(emoji, Where.LABEL) for label in post.labels if (emoji := labelled(label))]
    return list(dict.fromkeys(found))


def labelled(label: str) -> str | None:
    """The emoji of the inventory that a label is, in any spelling, or None."""
    return vocabulary.canonical(label.strip())


def words(text: str) -> list[str]:
    """The content words of a caption, in order, each once: no addresses, no names.

    A word with a capital letter may be somebody's name. It stays only if an emoji is called so:
    the atlas would miss "Pizza" more than anybody would miss "Anna". A script without capitals does
    not tell, so it gives no words.

    >>> words("Pizza with Anna at @luigis, so delicious! https://x.y anna@x.y #yum")
    ['pizza', 'with', 'delicious']
    """
    runs = (run for run in text.replace("@ ", "@").split() if not _ADDRESS.search(run))
    found = _WORD.findall(" ".join(runs))
    kept = (w.lower() for w in found if w.islower() or w.lower() in _names_of_things())
    return list(dict.fromkeys(w for w in kept if len(w) <= MAX_WORD))[:MAX_WORDS]


@cache
def _names_of_things() -> frozenset[str]:
    return frozenset(word for emoji in vocabulary.inventory() for word in emoji.name.split())


def author_hash(source: str, author: str, key: bytes) -> bytes:
    """Sixteen bytes that stand for an author, and tell nobody without the key who it is."""
    if not author:
        return b""
    return hmac.digest(key, f"{source}\0{author}".encode(), hashlib.sha256)[:16]
