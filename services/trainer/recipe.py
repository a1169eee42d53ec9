"""A recipe: everything that decides what a training run learns, and nothing else.

The recipes that we ship are the files in `recipes/`, each with its command, its duration and its
result. A run keeps its own, with what was changed, in `recipe.json`.
"""

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.shared.errors import MalformedRequest

RECIPES = Path(__file__).with_name("recipes")


class Mode(StrEnum):
    """How much of the network learns."""

    FULL = "full"
    PARTIAL = "partial"
    HEAD = "head"


class Augment(StrEnum):
    """How differently a picture looks each time it is learned from."""

    NONE = "none"
    CROP = "crop"
    """Another part, perhaps mirrored."""
    STRONG = "strong"
    """That, in other light, tilted, partly hidden."""


class Precision(StrEnum):
    """Arithmetic of training; what is published computes in float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What to learn, and how. Raises MalformedRequest for a value that cannot be meant."""

    name: str
    steps: int
    """Optimisation steps, of `batch` images each."""
    learning_rate: float
    """Of the head; the backbone's last part has `layer_decay` times it, and so on to the input."""
    dataset: str = ""
    """A data set's name, or a folder."""
    remark: str = ""
    """What a reader of the model's card should know, in a sentence."""
    backbone: str = "tf_efficientnet_lite0"
    """Any name that timm knows whose last layer is a map."""
    weights: str = "imagenet"
    """Where the backbone begins: `imagenet` (of Lite0 alone, whose package we have), `random`, or
    the folder of a model to go on from."""
    size_px: int = 224
    mode: Mode = Mode.FULL
    frozen: float = 0.7
    """`partial`: the share of the backbone, from the input on, that stays as it is."""
    views: int = 0
    """What the frozen part says of so many views of each picture is computed once, and kept; 0
    computes it at every step. `head` keeps at least one."""
    adapt_norms: bool = False
    """Whether batch norms follow the data. Where they do, steps depend on `at_once` too."""
    batch: int = 256
    at_once: int = 32
    """Images in one forward pass: gradients of several passes make a step."""
    layer_decay: float = 0.8
    weight_decay: float = 1e-4
    warmup: float = 0.05
    """Share of the steps in which the rate rises."""
    label_smoothing: float = 0.1
    ema: float = 0.99
    """Decay of the weights' moving average, which is what is judged and published; 0 is none."""
    logit_adjustment: float = 0.0
    """How much of the emoji's log frequency the loss takes off (Menon et al., arXiv:2007.07314)."""
    balance: float = 0.0
    """0: every picture as often; 1: every emoji as often."""
    warm_start: bool = True
    """Whether the head begins with the starter's table of what ImageNet's classes mean."""
    prototypes: int = 0
    """How many pictures of each emoji the head begins as the mean of, instead; 0 is none."""
    augment: Augment = Augment.CROP
    precision: Precision = Precision.AUTO
    checkpoint_steps: int = 100
    evaluate_steps: int = 0
    """Steps between judgements on the validation split; 0 judges at the end alone."""
    seed: int = 20151109

    def __post_init__(self) -> None:
        whole = {
            "steps": 1,
            "size_px": 32,
            "views": 0,
            "prototypes": 0,
            "batch": 1,
            "at_once": 1,
            "checkpoint_steps": 1,
            "evaluate_steps": 0,
            "seed": 0,
        }
        for field, least in whole.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
                raise _bad(field, value, f"a whole number of at least {least}")
        shares = ("frozen", "layer_decay", "warmup", "label_smoothing", "ema", "balance")
        for field in (*shares, "learning_rate", "weight_decay", "logit_adjustment"):
            value = getattr(self, field)
            most = 1.0 if field in shares else 100.0
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise _bad(field, value, "a number")
            if not (math.isfinite(value) and 0 <= value <= most):
                raise _bad(field, value, f"between 0 and {most:g}")
        for field in ("adapt_norms", "warm_start"):
            if not isinstance(getattr(self, field), bool):
                raise _bad(field, getattr(self, field), "true or false")
        for field in ("name", "dataset", "remark", "backbone", "weights"):
            if not isinstance(getattr(self, field), str) or "\0" in getattr(self, field):
                raise _bad(field, getattr(self, field), "text")
        for field, kind in (("mode", Mode), ("augment", Augment), ("precision", Precision)):
            value = getattr(self, field)
            if value not in list(kind):
                raise _bad(field, value, f"one of {', '.join(kind)}")
            object.__setattr__(self, field, kind(value))  # JSON has text only
        if self.size_px > 1024:
            raise _bad("size_px", self.size_px, "at most 1024")
        if self.learning_rate == 0:
            raise _bad("learning_rate", self.learning_rate, "more than 0")


def names() -> list[str]:
    """The recipes that we ship."""
    return sorted(path.stem for path in RECIPES.glob("*.py") if path.stem != "__init__")


def read(name: str, settings: Mapping[str, str] | None = None) -> Recipe:
    """A recipe of ours with some fields changed.

    Args:
        name: one of `names()`.
        settings: fields with their values as JSON; what is no JSON is text.

    Raises:
        MalformedRequest: there is no such recipe or field, or a value cannot be meant.
    """
    if name not in names():
        raise MalformedRequest(
            f"There is no recipe {name!r:.80}{_closest(name, names())}; there are "
            f"{', '.join(names())}.",
            field="recipe",
        )
    recipe: Recipe = importlib.import_module(f"services.trainer.recipes.{name}").RECIPE
    known = [field.name for field in fields(Recipe) if field.name != "name"]
    for field in settings or {}:
        if field not in known:
            raise MalformedRequest(
                f"A recipe has no field {field!r:.80}{_closest(field, known)}; it has "
                f"{', '.join(known)}.",
                field=f"settings.{field:.80}",
            )
    return replace(recipe, **{field: _value(text) for field, text in (settings or {}).items()})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _closest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _bad(field: str, value: object, right: str) -> MalformedRequest:
    return MalformedRequest(
        f"The recipe's {field} is {value!r:.80}; it should be {right}.", field=f"settings.{field}"
    )
