"""Which emoji a person would type for a picture of each ImageNet-1k class; the starter's table.

`synsets.tsv` was judged class by class, with every definition at hand, and is keyed by WordNet's
number, because words mislead: `crane` is a bird and a machine, a `nail` is of iron. The weights of
a class are shares of its pictures; what they leave of 1 is "none of these".
No garment, mask or hair ever means an ape, a pig or a monster, since ImageNet has no class for
people and their portraits land on what they wear.

`python -m services.shared.synsets CANDIDATES.tsv` checks the table and lists what words and
WordNet's hypernyms propose for each class, beside what was decided. Needs timm for the names and
Debian's `wordnet-base` for the hypernyms; reading the table needs neither.
"""

import argparse
import csv
import importlib.util
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from services.shared.vocabulary import inventory

PATH = Path(__file__).with_name("synsets.tsv")
COLUMNS = ("class", "synset", "name", "emoji", "weight", "how")
CLASSES = 1000
HOWS = ("name", "near", "kind", "context", "none")
"""The emoji is the thing; one much like it; its kind; where it is met. Or no emoji is apt."""

_WORDNET = Path("/usr/share/wordnet/data.noun")  # WordNet 3.0, which numbers ImageNet's classes


class Row(NamedTuple):
    """One emoji for one class; a class without any has one row of weight 0 and no emoji."""

    class_index: int
    """Place in ImageNet's order, that of every pre-trained network's outputs."""
    synset: str
    """`n` and the offset of the noun in WordNet 3.0."""
    name: str
    emoji: str
    """Fully-qualified, of the inventory."""
    weight: float
    how: str


def load(path: Path = PATH) -> list[Row]:
    """Reads the table: by class index, and in a class the best emoji first.

    Raises:
        ValueError: a line or class breaks a rule; the message says which, and what is right.

    >>> [(row.emoji, row.weight) for row in load() if row.name == "Granny Smith"]
    [('🍏', 0.85), ('🍎', 0.15)]
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file, delimiter="\t")
    if tuple(header) != COLUMNS:
        raise ValueError(f"the columns are {', '.join(COLUMNS)}, not {', '.join(header)}")
    rows = [_row(number, line) for number, line in enumerate(lines, start=2)]
    classes = [list(group) for _, group in groupby(rows, key=attrgetter("class_index"))]
    if [group[0].class_index for group in classes] != list(range(CLASSES)):
        raise ValueError(f"the classes are 0 to {CLASSES - 1} in order, each in one place")
    if len({group[0].synset for group in classes}) != CLASSES:
        raise ValueError("two classes have the same synset")
    known = {emoji.text for emoji in inventory()}
    for group in classes:
        _check(group, known)
    return rows


def _row(number: int, line: list[str]) -> Row:
    try:
        class_index, synset, name, emoji, weight, how = line
        return Row(int(class_index), synset, name, emoji, float(weight), how)
    except ValueError:
        raise ValueError(f"line {number} is no row of {', '.join(COLUMNS)}: {line}") from None


def _check(group: list[Row], known: set[str]) -> None:
    """The rules of the rows of one class; `known` are the emoji of the inventory."""
    first = group[0]
    rules = {
        "has one synset and one name": len({row[1:3] for row in group}) == 1,
        "has an `n` and eight digits as synset": first.synset[:1] == "n"
        and len(first.synset) == 9
        and first.synset[1:].isdecimal(),
    }
    broken = next((rule for rule, holds in rules.items() if not holds), None)
    broken = broken or broken_rule([row[3:] for row in group], known)
    if broken:
        raise ValueError(
            f"class {first.class_index} ({first.name}) breaks the rule that a class {broken}"
        )


def broken_rule(meanings: list[tuple[str, float, str]], known: set[str]) -> str | None:
    """Which rule a class breaks whose emoji, weights and ways of finding are `meanings`, if any."""
    emoji = [meaning[0] for meaning in meanings]
    weights = [meaning[1] for meaning in meanings]
    hows = [meaning[2] for meaning in meanings]
    unmapped = meanings == [("", 0.0, "none")]
    rules = {
        "has emoji of the inventory, fully-qualified": unmapped or known.issuperset(emoji),
        "has each emoji once": len(set(emoji)) == len(emoji),
        "has weights over 0 and, in sum, at most 1": unmapped
        or (all(weight > 0 for weight in weights) and sum(weights) <= 1 + 1e-9),
        "has the best emoji first": weights == sorted(weights, reverse=True),
        f"says how: {', '.join(HOWS[:-1])}": unmapped or set(hows) <= set(HOWS[:-1]),
    }
    return next((rule for rule, holds in rules.items() if not holds), None)


class Synset(NamedTuple):
    """What timm's wheel tells about one class."""

    synset: str
    lemmas: list[str]
    definition: str


