"""One atlas from end to end: from a data set or folder to a page and tables.

Started again in the same folder it goes on: what the models saw is kept in `data/features`.

    atlas.html          all of it for people; one file that loads nothing
    atlas.json          all of it but the pictures, for programs
    emoji.csv …         its tables, as CSV and as Parquet
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from services.shared import extras, registry, starter
from services.shared.model import Model
from services.shared.vocabulary import inventory, name
from services.trainer import faces
from services.trainer.atlas import (
    asked,
    compare,
    corpus,
    drift,
    groups,
    limits,
    literal,
    meaning,
    page,
    pictures,
    saliency,
    seen,
    signs,
    tables,
    terms,
)
from services.trainer.atlas.corpus import Corpus
from services.trainer.atlas.groups import Edge, Looks
from services.trainer.atlas.literal import Literal
from services.trainer.atlas.pictures import Chosen
from services.trainer.atlas.signs import Sight, Signs
from services.trainer.atlas.told import Atlas, OfEmoji, SubMeaning
from services.trainer.events import Events

LEAST_BELIEF, MOST_GUESSES = 0.2, 3  # of what a model sees in a bare folder
SUB_TERMS = 4
TOGETHER, EDGES = 6, 240
_BLUESKY = re.compile(r"at://(did:[a-z0-9:._-]+)/app\.bsky\.feed\.post/([A-Za-z0-9]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What an atlas is made of, and where it goes."""

    path: Path
    """A data set, or a folder."""
    output: Path
    data: Path
    """Where what models saw is kept."""
    registry: Path
    model: str = ""
    """NAME, NAME@VERSION or a folder; empty for the live one, or the starter for a bare folder."""
    compare: str = ""
    faces: str = "keep"


def build(job: Job, events: Events) -> Path:
    """Makes the atlas; returns the page's path.

    Raises:
        EmojinetError: what is wrong, in one line, which is in the events, too.
    """
    with events.told():
        path = _Build(job, events).go()
        events.done()
        return path


