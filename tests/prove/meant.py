"""Posts whose meanings are known: data sets for the proof of the atlas, by seed.

Most emoji are used as what they show: posts name it often, and show it where there are photographs
of it. Some carry another meaning in a tenth of their posts: by words that no emoji is called, or by
photographs of something else, and no words. Some begin to carry one on a day. Beside that is what
must not look like a meaning: authors who repeat themselves, a campaign with one text, emoji that
are posted together, words that everybody uses.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import dataset, keep
from services.crawler.dataset import Find
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.shared import photographs, pixels
from services.shared.vocabulary import Emoji, Vocabulary, inventory
from services.trainer import photos

SHARE = 0.1  # of the posts of an emoji with another meaning
SHOWING = 0.7  # of the posts of an emoji whose photographs there are, that show it
NAMING = 0.5  # of the posts, that name it
FIRST, LAST = 1.40e9, 1.49e9  # seconds; nearly three years


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a corpus is made."""

    emoji: int = 80
    by_words: int = 7
    by_pictures: int = 7
    drifting: int = 5
    posts: int = 150
    """Of an emoji, in the middle; some have three times as many."""
    authors: int = 1500
    words: int = 6
    """That a meaning has, of which a post says two."""
    px: int = 224


@dataclass
class Truth:
    """What was planted."""

    words: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)
    drift: dict[str, float] = field(default_factory=dict)
    """Emoji -> when it began."""
    labels: dict[str, str] = field(default_factory=dict)
    """Emoji -> what its planted photographs show."""

    @property
    def planted(self) -> set[str]:
        """All emoji with another meaning."""
        return self.words | self.pictures | self.drift.keys()


class Pool:
    """Photographs by what they show; no two pictures made of one are alike."""

    def __init__(self, folder: Path, px: int) -> None:
        self._px = px
        self.by_label: dict[str, list[Image.Image]] = {}
        for photo in photos.photos():
            if (path := photos.found(photo, [folder])) and photo.label != "face":
                self._add(photo.label, path)
        if not self.by_label:  # what is always installed
            for number, path in enumerate(photographs.installed()):
                self._add(f"photograph {number}", path)
        self.labels = sorted(self.by_label)

    def _add(self, label: str, path: Path) -> None:
        small = pixels.decode(path.read_bytes(), edge_px=2 * self._px)
        self.by_label.setdefault(label, []).append(Image.fromarray(small))

    def showing(self, emoji: str) -> list[str]:
        """The labels that mean an emoji first of all."""
        known = photos.labels()
        return [one for one in self.labels if one in known and known[one].emoji[0] == emoji]

    def strange(self, emoji: Emoji) -> list[str]:
        """The labels that have nothing to do with an emoji."""
        known, near = photos.labels(), {e.text for e in inventory() if e.group == emoji.group}
        return [one for one in self.labels if one in known and near.isdisjoint(known[one].emoji)]

    def picture(self, label: str, draw: np.random.Generator) -> bytes:
        """A JPEG of one of the photographs, as somebody else would have taken it."""
        own = self.by_label[label]
        source = own[draw.integers(len(own))]
        share, stretch = draw.uniform(0.55, 1), draw.uniform(0.85, 1.18)
        width = min(source.width, round(source.width * share * stretch))
        height = min(source.height, round(source.height * share / stretch))
        left = int(draw.integers(source.width - width + 1))
        top = int(draw.integers(source.height - height + 1))
        part = source.crop((left, top, left + width, top + height))
        part = ImageOps.fit(part, (self._px, self._px))
        if draw.random() < 0.5:
            part = ImageOps.mirror(part)
        part = ImageEnhance.Brightness(part).enhance(draw.uniform(0.7, 1.3))
        part = ImageEnhance.Color(part).enhance(draw.uniform(0.6, 1.4))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=80)
        return file.getvalue()


def frozen(root: Path, kind: Kind, pool: Pool, seed: int) -> tuple[Path, Truth]:
    """A data set with planted meanings, and what they are."""
    maker = _Maker(root / "jpeg", kind, pool, np.random.default_rng(seed))
    (root / "jpeg").mkdir(parents=True)
    chosen = tuple(one.text for one in maker.emoji)
    dataset.write(
        root / "set",
        maker.finds(),
        vocabulary=Vocabulary(chosen, (0,) * len(chosen)),
        funnel=[],
        rules=pb.KeepRules(),
        name="meant",
    )
    return root / "set", maker.truth


