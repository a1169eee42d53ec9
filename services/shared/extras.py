"""Classes that ImageNet lacks, learned from real photographs and from drawings of emoji.

`extras.tsv` says what each means in emoji, reviewed as the table of `synsets.py` was; a class whose
name is an emoji shows drawings of it, and means it. `extras.safetensors` holds for each class its
row of the classifier, made by `python -m services.trainer.starter_head`.
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
COLUMNS = ("class", "emoji", "weight", "how")
NOTHING = "nothing"
"""The class of pictures that show no thing: noise, blanks, textures, printed pages."""

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
    """Of the extra classes, in the order of their rows."""
    weight_EF: np.ndarray
    bias_E: np.ndarray
    temperature: float
    """Divides the logits of ImageNet's own classes, beside which these were learned."""


def load(path: Path = PATH) -> list[Row]:
    """Reads the table: a class's rows stand together, the best emoji first.

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
    names = set()
    for name, group in groupby(rows, key=attrgetter("name")):
        broken = synsets.broken_rule([row[1:] for row in group], known)
        if name in names:
            broken = "has its rows in one place"
        if broken:
            raise ValueError(f"{name} breaks the rule that a class {broken}")
        names.add(name)
    return rows


def read(path: Path = ROWS) -> Rows:
    """The learned rows."""
    with safetensors.safe_open(path, framework="numpy") as file:
        names = json.loads(file.metadata()["names"])
        weight, bias, temperature = map(file.get_tensor, ("weight", "bias", "temperature"))
    return Rows(names, weight.astype(np.float32), bias, float(temperature[0]))


def write(rows: Rows, path: Path = ROWS, **metadata: str) -> None:
    """Keeps the rows, the weights as half floats; `metadata` says where they came from."""
    arrays: dict[str, np.ndarray] = {
        "weight": rows.weight_EF.astype(np.float16),
        "bias": rows.bias_E.astype(np.float32),
        "temperature": np.array([rows.temperature], np.float32),
    }
    metadata = {**metadata, "names": json.dumps(rows.names)}
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
