"""The truth of the stand-in network: authors, posts, captions and pictures, all from a seed.

Nothing is stored. What a post is follows from the seed and its number alone, so that a world of a
million posts costs as much memory as one of ten, and a page of thirty about a millisecond.

How a number becomes a post: posts are numbered emoji by emoji, in the order of use, so a tag's
posts are a range. A quarter of them carry a second emoji as a tag: these "guests" are numbered in
the same way, and a shuffle that can be asked both ways says which post is the host of which guest.
"""

import base64
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

from tests.standin import captions
from tests.standin.captions import Caption, Hashtag, Mention, Part
from tests.standin.chance import Chance, Shuffle

EPOCH = 1_783_175_888.0  # 2026-07-04, when the newest post of a world was made
IMAGES_PER_POST = 4  # at most; the image i of post n has the number 4n + i
DELETED_AFTER = 37  # posts: so many come between a post and its deletion
SHAPES = ((4, 3), (3, 4), (1, 1), (16, 9), (4, 5))
TAG_ID_BASE, TAG_ID_STEP = 1_370_000_000_000, 1000
FATES = ("deleted", "takendown", "opted_out", "opted_back_in", "deactivated", "identity")
LEFT = frozenset({"deleted", "takendown", "opted_out", "deactivated"})
_SORTABLE = "234567abcdefghijklmnopqrstuvwxyz"


class Author(NamedTuple):
    """Someone who posts."""

    number: int
    did: str
    handle: str
    fate: str
    """What becomes of them on Bluesky in the end: one of `FATES`, or empty."""

    @property
    def left(self) -> bool:
        """Whether none of their posts may be in a data set made after the stream's end."""
        return self.fate in LEFT


class Image(NamedTuple):
    """A picture at a URL. Images of the same `root` show the same."""

    number: int
    root: int
    """The number of the image that it is a duplicate of; its own if it is an original."""
    variant: str
    """original | same (bytes) | quality | scale | crop."""
    amount: float
    """The variant's JPEG quality, scale or share of the area kept."""
    emoji: str
    """What the root shows, as far as a stand-in's pictures show anything."""
    width: int
    height: int
    noai: str
    """The opt-out that its response states: a header's text, or empty."""
    misbehaviour: str
    """The name of how its server misbehaves, or empty."""

    @property
    def post(self) -> int:
        return self.number // IMAGES_PER_POST


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A post with all that is true of it."""

    number: int
    author: Author
    caption: Caption | None
    """None where the source says null."""
    tags: tuple[str, ...]
    """All tags that the source lists, those from the owner's comments included."""
    comment: str
    """The owner's comment under it, which holds the tags that the caption lacks; or empty."""
    time: float
    """When it was made, by Instagram; on Bluesky see `World.time_us`."""
    kind: str
    """image | video."""
    images: tuple[Image, ...]
    sensitive: str
    """The label that the author gave it, or empty. Instagram has no labels."""
    deleted: bool
    """Whether it is deleted later; on Instagram its pictures are gone from the start."""

    @property
    def text(self) -> str:
        return self.caption.text if self.caption else ""

    @property
    def mentions(self) -> tuple[Mention, ...]:
        return self.caption.mentions if self.caption else ()

    @property
    def hashtags(self) -> tuple[Hashtag, ...]:
        return self.caption.hashtags if self.caption else ()

    @property
    def in_text(self) -> frozenset[str]:
        """The inventory's emoji in the caption's running text."""
        return frozenset(m.emoji for m in self.mentions if not m.hashtag and not m.bare)

    @property
    def in_hashtags(self) -> frozenset[str]:
        """The inventory's emoji in the contents of the caption's hashtags."""
        return frozenset(m.emoji for m in self.mentions if m.hashtag)

    @property
    def emoji(self) -> frozenset[str]:
        """The inventory's emoji in the caption: the post's labels."""
        return self.in_text | self.in_hashtags

    def keeps(self, max_hashtags: int = 5) -> bool:
        """Whether the article's rules keep it: a picture, few hashtags, an emoji in the caption."""
        return self.kind == "image" and len(self.hashtags) <= max_hashtags and len(self.emoji) > 0


