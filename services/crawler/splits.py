"""Which samples a model learns from, is chosen by, and is judged by.

Samples that share an author, directly or through others, go the same way: else a model would be
judged on what it has as good as seen. Which way is drawn from a keyed hash, so that neither order
nor a second crawl changes it; then rare emoji get their examples everywhere.
"""

# N samples

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from services.crawler.duplicates import components

TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPLITS = (TRAIN, TEST, VALIDATION)  # in the order in which an emoji of few examples gets them


class Shares(NamedTuple):
    """How much of the samples is not for training."""

    validation: float = 0.1
    test: float = 0.1


def assign(
    keys: Sequence[bytes],
    authors: Sequence[Collection[bytes]],
    emoji: Sequence[Collection[int]],
    *,
    shares: Shares,
    seed: bytes,
) -> list[str]:
    """The split of each sample.

    Args:
        keys: of the samples, each once; a group of samples is drawn by the least of its keys.
        authors: of the posts of each sample.
        emoji: of each sample, as classes.
        shares: of the samples, about: groups stay whole, and rare emoji are provided for.
        seed: of the draw: other seeds, other splits.
    """
    group_N = _groups(authors)
    least: dict[int, bytes] = {}
    classes: dict[int, set[int]] = defaultdict(set)
    for group, key, of_sample in zip(group_N, keys, emoji, strict=True):
        least[group] = min(key, least.get(group, key))
        classes[group].update(of_sample)
    # In an order that depends on nothing but the keys.
    groups = [
        _Group(group, least[group], size, classes[group])
        for group, size in sorted(Counter(group_N).items(), key=lambda item: least[item[0]])
    ]
    room = {
        TRAIN: float(len(keys)),
        TEST: max(1, shares.test * len(keys)) if shares.test else 0,
        VALIDATION: max(1, shares.validation * len(keys)) if shares.validation else 0,
    }
    drawn = {group.number: _drawn(group, room, shares, seed) for group in groups}
    _provide(drawn, groups, room)
    return [drawn[group] for group in group_N]


class _Group(NamedTuple):
    """Samples that go the same way."""

    number: int
    key: bytes
    size: int
    classes: set[int]


def _groups(authors: Sequence[Collection[bytes]]) -> list[int]:
    """For each sample the first of those that it hangs together with by authors."""
    first: dict[bytes, int] = {}
    pairs = [
        (first.setdefault(author, sample), sample)
        for sample, names in enumerate(authors)
        for author in names
    ]
    groups: list[int] = components(len(authors), np.array(pairs, np.int64).reshape(-1, 2)).tolist()
    return groups


def _drawn(group: _Group, room: dict[str, float], shares: Shares, seed: bytes) -> str:
    """The split of a group by chance; one that is larger than its split is learned from."""
    chance = int.from_bytes(hmac.digest(seed, group.key, hashlib.sha256)[:8]) / 2**64
    split = TEST if chance < shares.test else VALIDATION
    held_out = chance < shares.test + shares.validation and group.size <= room[split]
    return split if held_out else TRAIN


def _provide(drawn: dict[int, str], groups: list[_Group], room: dict[str, float]) -> None:
    """Moves groups until each emoji has one in each split, or in as many as it has groups.

    Greedy, the rarest emoji first: the smallest group moves that no emoji of its split needs. So
    some emoji may go without. One of a single group goes where it is learned.
    """
    with_emoji: dict[int, list[_Group]] = defaultdict(list)  # the smallest first
    for group in sorted(groups, key=lambda group: (group.size, len(group.classes))):
        for emoji in group.classes:
            with_emoji[emoji].append(group)
    has = Counter((emoji, drawn[group.number]) for group in groups for emoji in group.classes)

    def is_free(group: _Group, emoji: int, split: str) -> bool:
        """Whether it may leave where it is: the emoji itself needs the first splits most."""
        now = drawn[group.number]
        if len(with_emoji[emoji]) == 1:
            return True
        better = SPLITS.index(split) < SPLITS.index(now)
        return all(has[e, now] > 1 or (e == emoji and better) for e in group.classes)

    wanted = [split for split in SPLITS if room[split]]
    for emoji, own in sorted(with_emoji.items(), key=lambda item: (len(item[1]), item[0])):
        for split in wanted[: len(own)]:
            fitting = (g for g in own if g.size <= room[split] and is_free(g, emoji, split))
            mover = None if has[emoji, split] else next(fitting, None)
            if mover:
                has.subtract((other, drawn[mover.number]) for other in mover.classes)
                has.update((other, split) for other in mover.classes)
                drawn[mover.number] = split