class _Build:
    def __init__(self, job: Job, events: Events) -> None:
        self._job, self._events = job, events
        self._began = time.monotonic()

    def go(self) -> Path:
        """From the pictures to the page."""
        job = self._job
        segments = asked.segments(job.compare) if job.compare else None
        faces.treated(Image.new("RGB", (64, 64)), job.faces)  # it can, or says so now
        self._events.activity(f"reading {job.path}")
        found = corpus.opened(job.path)
        literalist = self._starter()
        chosen = self._chosen(found, literalist)
        self._events.activity(f"looking at {len(found.keys):,} pictures")
        by_starter = self._look(found, literalist)
        by_chosen = by_starter if chosen is literalist else self._look(found, chosen)
        if found.kind == "pictures":
            found = corpus.guessed(found, _guesses(by_chosen))
        self._events.activity("weighing words and pictures")
        told = self._told(found, by_starter, by_chosen, segments)
        self._events.activity("writing the page")
        tables.write(job.output, told)
        return page.write(job.output, told)

    # -- models -----------------------------------------------------------------------------------

    def _starter(self) -> Model:
        """The newest starter of the registry, built where there is none."""
        root = self._job.registry
        which = next((one for one in registry.models(root) if one.name == starter.NAME), None)
        if which is None:
            which = starter.install(root, lambda step: self._events.activity(f"starter: {step}"))
        return registry.load(root, which)

    def _chosen(self, found: Corpus, literalist: Model) -> Model:
        named, root = self._job.model, self._job.registry
        if not named:
            first = None if found.kind == "pictures" else registry.live(root)
            return (
                registry.load(root, first) if first and first.name != starter.NAME else literalist
            )
        loaded = registry.named(root, named)
        return literalist if loaded.version == literalist.version else loaded

    def _look(self, found: Corpus, chosen: Model) -> seen.Seen:
        return seen.look(found, chosen, self._job.data / "features", self._progress)

    def _progress(self, done: int, total: int) -> None:
        spent = time.monotonic() - self._began
        rate = done / max(spent, 1e-3)
        self._events.progress(
            step=done,
            steps=total,
            images=0,
            loss=0.0,
            images_per_second=rate,
            data_wait_share=0.0,
            remaining_seconds=(total - done) / max(rate, 1e-3),
            seconds={},
        )

    # -- what is told -----------------------------------------------------------------------------

    def _told(
        self,
        found: Corpus,
        by_starter: seen.Seen,
        by_chosen: seen.Seen,
        segments: tuple[str, str] | None,
    ) -> Atlas:
        readable_S = by_starter.readable_S & by_chosen.readable_S
        edges = groups.together(found.posts.author.tolist(), found.posts.emoji)
        emoji = self._emoji(found, by_starter, by_chosen, readable_S, edges)
        wanted = _wanted(emoji)
        self._events.activity(f"making {len(wanted):,} small pictures")
        thumbnails = pictures.thumbnails(found, wanted, self._job.faces, self._progress)
        return Atlas(
            name=found.name,
            kind=found.kind,
            digest=found.digest,
            model=f"{by_chosen.model.name}@{by_chosen.model.version}",
            pictures=len(found.keys),
            posts=len(found.posts) if found.kind == "data set" else 0,
            authors=len(set(found.posts.author.tolist())) if found.posts.authors_known else 0,
            months=_months(found.posts.seconds),
            removed=found.removed,
            unreadable=int((~readable_S).sum()),
            limits=limits.told(found, emoji, readable_S, len(wanted) - len(thumbnails)),
            emoji=emoji,
            edges=edges[:EDGES],
            comparison=compare.compared(found.posts, segments) if segments else None,
            thumbnails=thumbnails,
            links=_links(found, thumbnails),
            captions={
                one: " ".join(found.emoji[e] for e in found.labels[one]) for one in thumbnails
            },
        )

    def _emoji(
        self,
        found: Corpus,
        by_starter: seen.Seen,
        by_chosen: seen.Seen,
        readable_S: np.ndarray,
        edges: Sequence[Edge],
    ) -> list[OfEmoji]:
        """Each emoji that has a picture."""
        count, posts = len(found.emoji), found.posts
        sight = _sight(found, by_starter.model, _rows(readable_S, seen.class_beliefs, by_starter))
        embedded_SD = groups.embedded(
            np.where(readable_S[:, None], by_chosen.features_SF, np.nan).astype(np.float16)
        )
        of = signs.mentions(posts, count)
        looks = groups.looks(embedded_SD, sight.class_S, sight.class_names)
        channels = self._channels(found, of, looks, sight)
        meanings, marks = meaning.meanings(posts, of, channels, count)
        drifts = drift.drifts(posts, of, channels, marks, count)
        members = _members(found)
        shown = [emoji for emoji in range(count) if members[emoji]]
        chosen = self._choose(found, by_chosen, _beliefs(found, by_chosen, readable_S), shown)
        explained = self._explained(found, by_chosen.model, chosen, shown)
        mean_ED = groups.means(embedded_SD, members)
        plane, near = groups.plane(mean_ED[shown]), groups.neighbours(mean_ED, shown)
        return [
            OfEmoji(
                index=e,
                emoji=found.emoji[e],
                name=name(found.emoji[e]),
                group=_groups().get(found.emoji[e], ""),
                pictures=len(members[e]),
                place=(float(plane[row, 0]), float(plane[row, 1])),
                meaning=meanings[e],
                drift=drifts[e],
                chosen=chosen[e],
                explained=explained.get(e),
                sub_meanings=_sub_meanings(found, embedded_SD, sight, members[e]),
                neighbours=near[e],
                together=[edge for edge in edges if e in edge[:2]][:TOGETHER],
            )
            for row, e in enumerate(shown)
        ]

    def _channels(
        self, found: Corpus, of: signs.Mentions, looks: Looks, sight: Sight
    ) -> Sequence[Signs]:
        said = signs.words(found.posts, of, Literal(found.emoji))
        looked = signs.pictures(found, of, looks, sight)
        if found.kind == "pictures":  # the model would be held against itself
            empty = np.zeros(0, np.int64)
            looked = looked._replace(mention_T=empty, sign_T=empty)
        literal_M = said.literal_M | looked.literal_M
        return [
            signs.without_facets(said, of, literal_M, len(found.emoji)),
            signs.without_facets(looked, of, said.literal_M, len(found.emoji)),
        ]

    def _choose(
        self, found: Corpus, by_chosen: seen.Seen, beliefs_SE: np.ndarray, shown: Sequence[int]
    ) -> Mapping[int, Chosen]:
        """Pictures of each emoji; precision of a trained model on what it did not learn from."""
        judged_S = np.ones(len(found.keys), bool)
        if found.kind == "pictures":
            judged_S[:] = False
        elif by_chosen.model.name != starter.NAME:
            judged_S = np.array([place.split == "test" for place in found.places])
        choice = pictures.Choice(found, beliefs_SE, judged_S)
        return {e: choice.of(e) for e in shown}

    def _explained(
        self, found: Corpus, chosen: Model, choices: Mapping[int, Chosen], shown: Sequence[int]
    ) -> Mapping[int, saliency.Explained]:
        """Where the model sees each emoji in the picture that it is surest of."""
        self._events.activity("asking the model where it sees each emoji")
        pairs = {
            e: (choices[e].gallery[0], output)
            for e in shown
            if choices[e].gallery
            and (output := chosen.vocabulary.index(found.emoji[e])) is not None
        }
        made = saliency.explained(found, chosen, list(pairs.values()))
        return {e: one for e, one in zip(pairs, made, strict=True) if one is not None}


