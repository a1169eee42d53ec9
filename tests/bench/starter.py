"""How good the starter is, on photographs that nothing in it learned from.

    python -m tests.bench.starter data/photos [MORE]

builds the starter in a temporary folder, or takes `--model`. It prints for each kind of photograph
how often an emoji that a person would accept (`labels.tsv`) comes first, or among the first five,
and the same for ImageNet's classes alone; then how it treats people, and pictures of nothing. The
last line is `RESULT` with these figures as JSON.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from services.shared import model, network, photographs, starter, synsets
from services.shared.model import Model
from services.trainer import lessons, photos, views

# N pictures, F features, C classes, K outputs

KINDS = ("clothes", "groceries", "people", "scene", "object")
UNEASY = frozenset("🐵🐒🙈🙉🙊🐷🐽🐖🐗💩👹👺👽👾💀🐶🐱🐭🐹🐰🐻🐼🐨🐯🐮🐸🐺🐔🐧🐴🐲🐦🐤🐥🐣")
"""Not for a face or a hand among the first three above `UNEASY_ABOVE`."""
UNEASY_ABOVE = 0.05
TEXTURES = {"coins", "hubble_deep_field", "grass", "brick", "gravel", "page", "retina"}
"""The photographs of `photographs.py` that show no thing."""
NONSENSE_SEED, NONSENSE_COUNT = 1, 160

Head = Callable[[np.ndarray], np.ndarray]


class Judged(NamedTuple):
    """Photographs of one kind that show what an emoji means."""

    features_NF: np.ndarray
    accepted: list[tuple[str, ...]]


class Answers(NamedTuple):
    """What a head says of pictures: the emoji in order, and their probabilities."""

    emoji: list[list[str]]
    probabilities_NK: np.ndarray


def main() -> None:
    """Prints the table and the RESULT line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.starter")
    parser.add_argument("folders", type=Path, nargs="+", help="where photographs lie")
    parser.add_argument("--model", type=Path, help="the folder of a starter; built if not given")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = (
            model.load(flags.model) if flags.model else starter.build(Path(folder) / starter.NAME)
        )
        result = evaluate(chosen, flags.folders)
    print("RESULT", json.dumps(result))


def evaluate(chosen: Model, folders: list[Path]) -> dict[str, float]:
    """The figures by name; prints those of the photographs as a table."""
    net = network.read(chosen)
    table = Table("kind", "photographs", "first", "in five", "ImageNet alone", "in five")
    result: dict[str, float] = {}
    everything = Judged(np.empty((0, chosen.architecture.features), np.float32), [])
    for kind in KINDS:
        judged = held_out(net, kind, folders)
        everything = Judged(
            np.concatenate([everything.features_NF, judged.features_NF]),
            everything.accepted + judged.accepted,
        )
        shares = [
            share
            for extras in (True, False)
            for share in found(answers(chosen, judged.features_NF, extras=extras), judged.accepted)
        ]
        table.add_row(kind, str(len(judged.accepted)), *(f"{share:.1%}" for share in shares))
        for name, share in zip(("first", "five", "plain_first", "plain_five"), shares, strict=True):
            result[f"{kind}_{name}"] = share
        result[f"{kind}_n"] = len(judged.accepted)
        if kind == "people":
            result["people_uneasy"] = uneasy(answers(chosen, judged.features_NF))
    Console().print(table)
    return (
        result
        | by_emoji(answers(chosen, everything.features_NF), everything.accepted)
        | (silence(chosen, net))
    )


def held_out(net: network.Network, kind: str, folders: list[Path]) -> Judged:
    """The photographs of one kind that are only for judging."""
    labels = photos.labels()
    pairs = [
        (path, labels[photo.label].emoji)
        for photo in photos.photos()
        if photo.part == "test"
        and labels[photo.label].kind == kind
        and labels[photo.label].emoji
        and (path := photos.found(photo, folders))
    ]
    squares = (model.view(starter.PREPROCESSING, path.read_bytes()) for path, _ in pairs)
    return Judged(seen(net, squares), [accepted for _, accepted in pairs])


def seen(net: network.Network, squares: Iterable[views.Square]) -> np.ndarray:
    """The pooled features (N, F)."""
    return np.concatenate(list(lessons.pooled(net, squares)))


def answers(chosen: Model, features_NF: np.ndarray, *, extras: bool = True) -> Answers:
    """What the model's head says, with its extra classes or without."""
    weights = chosen.weights()
    last = None if extras else synsets.CLASSES
    logits_NC = features_NF @ weights[starter.WEIGHT][:last].T + weights[starter.BIAS][:last]
    belief_NC = np.exp(logits_NC - np.logaddexp.reduce(logits_NC, axis=1, keepdims=True))
    belief_NK = belief_NC @ weights[starter.TABLE][:last]
    emoji_NK = belief_NK[:, : len(chosen.vocabulary)]
    order_NK = np.argsort(-emoji_NK, axis=1)[:, :5]
    emoji = [[chosen.vocabulary.emoji[place] for place in order_K] for order_K in order_NK]
    return Answers(emoji, np.take_along_axis(emoji_NK, order_NK, 1))


def found(said: Answers, accepted: list[tuple[str, ...]]) -> tuple[float, float]:
    """How often an accepted emoji is the first, and among the first five."""
    pairs = list(zip(said.emoji, accepted, strict=True))
    first = np.mean([emoji[0] in right for emoji, right in pairs])
    return float(first), float(
        np.mean([not set(emoji).isdisjoint(right) for emoji, right in pairs])
    )


def uneasy(said: Answers) -> int:
    """How many people are told something that nobody wants to be told."""
    return sum(
        any(e in UNEASY and p > UNEASY_ABOVE for e, p in zip(emoji[:3], ps[:3], strict=True))
        for emoji, ps in zip(said.emoji, said.probabilities_NK, strict=True)
    )


def by_emoji(said: Answers, accepted: list[tuple[str, ...]]) -> dict[str, float]:
    """Means over emoji, how many are ever right, and how sure the first one is of itself."""
    firsts, fives, correct, gaps = defaultdict(list), defaultdict(list), set(), []
    for emoji, right, ps in zip(said.emoji, accepted, said.probabilities_NK, strict=True):
        firsts[right[0]].append(emoji[0] in right)
        fives[right[0]].append(not set(emoji).isdisjoint(right))
        correct |= {emoji[0]} & set(right)
        gaps.append((ps[0], emoji[0] in right))
    return {
        "macro_first": float(np.mean([np.mean(hits) for hits in firsts.values()])),
        "macro_five": float(np.mean([np.mean(hits) for hits in fives.values()])),
        "emoji_judged": len(firsts),
        "emoji_right_first": len(correct),
        "sure_when_right": float(np.mean([p for p, hit in gaps if hit])),
        "sure_when_wrong": float(np.mean([p for p, hit in gaps if not hit])),
    }


def silence(chosen: Model, net: network.Network) -> dict[str, float]:
    """What the model believes of pictures without a thing: photographed textures, and noise."""
    textures = [path for path in photographs.installed() if path.stem in TEXTURES]
    noise = islice(views.nothing(np.random.default_rng(NONSENSE_SEED)), NONSENSE_COUNT)
    shown = {
        "texture": (model.view(starter.PREPROCESSING, path.read_bytes()) for path in textures),
        "noise": noise,
    }
    return {
        f"{name}_first_probability": float(
            answers(chosen, seen(net, squares)).probabilities_NK[:, 0].mean()
        )
        for name, squares in shown.items()
    }


if __name__ == "__main__":
    main()
