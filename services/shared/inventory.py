"""The 845 emoji that the article started from, derived: `python -m services.shared.inventory`.

"The most common emoji set contains 845 characters in Unicode 6.1": it was the keyboard of its day.
The rule below finds exactly those, the same set as the 845 values of PyPI's `emoji` 0.1.0 of 2014.
`inventory.tsv` beside this file is the frozen result; `vocabulary.py` reads it.

Licences of `inventory.tsv`: names, keywords and groups are Unicode's (CLDR, emoji-test.txt;
Unicode-3.0, © Unicode, Inc.), as npm's `emojibase-data` arranges them (MIT, © Miles Johnson).
"""

import csv
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import emoji

PATH = Path(__file__).with_name("inventory.tsv")
COLUMNS = ("emoji", "code points", "name", "group", "subgroup", "keywords")

_ANNOTATIONS = "emojibase-data@17.0.0"
_VS16 = "\ufe0f"  # asks for the coloured form of a character that is text by default

# Of what Emoji 1.0 shows in colour unasked, Unicode 6.1 had all but these and the skin tones. Crab
# and hugging face, which the article says its net does not know, are among them.
_AFTER_UNICODE_6_1 = frozenset(
    "🌭🌮🌯🍾🍿🏅🏏🏐🏑🏒🏓🏴🏸🏹🏺📸📿🕋🕌🕍🕎🖕🖖"
    "🙁🙂🙃🙄🛌🛐🛫🛬🤐🤑🤒🤓🤔🤕🤖🤗🤘🦀🦁🦂🦃🦄🧀"
    "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
)


def derive() -> list[str]:
    """The emoji by code points: of Emoji 0.6 all, of 0.7 and 1.0 what 6.1 had and needs no VS16."""
    return sorted(
        text
        for text, facts in emoji.EMOJI_DATA.items()
        if facts["status"] == emoji.STATUS["fully_qualified"]
        and (
            facts["E"] <= 0.6
            or (facts["E"] <= 1.0 and _VS16 not in text and _AFTER_UNICODE_6_1.isdisjoint(text))
        )
    )


def _annotations() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """Every emoji's English facts by its text without VS16, and the keys of groups by number."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--loglevel=error", _ANNOTATIONS], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            facts, groups = (
                json.loads(archive.extractfile(f"package/{name}").read())  # type: ignore[union-attr]
                for name in ("en/data.json", "meta/groups.json")
            )
    return {fact["emoji"].replace(_VS16, ""): fact for fact in facts}, groups


def main() -> None:
    """Writes `inventory.tsv`; needs npm, for what PyPI does not have."""
    facts, groups = _annotations()
    with PATH.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(COLUMNS)
        for text in derive():
            fact = facts[text.replace(_VS16, "")]
            table.writerow(
                (
                    text,
                    " ".join(f"{ord(character):04X}" for character in text),
                    fact["label"],
                    groups["groups"][str(fact["group"])],
                    groups["subgroups"][str(fact["subgroup"])],
                    "|".join(fact["tags"]),
                )
            )


if __name__ == "__main__":
    main()
