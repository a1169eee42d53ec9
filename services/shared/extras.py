"""Classes that ImageNet lacks, learned from real photographs; the rest of the starter's head.

`extras.tsv` says what each means in emoji, reviewed as the table of `synsets.py` was, and
`extras.safetensors` holds for each its row of the classifier, beside the temperature of all rows.
`python -m services.trainer.starter_head` makes the rows, and says from which photographs.
"""

import csv
import json
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from services.shared import synsets
from services.shared.vocabulary import inventory

PATH = Path(__file__).with_name("extras.tsv")
ROWS = Path(__file__).with_name("extras.safetensors")
COLUMNS = ("name", "emoji", "weight", "how")
NOTHING = "nothing"
"""The class of pictures that show no thing at all: noise, blanks, textures, printed pages."""

# E extra classes, F features


class Row(NamedTuple):
    """One emoji for one extra class, as `synsets.Row`."""

    name: str
    emoji: str
    weight: float
    how: str


class Rows(NamedTuple):
    """What was learned."""

    names: list[str]
    """The extra classes, in the order of their rows."""
    weight_EF: np.ndarray
    bias_E: np.ndarray
    temperature: float
    """Divides the logits of ImageNet's classes, which the extra classes were learned beside."""


def load(path: Path = PATH) -> list[Row]:
    """Reads the table: in a class the best emoji first; a class without any has one row.

    Raises:
        ValueError: a line or class breaks a rule; the message says which, and what is right.

    >>> [(row.emoji, row.weight) for row in load() if row.name == "Banana"]
    [('🍌', 1.0)]
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file, delimiter="\t")
    if tuple(header) != COLUMNS:
        raise ValueError(f"the columns are {', '.join(COLUMNS)}, not {', '.join(header)}")
    rows = [Row(name, emoji, float(weight), how) for name, emoji, weight, how in lines]
    known = {emoji.text for emoji in inventory()}
    names = []
    for name, group in groupby(rows, key=attrgetter("name")):
        names.append(name)
        _check(name, list(group), known)
    if len(set(names)) != len(names):
        raise ValueError("the rows of a class stand together")
    return rows


def _check(name: str, group: list[Row], known: set[str]) -> None:
    broken = synsets.broken_rule(
        [row.emoji for row in group],
        [row.weight for row in group],
        [row.how for row in group],
        known,
    )
    if broken:
        raise ValueError(f"the class {name} breaks the rule that a class {broken}")


def read(path: Path = ROWS) -> Rows:
    """The learned rows."""
    with safetensors.safe_open(path, framework="numpy") as file:
        names = json.loads(file.metadata()["names"])
        arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    return Rows(names, arrays["weight"], arrays["bias"], float(arrays["temperature"][0]))


def write(rows: Rows, sources: list[str], path: Path = ROWS) -> None:
    """Keeps the rows as half floats, with the names of the photographs' sources."""
    arrays = {
        "weight": rows.weight_EF.astype(np.float16),
        "bias": rows.bias_E.astype(np.float32),
        "temperature": np.array([rows.temperature], np.float32),
    }
    metadata = {"names": json.dumps(rows.names), "sources": json.dumps(sources)}
    safetensors.numpy.save_file(arrays, path, metadata)