class _Maker:
    def __init__(self, folder: Path, kind: Kind, pool: Pool, draw: np.random.Generator) -> None:
        self._folder, self._kind, self._pool, self._draw = folder, kind, pool, draw
        self.truth, self._number = Truth(), 0
        shown = [one for one in inventory() if pool.showing(one.text)]
        rest = [one for one in inventory() if not pool.showing(one.text)]
        half = min(len(shown), kind.emoji // 2)
        self.emoji: list[Emoji] = [
            *(shown[n] for n in draw.choice(len(shown), half, replace=False)),
            *(rest[n] for n in draw.choice(len(rest), kind.emoji - half, replace=False)),
        ]
        self._everyday = self._invented(700)
        weight = 1 / np.arange(1, 701)
        self._often = weight / weight.sum()
        active = 1 / np.arange(1, kind.authors + 1) ** 0.7
        self._active = active / active.sum()
        order = draw.permutation(kind.emoji).tolist()
        cuts = np.cumsum([kind.by_words, kind.by_pictures, kind.drifting])
        self._by_words, self._by_pictures = set(order[: cuts[0]]), set(order[cuts[0] : cuts[1]])
        self._drifting = set(order[cuts[1] : cuts[2]])
        # Habits and campaigns are where no meaning is: they must not be taken for one.
        self._habits, self._campaigns = set(order[-8:]), set(order[-12:-8])

    def _invented(self, count: int) -> list[str]:
        """Words that no emoji is called."""
        letters = list("abdefgiklmnoprstuvz")
        made: dict[str, None] = {}
        while len(made) < count:
            made["".join(self._draw.choice(letters, int(self._draw.integers(6, 10))))] = None
        return list(made)

    def finds(self) -> Iterator[Find]:
        for place, emoji in enumerate(self.emoji):
            yield from self._of(place, emoji)

    def _of(self, place: int, emoji: Emoji) -> Iterator[Find]:
        draw, kind = self._draw, self._kind
        count = int(kind.posts * np.exp(draw.normal(0, 0.4)))
        words, label = self._invented(kind.words), self._stranger(emoji)
        begins = draw.uniform(FIRST + 0.25 * (LAST - FIRST), FIRST + 0.75 * (LAST - FIRST))
        by_pictures = place in self._by_pictures or (
            place in self._drifting and draw.random() < 0.4
        )
        if place in self._by_words:
            self.truth.words.add(emoji.text)
        elif place in self._by_pictures:
            self.truth.pictures.add(emoji.text)
            self.truth.labels[emoji.text] = label
        elif place in self._drifting:
            self.truth.drift[emoji.text] = begins
        for _ in range(count):
            when = draw.uniform(FIRST, LAST)
            share = SHARE if place in self._by_words | self._by_pictures else 0.0
            if place in self._drifting and when > begins:
                share = 0.5
            other = draw.random() < share
            said = [] if not other or by_pictures else list(draw.choice(words, 2, replace=False))
            tags = said[:1] if draw.random() < 0.5 else []
            yield self._find(
                emoji,
                author=f"author {draw.choice(kind.authors, p=self._active)}",
                when=when,
                words=[*self._usual(emoji, naming=not other), *said[len(tags) :]],
                tags=tags,
                label=label if other and by_pictures else self._shown(emoji),
            )
        yield from self._noise(place, emoji, count)

    def _noise(self, place: int, emoji: Emoji, count: int) -> Iterator[Find]:
        """One author's habit, or a campaign of several accounts in one week."""
        draw, label = self._draw, self._stranger(emoji)
        pet = self._invented(6)
        if place in self._habits:
            for _ in range(count // 4):
                when, who = draw.uniform(FIRST, LAST), f"busy {place}"
                words = [*self._usual(emoji, naming=True), *pet[:2]]
                yield self._find(
                    emoji, author=who, when=when, words=words, tags=pet[2:3], label=label
                )
        if place in self._campaigns:
            start = (draw.uniform(FIRST, LAST) // 604_800) * 604_800
            for number in range(count // 4):
                yield self._find(
                    emoji,
                    author=f"account {place} {number % 12}",
                    when=start + draw.uniform(0, 600_000),
                    words=pet[:4],
                    tags=pet[4:],
                    label=self._shown(emoji),
                )

    def _usual(self, emoji: Emoji, *, naming: bool) -> list[str]:
        draw = self._draw
        words = [
            str(one) for one in draw.choice(self._everyday, draw.integers(2, 8), p=self._often)
        ]
        if naming and draw.random() < NAMING:
            own = keep.words(" ".join([emoji.name.lower(), *emoji.keywords]))
            words += [str(draw.choice(own))] if own else []
        return list(dict.fromkeys(words))

    def _stranger(self, emoji: Emoji) -> str:
        strange: Sequence[str] = self._pool.strange(emoji) or self._pool.labels
        return str(strange[int(self._draw.integers(len(strange)))])

    def _shown(self, emoji: Emoji) -> str:
        own = self._pool.showing(emoji.text)
        if own and self._draw.random() < SHOWING:
            return own[self._draw.integers(len(own))]
        return self._pool.labels[self._draw.integers(len(self._pool.labels))]

    def _find(
        self,
        emoji: Emoji,
        *,
        author: str,
        when: float,
        words: list[str],
        tags: list[str],
        label: str,
    ) -> Find:
        draw, self._number = self._draw, self._number + 1
        content = self._pool.picture(label, draw)
        sha256 = hashlib.sha256(content + b"%d" % self._number).digest()
        path = self._folder / f"{sha256.hex()}.jpg"
        path.write_bytes(content)
        together = {emoji.text}
        if draw.random() < 0.25:
            together.add(self.emoji[draw.integers(len(self.emoji))].text)
        post = Kept(
            source="import",
            uri=f"https://posts.example/{self._number}",
            author=hashlib.sha256(author.encode()).digest()[:16],
            time_seconds=when,
            segment=("brand", "category")[int(draw.random() < 0.7)],
            mentions=[Mention(one, Where.TEXT) for one in sorted(together)],
            hashtags=tags,
            words=words,
            images=[PostImage(f"https://posts.example/{self._number}.jpg")],
        )
        # As if no two looked alike: what is under proof is not the finding of duplicates.
        return Find(sha256, draw.bytes(32), 100, 1000, 1000, path, [post])
