import csv
from collections import Counter

import emoji
import regex

from services.shared.inventory import COLUMNS, PATH, derive
from services.shared.vocabulary import inventory

TEXTS = [entry.text for entry in inventory()]


def test_the_frozen_file_still_equals_the_rule() -> None:
    assert derive() == TEXTS


def test_there_are_845_emoji_each_with_its_own_name() -> None:
    assert len(set(TEXTS)) == 845
    assert len({entry.name for entry in inventory()}) == 845


def test_the_emoji_are_composed_as_measured() -> None:
    versions = Counter(emoji.EMOJI_DATA[text]["E"] for text in TEXTS)
    bases = [text for text in TEXTS if regex.match(r"\p{Emoji_Modifier_Base}", text)]

    assert versions == {0.6: 719, 0.7: 24, 1.0: 102}
    assert len(bases) == 65
    assert sum("\ufe0f" in text for text in TEXTS) == 74
    assert sum("\u20e3" in text for text in TEXTS) == 11
    assert sum("\u200d" in text for text in TEXTS) == 0
    assert "".join(text for text in TEXTS if "🇦" <= text <= "🇿\U0010ffff") == "🇨🇳🇩🇪🇪🇸🇫🇷🇬🇧🇮🇹🇯🇵🇰🇷🇷🇺🇺🇸"


def test_it_has_the_emoji_of_the_article() -> None:
    assert {"❤️", "📭", "🈺", "😂", "✊", "💉", "👐", "🍕", "🐕", "💯", "💩", "🆒"} <= set(TEXTS)


def test_it_has_no_newer_emoji_and_no_other_form() -> None:
    assert {"🦀", "🤗", "🏽", "👍🏽", "👩‍🚀", "❤", "🇨🇦", "*️⃣"}.isdisjoint(TEXTS)


def test_every_row_is_whole() -> None:
    with PATH.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")

    assert tuple(header) == COLUMNS
    for text, code_points, *facts in rows:
        assert "".join(chr(int(point, 16)) for point in code_points.split()) == text
        assert all(facts)


def test_facts_are_in_their_fields() -> None:
    (heart,) = (entry for entry in inventory() if entry.text == "❤️")

    assert (heart.name, heart.group, heart.subgroup) == ("red heart", "smileys-emotion", "heart")
    assert heart.keywords == ("emotion", "heart", "love", "red")