def imagenet() -> list[Synset]:
    """The classes in ImageNet's order. Needs timm installed, not imported (that loads torch)."""
    timm = importlib.util.find_spec("timm")
    if timm is None or timm.origin is None:
        raise ModuleNotFoundError("timm has the names of ImageNet's classes: pip install timm")
    folder = Path(timm.origin).parent / "data" / "_info"

    def facts(name: str) -> dict[str, str]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split("\t", maxsplit=1) for line in lines)

    lemmas = facts("imagenet_synset_to_lemma.txt")
    definitions = facts("imagenet_synset_to_definition.txt")
    return [
        Synset(synset, lemmas[synset].split(", "), definitions[synset])
        for synset in (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    ]


def _nouns(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """The words and the hypernyms of every noun of WordNet, by synset (format: wndb(5WN))."""
    nouns = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields = line.split(" | ")[0].split()
        words_end = 4 + 2 * int(fields[3], base=16)
        words = [word.replace("_", " ") for word in fields[4:words_end:2]]
        pointers = fields[words_end + 1 :]
        hypernyms = [
            f"n{target}"
            for kind, target in zip(pointers[::4], pointers[1::4], strict=False)
            if kind in ("@", "@i")
        ]
        nouns[f"n{fields[0]}"] = words, hypernyms
    return nouns


def _by_word() -> dict[str, dict[str, str]]:
    """Which emoji each word finds, by name before by keyword."""
    found: dict[str, dict[str, str]] = {}
    for emoji in inventory():
        found.setdefault(emoji.name.removesuffix(" face").lower(), {})[emoji.text] = "name"
    for emoji in inventory():
        for word in emoji.keywords:
            found.setdefault(word.lower(), {}).setdefault(emoji.text, "keyword")
    return found


def candidates(wordnet: Path = _WORDNET) -> Iterator[tuple[int, Synset, str, str]]:
    """Class, its facts, an emoji that words propose, and how that was found; many are wrong."""
    nouns, by_word = _nouns(wordnet), _by_word()
    for class_index, facts in enumerate(imagenet()):
        found: dict[str, str] = {}
        level, depth = [facts.synset], 0
        while level:
            for word in (word.lower() for synset in level for word in nouns[synset][0]):
                for emoji, how in by_word.get(word, {}).items():
                    if depth == 0 or how == "name":
                        found.setdefault(emoji, how if depth == 0 else f"hypernym {depth}: {word}")
            level = [above for synset in level for above in nouns[synset][1]]
            depth += 1
        for emoji, how in found.items() or [("", "")]:
            yield class_index, facts, emoji, how


def main() -> None:
    """Checks the reviewed table, then writes the candidates for the next review."""
    parser = argparse.ArgumentParser(prog="python -m services.shared.synsets")
    parser.add_argument("candidates", type=Path, metavar="CANDIDATES.tsv")
    parser.add_argument("--wordnet", type=Path, default=_WORDNET, help="data.noun of WordNet 3.0")
    flags = parser.parse_args()
    rows = load()
    decided = [" ".join(r.emoji for r in rows if r.class_index == i) for i in range(CLASSES)]
    with flags.candidates.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("class", "synset", "names", "definition", "emoji", "found", "decided"))
        for class_index, facts, emoji, how in candidates(flags.wordnet):
            facts_of = (facts.synset, ", ".join(facts.lemmas), facts.definition)
            table.writerow((class_index, *facts_of, emoji, how, decided[class_index]))
    mapped = {row.class_index for row in rows if row.emoji}
    distinct = {row.emoji for row in rows if row.emoji}
    print(f"{len(mapped)} of {CLASSES} classes have emoji, {len(distinct)} different ones")


if __name__ == "__main__":
    main()
