"""What the starter's extra classes learn from, as features: photographs, drawings, hands, nothing.

Computed once, some 35,000 squares in about a quarter of an hour on one core, and kept in a folder.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.shared import extras, network, pixels, starter
from services.shared.vocabulary import inventory
from services.trainer import drawings, photos, views
from services.trainer.photos import Photo

SEED = 20151109
KEPT = Path("data/starter-head")
BATCH = 16
PHOTO_VIEWS, DRAWING_VIEWS, HAND_VIEWS, NOTHING_VIEWS = 6, 4, 3, 540
TONES = ("", *"🏻🏼🏽🏾🏿")
HANDS = {
    "open hand": "✋👋👐",
    "fist": "✊👊",
    "victory hand": "✌",
    "pointing hand": "☝👆👇👈👉",
    "thumb": "👍👎",
    "OK hand": "👌",
    "two hands": "👏🙌🙏",
}
BEHIND_HANDS = ("scene", "people", "groceries")
NOT_DRAWN = "geometric"
"""The subgroup of emoji whose drawings are plain shapes, which every photograph has."""

# N squares, V views, F features


class Lessons(NamedTuple):
    """Squares to learn from."""

    features_NF: np.ndarray
    targets_N: np.ndarray
    """Places of the extra classes; -1 where none of them is right."""


def class_names() -> list[str]:
    """The extra classes: those of the reviewed table, then the drawings."""
    reviewed = dict.fromkeys(row.name for row in extras.load())
    return [*reviewed, *(e.text for e in inventory() if e.subgroup != NOT_DRAWN)]


def imagenet() -> network.Network:
    """The starter's backbone with ImageNet's own classes, its table empty."""
    net = network.Network(starter.IMAGENET, starter.PREPROCESSING, 1)
    empty = np.zeros((starter.IMAGENET.classes, 1), np.float32)
    return network.with_weights(
        net, {**starter.lite0(list(net.state_dict())), starter.TABLE: empty}
    )


class School:
    """Makes lessons with one network, and keeps what it computed."""

    def __init__(self, net: network.Network, folders: list[Path]) -> None:
        self.names = class_names()
        self._net, self._folders = net, folders
        known = photos.photos()
        self.shown = [photo for photo in known if photos.found(photo, folders)]
        print(f"{len(self.shown)} photographs, {len(known) - len(self.shown)} missing", flush=True)

    def photos(self) -> np.ndarray:
        """(N, V, F) of the photographs; the first view is the one that is served."""

        def squares() -> Iterator[views.Square]:
            for photo in self.shown:
                yield from views.photo(self._content(photo), PHOTO_VIEWS, _random(photo.path))

        features_NF = self._features("photos", [p.path for p in self.shown], squares)
        return features_NF.reshape(len(self.shown), PHOTO_VIEWS, -1)

    def photo_lessons(self, photos_NVF: np.ndarray) -> Iterator[Lessons]:
        """All views of the photographs to learn from."""
        for photo, seen_VF in zip(self.shown, photos_NVF, strict=True):
            if photo.part == "train":
                yield self._lessons(seen_VF, photos.labels()[photo.label].name)

    def drawing_lessons(self) -> Iterator[tuple[str, Lessons]]:
        """Each emoji as each vendor draws it, on plain backdrops, with the vendor's name."""
        emoji = {e.text for e in inventory()}
        drawn = [name for name in self.names if name in emoji]
        for vendor in drawings.STARTERS:
            paths = [_drawing(vendor.name, name) for name in drawn]
            features_NF = self._features(vendor.name, drawn, _views(paths, DRAWING_VIEWS))
            places = [self.names.index(name) for name in drawn]
            yield vendor.name, Lessons(features_NF, np.repeat(places, DRAWING_VIEWS))

    def hand_lessons(self) -> Iterator[Lessons]:
        """Drawn hands in all skin tones before parts of photographs: no package has real ones."""
        labels = photos.labels()
        behind = [
            photo
            for photo in self.shown
            if photo.part == "train" and labels[photo.label].kind in BEHIND_HANDS
        ]
        backdrops = [pixels.prescale(self._content(photo)) for photo in behind[::5]]
        for name, gestures in HANDS.items():
            hands = [gesture + tone for gesture in gestures for tone in TONES]
            paths = [_drawing(vendor.name, hand) for vendor in drawings.STARTERS for hand in hands]
            squares = _views(paths, HAND_VIEWS, backdrops)
            yield self._lessons(self._features(name, hands, squares), name)

    def nothing(self) -> np.ndarray:
        """Features of squares that show no thing, all kinds in turn."""
        return self._features(
            extras.NOTHING, [], lambda: islice(views.nothing(_random("")), NOTHING_VIEWS)
        )

    def nothing_lessons(self, nothing_NF: np.ndarray) -> Lessons:
        """These features as lessons."""
        return self._lessons(nothing_NF, extras.NOTHING)

    def _lessons(self, features_NF: np.ndarray, name: str) -> Lessons:
        return Lessons(
            features_NF, np.full(len(features_NF), self.names.index(name) if name else -1)
        )

    def _content(self, photo: Photo) -> bytes:
        path = photos.found(photo, self._folders)
        assert path is not None
        return path.read_bytes()

    def _features(
        self, name: str, keys: list[str], squares: Callable[[], Iterable[views.Square]]
    ) -> np.ndarray:
        """The pooled features (N, F) of the squares, from the file if it is there."""
        digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
        path = KEPT / f"{name.replace(' ', '-')}-{digest}.npy"
        if not path.exists():
            print(f"looking at {name} …", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.with_suffix(".staged.npy")
            np.save(staged, np.concatenate(list(pooled(self._net, squares()))))
            staged.rename(path)
        features_NF: np.ndarray = np.load(path)
        return features_NF


def pooled(net: network.Network, squares: Iterable[views.Square]) -> Iterator[np.ndarray]:
    """The pooled features of the squares, in batches (≤ BATCH, F)."""
    remaining = iter(squares)
    while batch := list(islice(remaining, BATCH)):
        yield network.look(net, np.stack(batch))[1].mean((2, 3))


def _drawing(vendor: str, emoji: str) -> Path:
    path = drawings.find(vendor, emoji)
    if path is None:
        raise FileNotFoundError(f"{vendor} draws no {emoji}: python -m services.trainer.drawings")
    return path


def _views(
    paths: list[Path], count: int, backdrops: list[bytes] | None = None
) -> Callable[[], Iterator[views.Square]]:
    def squares() -> Iterator[views.Square]:
        for path in paths:
            key = f"{path.parent.name}/{path.name}"
            yield from views.drawing(path, count, _random(key), backdrops)

    return squares


def _random(name: str) -> views.Random:
    """A generator of its own for whatever has a name."""
    return np.random.default_rng([SEED, *hashlib.sha256(name.encode()).digest()])