# -- parts ----------------------------------------------------------------------------------------


def _rows(
    readable_S: np.ndarray, of: Callable[[Model, np.ndarray], np.ndarray], found: seen.Seen
) -> np.ndarray:
    """What is believed of the pictures that can be read; NaN elsewhere."""
    believed = of(found.model, np.where(readable_S[:, None], found.features_SF, 0))
    believed[~readable_S] = np.nan
    return believed


def _sight(found: Corpus, literalist: Model, classes_SC: np.ndarray) -> Sight:
    """What the starter sees in the pictures of the corpus."""
    table_CK = literalist.weights()["head.table_CK"]
    extra_names = extras.read().names
    related_IE = literal.relatives(found.emoji)
    shown_CE = literal.shown_by(table_CK, related_IE)
    kin_IE = related_IE | literal.siblings(found.emoji)
    near_CE = literal.shown_by(table_CK, kin_IE)
    filled = np.nan_to_num(classes_SC)
    best_S = filled.argmax(1)
    sure_S = filled[np.arange(len(filled)), best_S] >= signs.LEAST_BELIEF
    seen_SI = filled @ table_CK[:, : len(related_IE)]
    looks_S = seen_SI.argmax(1)
    alike_S = seen_SI[np.arange(len(filled)), looks_S] >= signs.LEAST_BELIEF
    names = literal.class_names(extra_names)
    return Sight(
        belief_SE=(classes_SC @ shown_CE).astype(np.float32),
        near_SE=(classes_SC @ near_CE).astype(np.float32),
        class_S=np.where(sure_S, best_S, -1),
        seen_S=np.where(alike_S, looks_S + len(names), -1),
        class_names=[*names, *(f"like {one.text}" for one in inventory())],
        shown_CE=np.concatenate([shown_CE, kin_IE]),
    )


@cache
def _groups() -> dict[str, str]:
    return {one.text: one.group for one in inventory()}


def _beliefs(found: Corpus, by_chosen: seen.Seen, readable_S: np.ndarray) -> np.ndarray:
    """(S, E): the model's belief in the emoji of the corpus; nothing in those it does not know."""
    believed = _rows(readable_S, seen.emoji_beliefs, by_chosen)
    beliefs_SE = np.zeros((len(believed), len(found.emoji)), np.float32)
    for emoji, text in enumerate(found.emoji):
        output = by_chosen.model.vocabulary.index(text)
        if output is not None:
            beliefs_SE[:, emoji] = believed[:, output]
    beliefs_SE[~readable_S] = np.nan
    return beliefs_SE