class Tag(NamedTuple):
    """The posts that a source lists under an emoji, newest first."""

    world: "World"
    rank: int
    primaries: range
    guests: range

    def __len__(self) -> int:
        return len(self.primaries) + len(self.guests)

    def post_number(self, place: int) -> int:
        """The post at a place, 0 being the newest; guests are spread evenly among primaries."""
        total = len(self)
        guest = place * len(self.guests) // total
        if (place + 1) * len(self.guests) // total > guest:
            return self.world.hosts.number(self.guests[guest])
        return self.primaries[place - guest]

    def tag_id(self, place: int) -> int:
        """Grows with time, as the ids by which Instagram paged."""
        return TAG_ID_BASE + (len(self) - place) * TAG_ID_STEP + self.rank

    def place_after(self, tag_id: int) -> int:
        """The first place whose id is smaller."""
        return min(
            max(len(self) - (tag_id - TAG_ID_BASE - self.rank - 1) // TAG_ID_STEP, 0), len(self)
        )


@dataclass(frozen=True, kw_only=True)
class World:
    """A network of `posts` posts. Shares are of posts, of images or of authors."""

    seed: int = 1
    posts: int = 1000
    emoji: int = 845
    """How many of the inventory are in use as tags."""
    skew: float = 1.0
    """The exponent of Zipf's law; 0 uses all emoji alike."""
    authors: int = 0
    """0 means one for ten posts."""
    days: float = 30.0
    epoch: float = EPOCH
    edge_px: int = 480
    """The longer edge of a typical picture."""
    duplicates: float = 0.15
    albums: float = 0.12
    videos: float = 0.03
    sensitive: float = 0.03
    deleted: float = 0.03
    noai: float = 0.02
    fates: float = 0.10
    bad: tuple[str, ...] = ()
    """Names of misbehaviours that some images have."""
    bad_share: float = 0.0

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The emoji in use, most used first."""
        return captions.order(self.seed)[: self.emoji]

    @cached_property
    def ranks(self) -> dict[str, int]:
        return {folded(emoji): rank for rank, emoji in enumerate(self.order)}

    @cached_property
    def _shares(self) -> list[float]:
        weights = list(accumulate((rank + 1) ** -self.skew for rank in range(len(self.order))))
        return [weight / weights[-1] for weight in weights]

    def _bounds(self, count: int) -> list[int]:
        return [0, *(round(share * count) for share in self._shares)]

    @cached_property
    def _primaries(self) -> list[int]:
        return self._bounds(self.posts)

    @cached_property
    def _guests(self) -> list[int]:
        return self._bounds(self.posts // 4)

    @cached_property
    def hosts(self) -> Shuffle:
        """From a guest's number (place) to the post that has it as a second tag."""
        return Shuffle(self.posts, (self.seed, "hosts"))

    @cached_property
    def stream(self) -> Shuffle:
        """From a post's number to its place in the order of time on Bluesky."""
        return Shuffle(self.posts, (self.seed, "stream"))

    @cached_property
    def _ownership(self) -> Shuffle:
        return Shuffle(self.posts, (self.seed, "authors"))

    @cached_property
    def author_count(self) -> int:
        return max(1, min(self.authors or self.posts // 10, self.posts // 4))

    def tag(self, emoji: str) -> Tag | None:
        """The tag of an emoji with or without U+FE0F; None for what no post is tagged with."""
        rank = self.ranks.get(folded(emoji))
        if rank is None:
            return None
        return Tag(
            self,
            rank,
            range(self._primaries[rank], self._primaries[rank + 1]),
            range(self._guests[rank], self._guests[rank + 1]),
        )

    def truth(self) -> Iterator[Post]:
        """All posts."""
        return map(self.post, range(self.posts))

    def post(self, number: int) -> Post:
        """The post with a number, from 0 to `posts` - 1."""
        chance = Chance(self.seed, "post", number)
        rank = bisect_right(self._primaries, number) - 1
        primary = self.order[rank]
        guest = self._guest(number)
        kind = "video" if chance.happens(self.videos) else "image"
        label = chance.of(("porn", "nudity", "graphic-media", "sexual", "!no-unauthenticated"))
        sensitive = label if chance.happens(self.sensitive) else ""
        deleted = chance.happens(self.deleted)
        images = 1 + (1 + chance.below(IMAGES_PER_POST - 1) if chance.happens(self.albums) else 0)
        caption, missing = self._caption(chance, primary, guest)
        return Post(
            number=number,
            author=self.author(self.author_of(number)),
            caption=caption,
            tags=tuple(
                dict.fromkeys(
                    [h.content for h in caption.hashtags] + missing if caption else missing
                )
            ),
            comment=" ".join(f"#{tag}" for tag in missing),
            time=self._time(number, rank),
            kind=kind,
            images=tuple(self.image(number * IMAGES_PER_POST + i) for i in range(images)),
            sensitive=sensitive,
            deleted=deleted and self.stream.place(number) + DELETED_AFTER < self.posts,
        )

    def _guest(self, number: int) -> str:
        place = self.hosts.place(number)
        if place >= self._guests[-1]:
            return ""
        guest = self.order[bisect_right(self._guests, place) - 1]
        primary = self.order[bisect_right(self._primaries, number) - 1]
        return "" if guest == primary else guest

    def _time(self, number: int, rank: int) -> float:
        start, end = self._primaries[rank], self._primaries[rank + 1]
        return self.epoch - self.days * 86400 * (number - start + 0.5) / (end - start)

    def _caption(
        self, chance: Chance, primary: str, guest: str
    ) -> tuple[Caption | None, list[str]]:
        """A caption, and the tags that only the owner's comment has."""
        missing = []
        parts: list[Part] = []
        for emoji in filter(None, (primary, guest)):
            found, in_caption = self._about(chance, emoji)
            parts += found
            if not in_caption:
                missing.append(emoji)
        if not parts and chance.below(2):
            return None, missing
        fillers = chance.below(7) + (chance.below(12) if chance.below(9) == 0 else 0)
        parts += [chance.of(captions.FILLERS)(chance) for _ in range(fillers)]
        if chance.below(3) == 0:
            parts.append(captions.running(chance, self._any_emoji(chance)))
        parts.sort(key=lambda _: chance.below(1 << 16))
        return captions.join(parts), missing

    def _about(self, chance: Chance, emoji: str) -> tuple[list[Part], bool]:
        """How a caption holds an emoji that it is listed under, and if by a hashtag of its own."""
        match chance.below(20):
            case 0 | 1:
                return [], False
            case 2 | 3:
                return [captions.running(chance, emoji)], False
            case 4:
                return [captions.tag_mixed(chance, emoji)], False
            case 5:
                return [captions.not_quite(chance, emoji)], False
            case 6 | 7:
                return [captions.tag_emoji(chance, emoji), captions.running(chance, emoji)], True
        return [captions.tag_emoji(chance, emoji)], True

    def _any_emoji(self, chance: Chance) -> str:
        return self.order[bisect_right(self._shares, chance.fraction())]

    def image(self, number: int) -> Image:
        """The image with a number: four times its post's, and its place in the post."""
        chance = Chance(self.seed, "image", number)
        post = number // IMAGES_PER_POST
        noai = chance.of(("noai", "noimageai", "noindex", "tdm"))
        noai = noai if chance.happens(self.noai) else ""
        bad = chance.of(self.bad) if self.bad and chance.happens(self.bad_share) else ""
        noai = "" if bad else noai  # one thing at a time
        if post and chance.happens(self.duplicates):
            first = self.image(chance.below(post) * IMAGES_PER_POST)
            variant, amount, scale = _variant(chance, first.variant)
            root, emoji = first.root, first.emoji
        else:
            variant, amount, scale, root = "original", 1.0, 1.0, number
            emoji = self.order[bisect_right(self._primaries, post) - 1]
        width, height = self._size(root)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        return Image(number, root, variant, amount, emoji, width, height, noai, bad)

    def _size(self, root: int) -> tuple[int, int]:
        chance = Chance(self.seed, "size", root)
        across, down = chance.of(SHAPES)
        edge = self.edge_px * chance.of((0.75, 1.0, 1.0, 1.25))
        return round(edge * across / max(across, down)), round(edge * down / max(across, down))

    def author_of(self, number: int) -> int:
        """The author of a post: author 0 has most, those of high numbers few."""
        return int(self.author_count * (self._ownership.place(number) / self.posts) ** 2)

    def posts_of(self, author: int) -> Iterator[int]:
        """The numbers of an author's posts."""
        low, high = (
            int(self.posts * (edge / self.author_count) ** 0.5) for edge in (author, author + 1)
        )
        for place in range(max(low - 1, 0), min(high + 2, self.posts)):
            number = self._ownership.number(place)
            if self.author_of(number) == author:
                yield number

    @cached_property
    def _authors(self) -> dict[int, Author]:
        return {}

    def author(self, number: int) -> Author:
        """An author by number; the most active are asked for again and again, so they are kept."""
        if (known := self._authors.get(number)) is not None:
            return known
        if len(self._authors) > 20_000:
            self._authors.clear()
        author = self._authors[number] = self._author(number)
        return author

    def _author(self, number: int) -> Author:
        chance = Chance(self.seed, "author", number)
        fate = chance.of(FATES) if chance.happens(self.fates) else ""
        return Author(number, self._did(number), f"user{number}.example", fate)

    def _did(self, number: int) -> str:
        head = number.to_bytes(5)
        check = blake2b(head, digest_size=10, key=b"%d" % self.seed).digest()
        masked = bytes(a ^ b for a, b in zip(head, check, strict=False))
        return "did:plc:" + base64.b32encode(masked + check).decode().lower()

    def author_by_did(self, did: str) -> Author | None:
        """The author whom an identifier names, None if it names nobody."""
        try:
            whole = base64.b32decode(did.removeprefix("did:plc:").upper())
        except ValueError:
            return None
        number = int.from_bytes(a ^ b for a, b in zip(whole[:5], whole[5:], strict=False))
        if number >= self.author_count or self._did(number) != did:
            return None
        return self.author(number)

    def uri(self, post: Post) -> str:
        """The post's name on Bluesky."""
        return f"at://{post.author.did}/app.bsky.feed.post/{self.rkey(post)}"

    def rkey(self, post: Post) -> str:
        return tid(self.time_us(post))

    def time_us(self, post: Post) -> int:
        """When it was made, by Bluesky, in microseconds since 1970."""
        return self.time_us_at(self.stream.place(post.number) * 4)

    def time_us_at(self, step: int) -> int:
        """The time of a step of the stream; a post's step is four times its place."""
        span = self.days * 86400e6
        return int(self.epoch * 1e6 - span + span * step / (4 * self.posts))


def folded(emoji: str) -> str:
    """A tag's name without U+FE0F: with and without, it is the same tag."""
    return emoji.replace(captions.EMOJI_STYLE, "")


def tid(time_us: int) -> str:
    """A key that sorts by time, as AT Protocol makes them."""
    number = time_us << 10
    return "".join(_SORTABLE[number >> shift & 31] for shift in range(60, -1, -5))


def _variant(chance: Chance, of: str) -> tuple[str, float, float]:
    """How a duplicate differs from its root: kind, amount, and the scale of its edges."""
    match chance.below(5):
        case 0:
            return "quality", float(50 + chance.below(46)), 1.0
        case 1:
            scale = chance.between(0.5, 2.0)
            return "scale", scale, scale
        case 2:
            return "crop", 0.95, 0.95**0.5
    return "same", 1.0, 1.0
