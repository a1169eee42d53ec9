"""Ranks the pictures of a folder for one emoji: the other way round from a suggestion.

Pictures are decoded in processes that may die, while the model looks at those before them.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry

from services.shared import folder, registry, vocabulary
from services.shared.cores import cores
from services.shared.decoders import Decoders
from services.shared.errors import EmojinetError, StorageFailed, UnknownEmoji
from services.shared.model import Model
from services.shared.queue import Priority, QueueMetrics
from services.shared.vocabulary import Emoji, Vocabulary
from services.trainer import lens

BATCH = 32
PATIENCE_SECONDS = 300.0  # for a decoder: everything waits in its line that we put there
NEAREST = 5


class Found(NamedTuple):
    """A picture, and how likely it is to be posted with the emoji."""

    probability: float
    path: str


Refused = Callable[[str, EmojinetError], None]


def chosen(root: Path, named: str, say: Callable[[str], object]) -> Model:
    """The model of a folder, or of the registry: by name, by name and version, or the live one.

    Where there is none at all, the starter is built.

    Raises:
        UnknownModel: the registry has none of that name.
        BadModel: it is not usable.
    """
    if not named:
        return registry.load(root, _live(root, say))
    return registry.named(root, named)


def _live(root: Path, say: Callable[[str], object]) -> registry.Live:
    """The live model, or the starter, built in another process: beside torch OpenVINO crashes."""
    if (which := registry.live(root)) is not None:
        return which
    say("building the starter, once: about 15 seconds …")
    command = [sys.executable, "-m", "services.shared.starter", str(root)]
    failed = subprocess.run(command, check=False).returncode
    if failed or (which := registry.live(root)) is None:
        raise StorageFailed(f"The starter could not be built into {root}.", path=str(root))
    return which


def output(model: Model, asked: str) -> int:
    """The place of an emoji in the model's vocabulary, asked for by itself or by its name.

    Raises:
        UnknownEmoji: the model does not know it; the message names the nearest that it knows.
    """
    known = model.vocabulary
    if (index := known.index(asked.strip())) is not None:
        return index
    names = {vocabulary.name(emoji): place for place, emoji in enumerate(known.emoji)}
    name = asked.strip(": ").replace("_", " ").casefold()
    if (index := names.get(name)) is not None:
        return index
    near = ", ".join(f"{e} {vocabulary.name(e)}" for e in nearest(known, asked.strip(), name))
    raise UnknownEmoji(
        f"The model {model.name} does not know {asked[:40]!r}. "
        + (f"It knows {near}." if near else "`emojinet suggest --help` knows no more, either."),
        emoji=asked[:40],
    )


def nearest(known: Vocabulary, emoji: str, name: str) -> list[str]:
    """Emoji of the vocabulary that are near to one that is not, in meaning or in spelling.

    >>> nearest(Vocabulary(("💊", "🐕", "🍕"), (1, 1, 1)), "💉", "💉")
    ['💊']
    >>> nearest(Vocabulary(("💊", "🐕", "🍕"), (1, 1, 1)), "pizzza", "pizzza")
    ['🍕']
    """
    facts = {each.text: each for each in vocabulary.inventory()}
    wanted = facts.get(vocabulary.canonical(emoji) or "")
    words = set(wanted.keywords) if wanted else set(name.split())
    scores = {each: _kinship(facts[each], wanted, words) for each in known.emoji if each in facts}
    kin = sorted((e for e, score in scores.items() if score), key=lambda e: -scores[e])
    names = {vocabulary.name(each): each for each in known.emoji}
    spelt = [names[close] for close in get_close_matches(name, names, NEAREST)]
    return list(dict.fromkeys([*spelt, *kin]))[:NEAREST]


def _kinship(one: Emoji, wanted: Emoji | None, words: set[str]) -> int:
    shared = len(words & {*one.keywords, *one.name.split()})
    return shared + (2 if wanted and one.subgroup == wanted.subgroup else 0)


async def ranked(
    model: Model,
    place: int,
    paths: Sequence[str],
    refused: Refused,
    advanced: Callable[[int], None] = lambda count: None,
) -> list[Found]:
    """All pictures that can be read, the likeliest first; what is wrong with others is told.

    Args:
        place: of the emoji in the model's vocabulary.
        refused: is told of every file that is passed over, and why.
        advanced: is told of so many files more that are done with.
    """
    look = await asyncio.to_thread(lens.opened, model)
    edge = model.preprocessing.size_px
    found: list[Found] = []
    async with AsyncExitStack() as stack:
        views = await Views(model, refused).start()
        stack.push_async_callback(views.close)
        async for names, rgbs in _ahead(views, paths):
            if rgbs:
                x_BHWC = np.frombuffer(b"".join(rgbs), np.uint8).reshape(-1, edge, edge, 3)
                logits, _ = await asyncio.to_thread(look, x_BHWC)
                shares = model.probabilities(logits)[:, place].tolist()
                found += map(Found, shares, names)
            advanced(BATCH)
    return sorted(found, key=lambda each: (-each.probability, each.path))


async def _ahead(
    views: "Views", paths: Sequence[str]
) -> AsyncIterator[tuple[list[str], list[bytes]]]:
    """Batch after batch; while one is looked at, the next is decoded."""
    decoding: asyncio.Task[tuple[list[str], list[bytes]]] | None = None
    try:
        for batch in batches(paths):
            coming = asyncio.create_task(views.of(batch))
            if decoding is not None:
                yield await decoding
            decoding = coming
        if decoding is not None:
            yield await decoding
    finally:
        if decoding is not None:
            decoding.cancel()


def batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """The paths in their order, so many at a time."""
    return (paths[start : start + BATCH] for start in range(0, len(paths), BATCH))


class Views:
    """What the model is to see of files, decoded in processes of their own."""

    def __init__(self, model: Model, refused: Refused) -> None:
        self._model, self._refused = model, refused
        self._decoders = Decoders(cores())
        self._room = asyncio.Semaphore(2 * cores())  # files that are in memory at a time

    async def start(self) -> "Views":
        """Starts the processes."""
        await self._decoders.start()
        self._decoders.open(QueueMetrics(CollectorRegistry()))
        return self

    async def close(self) -> None:
        """Ends them."""
        await self._decoders.close()

    async def of(self, paths: Sequence[str]) -> tuple[list[str], list[bytes]]:
        """The files that are pictures, and their pixels."""
        seen = await asyncio.gather(*map(self._view, paths))
        sound = [(path, rgb) for path, rgb in zip(paths, seen, strict=True) if rgb is not None]
        return [path for path, _ in sound], [rgb for _, rgb in sound]

    async def _view(self, path: str) -> bytes | None:
        try:
            async with self._room:
                content = await asyncio.to_thread(folder.content, path)
                view = await self._decoders.view(
                    content,
                    cost_seconds=self._decoders.check(content),
                    preprocessing=self._model.preprocessing,
                    priority=Priority.BULK,
                    deadline=time.monotonic() + PATIENCE_SECONDS,
                )
                return view.rgb
        except EmojinetError as error:
            self._refused(path, error)
            return None