def _guesses(by_model: seen.Seen) -> list[tuple[int, ...]]:
    """The emoji that a model is sure enough to see in each picture, in the whole inventory."""
    places = {one.text: number for number, one in enumerate(inventory())}
    believed = _rows(by_model.readable_S, seen.emoji_beliefs, by_model)
    guesses = []
    for row in np.nan_to_num(believed):
        best = np.argsort(-row, kind="stable")[:MOST_GUESSES]
        texts = [by_model.model.vocabulary.emoji[k] for k in best if row[k] >= LEAST_BELIEF]
        guesses.append(tuple(sorted(places[text] for text in texts if text in places)))
    return guesses


def _members(found: Corpus) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in found.emoji]
    for picture, own in enumerate(found.labels):
        for emoji in own:
            members[emoji].append(picture)
    return members


def _sub_meanings(
    found: Corpus, embedded_SD: np.ndarray, sight: Sight, members: Sequence[int]
) -> list[SubMeaning]:
    """Groups of like pictures, each with the words that its posts have more than the others."""
    parts = groups.sub_meanings(embedded_SD, members)
    said = [_said(found, part) for part in parts]
    everything = sum(said, Counter[str]())
    total = sum(len(part) for part in parts)
    made = []
    for part, own in zip(parts, said, strict=True):
        words = sorted(word for word, count in own.items() if count >= 3)
        own_Q = np.array([own[word] for word in words], float)
        all_Q = np.array([everything[word] for word in words], float)
        value_Q, error_Q = terms.log_odds(
            own_Q,
            np.full(len(words), float(len(part))),
            all_Q - own_Q,
            np.full(len(words), float(total - len(part))),
            all_Q / max(total, 1),
        )
        low_Q = value_Q - terms.Z * error_Q
        best = sorted((-low, word) for low, word in zip(low_Q, words, strict=True) if low > 0)
        title = groups.title(sight.class_S[part], sight.class_names)
        made.append(
            SubMeaning(
                share=len(part) / total,
                looks=title,
                terms=[word for _, word in best[:SUB_TERMS]],
                pictures=part[: pictures.TYPICAL],
            )
        )
    return made


def _said(found: Corpus, part: Sequence[int]) -> Counter[str]:
    """How many of the pictures' posts say each word; each picture's author once."""
    pairs = {
        (int(found.posts.author[post]), term)
        for picture in part
        for post in found.posts.of_picture[picture]
        for term in found.posts.terms[post]
    }
    return Counter(term for _, term in pairs)


def _wanted(emoji: Sequence[OfEmoji]) -> list[int]:
    """All pictures that the page shows, those of an emoji together."""
    wanted: dict[int, None] = {}
    for one in emoji:
        chosen = one.chosen
        for strip in (chosen.gallery, chosen.lifted, chosen.chance, chosen.wrong):
            wanted |= dict.fromkeys(strip)
        for sub in one.sub_meanings:
            wanted |= dict.fromkeys(sub.pictures)
    return list(wanted)


def _links(found: Corpus, shown: Mapping[int, str]) -> dict[int, str]:
    links = {}
    for picture in shown:
        for post in found.posts.of_picture[picture]:
            if address := web_address(found.posts.uri[post]):
                links[picture] = address
                break
    return links


def web_address(uri: str) -> str:
    """Where people find a post on the web; empty if that is nowhere.

    >>> web_address("at://did:plc:abc/app.bsky.feed.post/3k"), web_address("javascript:alert(1)")
    ('https://bsky.app/profile/did:plc:abc/post/3k', '')
    """
    if known := _BLUESKY.fullmatch(uri):
        return f"https://bsky.app/profile/{known[1]}/post/{known[2]}"
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    return uri if parts.scheme in ("http", "https") and parts.netloc and uri.isprintable() else ""


def _months(seconds: np.ndarray) -> tuple[str, str] | None:
    known = seconds[np.isfinite(seconds)]
    if not len(known):
        return None
    first, last = (tables.day(float(end)) or "" for end in (known.min(), known.max()))
    return first[:7], last[:7]
