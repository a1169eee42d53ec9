import json
import subprocess
import sys
import unicodedata

import emoji
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from services.shared import vocabulary
from services.shared.vocabulary import Vocabulary, canonical, find, hashtags, inventory, name

TEXTS = [entry.text for entry in inventory()]
INVENTORY = set(TEXTS)
QUALIFIED = [t for t, facts in emoji.EMOJI_DATA.items() if facts["status"] == 2]
ZWJ_CLUSTERS = [text for text in emoji.EMOJI_DATA if "\u200d" in text]
TONES = "🏻🏼🏽🏾🏿"
TEXT_BY_DEFAULT = [text for text in TEXTS if len(text) == 2 and text.endswith("\ufe0f")]

# What an emoji may be written as where it is meant as an emoji, with what it is.
FORMS = [
    *((text, text) for text in TEXTS),
    *((text + "\ufe0f", text) for text in TEXTS if "\ufe0f" not in text),
    *((text.replace("\ufe0f", ""), text) for text in TEXTS if "\u20e3" in text),
    *(
        (base + tone, text)
        for text in TEXTS
        for tone in TONES
        if (base := text.strip("\ufe0f")) + tone in emoji.EMOJI_DATA
    ),
]
forms = st.lists(st.sampled_from(FORMS), max_size=8)
# Anything but what an emoji of the inventory is recognised by; digits, `#` and `*` often.
recognised = "".join({char for text in TEXTS for char in text} - set("#0123456789\ufe0f"))
plain = st.text(
    st.sampled_from("#*0123456789 \ufe0f")
    | st.characters(exclude_categories=["Cs"], exclude_characters=recognised)
)
words = st.text(st.characters(categories=["Ll", "Lu", "Nd"], max_codepoint=0x24F), min_size=1)
vocabularies = st.lists(st.sampled_from(QUALIFIED), min_size=1, max_size=20, unique=True).flatmap(
    lambda listed: st.builds(
        Vocabulary,
        st.just(tuple(listed)),
        st.tuples(*(st.integers(0, vocabulary.MAX_COUNT) for _ in listed)),
    )
)


def test_every_form_is_the_fully_qualified_emoji() -> None:
    assert [canonical(form) for form, _ in FORMS] == [text for _, text in FORMS]


def test_the_text_style_is_no_emoji() -> None:
    assert {canonical(text.strip("\ufe0f") + "\ufe0e") for text in TEXTS} == {None}


@pytest.mark.parametrize(
    "other", ["1", "#", "*", "", "🏽", "\ufe0f", "🇩", "🇨🇦", "🦀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🚬⃠", "a"]
)
def test_what_only_resembles_an_emoji_of_the_inventory_is_none(other: str) -> None:
    assert canonical(other) is None


def test_no_zwj_cluster_is_one_of_its_parts() -> None:
    assert {canonical(cluster) for cluster in ZWJ_CLUSTERS} == {None}


@given(st.sampled_from(QUALIFIED) | st.text(max_size=4))
def test_canonical_is_idempotent(grapheme: str) -> None:
    once = canonical(grapheme)

    assert once is None or canonical(once) == once


def test_nfc_makes_no_emoji_and_changes_none() -> None:
    every = map(chr, range(sys.maxunicode + 1))
    changed = "".join(to for char in every if (to := unicodedata.normalize("NFC", char)) != char)

    assert INVENTORY.isdisjoint(changed)
    assert [unicodedata.normalize("NFC", text) for text in TEXTS] == TEXTS


def test_an_emoji_has_a_name_whether_of_the_inventory_or_not() -> None:
    assert (name("🍕"), name("🇩🇪"), name("🤗")) == (
        "pizza",
        "flag: Germany",
        "smiling face with open hands",
    )


@given(forms)
def test_emoji_in_any_form_are_found_side_by_side(chosen: list[tuple[str, str]]) -> None:
    assert find("".join(form for form, _ in chosen)) == [text for _, text in chosen]


@given(st.lists(st.tuples(words, st.sampled_from(FORMS))))
def test_emoji_are_found_between_words(pieces: list[tuple[str, tuple[str, str]]]) -> None:
    text = "".join(f"{word} {form}" for word, (form, _) in pieces)

    assert find(text) == [expected for _, (_, expected) in pieces]


@given(st.lists(st.sampled_from(QUALIFIED)))
def test_among_all_emoji_only_those_of_the_inventory_are_found(texts: list[str]) -> None:
    bases = [regex.sub(f"[{TONES}]", "", text) for text in texts]

    assert [text.strip("\ufe0f") for text in find("".join(texts))] == [
        base.strip("\ufe0f") for base in bases if canonical(base)
    ]


@given(plain)
def test_text_without_emoji_has_none(text: str) -> None:
    assert find(text) == []
    assert find(text, hashtag=True) == []


def test_zwj_clusters_are_not_split() -> None:
    assert find("".join(ZWJ_CLUSTERS)) == []


def test_the_quick_search_misses_no_emoji() -> None:
    assert [form for form, text in FORMS if find(form) != [text]] == []


def test_text_without_emoji_is_never_segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_GRAPHEMES", None)

    assert find("Ein “schöner” Abend… 12 € für 10 × Pizza, 今日はいい天気 #abend") == []


def test_text_by_default_counts_only_in_a_hashtag() -> None:
    bare = "".join(text[0] for text in TEXT_BY_DEFAULT)

    assert find(bare) == []
    assert find(bare, hashtag=True) == TEXT_BY_DEFAULT


def test_a_skin_tone_makes_an_emoji_of_text_and_the_text_style_makes_text_of_an_emoji() -> None:
    assert find("☝ ☝🏽 🍕︎ ❤︎") == ["☝️"]


@given(st.lists(words | st.sampled_from(FORMS).map(lambda form: form[0]), min_size=1))
def test_hashtags_come_back_as_they_were_written(contents: list[str]) -> None:
    expected = [unicodedata.normalize("NFC", content) for content in contents]

    assert hashtags("".join(f"#{content}" for content in contents)) == expected
    assert hashtags(", ".join(f"#{content}" for content in contents)) == expected


def test_every_emoji_of_the_inventory_can_be_tagged() -> None:
    assert [find(tag, hashtag=True) for tag in hashtags("#" + " #".join(TEXTS))] == [
        [t] for t in TEXTS
    ]


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("#pizza🍕🍕!", ["pizza🍕🍕"]),
        ("#a#b #c", ["a", "b", "c"]),
        ("＃寿司 ﹟été", ["寿司", "été"]),
        ("#cafe\u0301", ["café"]),
        ("**#night_out-2** (#a+b), #col·lecció", ["night_out-2", "a+b", "col·lecció"]),
        ("#👩‍🚀.", ["👩‍🚀"]),
        ("##️⃣ ##⃣ #9️⃣", ["#️⃣", "#⃣", "9️⃣"]),
        ("press #️⃣, #⃣, # or ## or #- or #+", []),
        ("C# foo#bar x.org/#top it&#39;s", []),
    ],
)
def test_a_hashtag_is_what_the_networks_agree_on(caption: str, tags: list[str]) -> None:
    assert hashtags(caption) == tags


FOODS = Vocabulary(("🍕", "❤️", "🦀", "👍"), (6, 3, 0, 1))


@pytest.mark.parametrize(
    ("form", "index"),
    [("🍕", 0), ("❤", 1), ("🦀\ufe0f", 2), ("👍🏿", 3), ("❤︎", None), ("🤗", None)],
)
def test_any_form_of_an_emoji_has_its_class(form: str, index: int | None) -> None:
    assert FOODS.index(form) == index


def test_skin_tones_may_be_classes_of_their_own() -> None:
    toned = Vocabulary(("👍🏽", "👍"), (0, 0))

    assert [toned.index(form) for form in ("👍🏽", "👍", "👍🏿")] == [0, 1, 1]


def test_the_prior_is_each_emojis_share() -> None:
    assert FOODS.prior() == (0.6, 0.3, 0.0, 0.1)


def test_nothing_counted_makes_all_equally_likely() -> None:
    assert Vocabulary(("🍕", "❤️"), (0, 0)).prior() == (0.5, 0.5)


@given(vocabularies)
def test_a_vocabulary_survives_its_file(written: Vocabulary) -> None:
    assert Vocabulary.from_json(written.to_json()) == written
    assert Vocabulary.from_json(written.to_json().encode()) == written
    assert [written.index(text) for text in written.emoji] == list(range(len(written)))


def test_the_file_is_a_json_list_with_an_emoji_a_line() -> None:
    assert Vocabulary(("🍕", "❤️"), (3, 0)).to_json() == (
        '[\n{"emoji": "🍕", "count": 3},\n{"emoji": "❤️", "count": 0}\n]\n'
    )


def entry(emoji: object, count: object = 1) -> str:
    return json.dumps([{"emoji": emoji, "count": count}])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('[{"emoji": "🍕", "count": %s}]' % ("9" * 5000), "not JSON"),
        ("{}", "a vocabulary is a list, not {}"),
        ("[]", "1 to 10000 emoji, not 0"),
        ('["🍕"]', '\'🍕\' should be an object of "emoji" and "count"'),
        ('[{"emoji": "🍕"}]', 'should be an object of "emoji" and "count"'),
        ('[{"emoji": "🍕", "count": 1, "x": 0}]', 'should be an object of "emoji" and "count"'),
        (json.dumps([{"emoji": "🍕", "count": 1}] * 10_001), "not 10001"),
        (json.dumps([{"emoji": "🍕", "count": 1}] * 2), "🍕 is there 2 times"),
        (entry(["🍕"]), r"a string, not \['🍕'\]"),
        (entry("❤"), "'❤' is no fully-qualified emoji, '❤️' is"),
        (entry("🍕🏽"), "is no fully-qualified emoji, '🍕' is"),
        (entry("pizza"), "'pizza' is no fully-qualified emoji of Unicode's"),
        (entry("\ud83c"), "no fully-qualified emoji"),
        (entry("x" * 100_000), r"^'x{12}\.\.\.x{13}' is no"),
        (entry("🍕", -1), "from 0 to 1000000000000, not -1"),
        (entry("🍕", 10**12 + 1), "not 1000000000001"),
        (entry("🍕", 1.0), r"not 1\.0"),
        (entry("🍕", True), "not True"),
        (entry("🍕", None), "not None"),
        (entry("🍕", float("nan")), "not nan"),
    ],
)
def test_a_hostile_file_is_refused_with_what_is_wrong(content: str | bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Vocabulary.from_json(content)


def test_every_emoji_has_one_count() -> None:
    with pytest.raises(ValueError, match="2 emoji have 1 counts"):
        Vocabulary(("🍕", "❤️"), (1,))


def test_neither_importing_nor_an_inventory_loads_the_emoji_package() -> None:
    code = """
import sys
from services.shared.vocabulary import *
assert Vocabulary.from_json('[{"emoji": "🍕", "count": 1}]').index("🍕") == 0
assert "emoji" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
