import hashlib
import time
import unicodedata
from collections.abc import Callable, Sequence

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import keep
from services.crawler.keep import (
    Caps,
    Keeper,
    Kept,
    Mention,
    Verdict,
    Where,
    author_hash,
    labelled,
    mentioned,
    words,
)
from services.crawler.post import Flag, Post, PostImage
from services.shared import vocabulary
from tests.standin.world import World

KEY = b"k" * 32
IMAGE = PostImage("https://cdn.example/1.jpg")
TAGS = " ".join(f"#tag{number}" for number in range(6))
SIX_TAGS, FIVE_TAGS = f"🍕 {TAGS}", f"🍕 {TAGS.rpartition(' ')[0]}"


def post(
    text: str = "🍕",
    *,
    uri: str = "at://1",
    images: Sequence[PostImage] = (IMAGE,),
    author: str = "did:plc:anna",
    labels: Sequence[str] = (),
    flags: Sequence[Flag] = (),
) -> Post:
    return Post(
        uri=uri, text=text, images=images, author=author, labels=labels, flags=frozenset(flags)
    )


def keeper(
    rules: pb.KeepRules | None = None,
    *,
    emoji: Sequence[str] = ("🍕", "🐕"),
    taken: dict[str, int] | None = None,
    of_author: Callable[[bytes], int] = lambda author: 0,
) -> Keeper:
    rules = rules or pb.KeepRules()
    return Keeper("bluesky", emoji, rules, Caps(rules, taken or {}, of_author), KEY)


def nothing_removed(uri: str, author: bytes) -> Verdict | None:
    return None


def everything_removed(uri: str, author: bytes) -> Verdict | None:
    return Verdict.REMOVED


def judged(crawled: Post, by: Keeper | None = None) -> Kept | Verdict:
    return (by or keeper()).judge(crawled, nothing_removed)


def places(text: str, *labels: str) -> list[tuple[str, str]]:
    return [(m.emoji, str(m.where)) for m in mentioned(post(text, labels=labels))]


@pytest.mark.parametrize(
    ("crawled", "verdict"),
    [
        (post("no emoji"), Verdict.NO_EMOJI),
        (post("🍷, of which this crawl knows nothing"), Verdict.NO_EMOJI),
        (post("❤ is text"), Verdict.NO_EMOJI),
        (post(images=[]), Verdict.NO_IMAGE),
        (post(flags=[Flag.SENSITIVE]), Verdict.SENSITIVE),
        (post(flags=[Flag.OPTED_OUT]), Verdict.OPTED_OUT),
        (post(SIX_TAGS), Verdict.TOO_MANY_HASHTAGS),
    ],
)
def test_each_rule_rejects_under_its_own_name(crawled: Post, verdict: Verdict) -> None:
    assert judged(crawled) is verdict


def test_five_hashtags_are_not_too_many() -> None:
    assert isinstance(judged(post(FIVE_TAGS)), Kept)


def test_a_crawl_may_allow_more_or_fewer_hashtags() -> None:
    six, one = pb.KeepRules(max_hashtags=6), pb.KeepRules(max_hashtags=1)

    assert isinstance(judged(post(SIX_TAGS), keeper(six)), Kept)
    assert judged(post("🍕 #a1 #b2"), keeper(one)) is Verdict.TOO_MANY_HASHTAGS


def test_why_a_post_was_removed_is_its_verdict() -> None:
    assert keeper().judge(post(), lambda *_: Verdict.REMOVED) is Verdict.REMOVED
    assert keeper().judge(post(), lambda *_: Verdict.OPTED_OUT) is Verdict.OPTED_OUT


def test_removals_are_asked_for_by_address_and_hash() -> None:
    asked = []
    keeper().judge(post(uri="at://7"), lambda *names: asked.append(names))

    assert asked == [("at://7", author_hash("bluesky", "did:plc:anna", KEY))]


def test_of_several_reasons_the_first_rule_counts() -> None:
    full = keeper(taken={"🍕": 3000}, of_author=lambda author: 100)
    both = [Flag.SENSITIVE, Flag.OPTED_OUT]

    def verdict(crawled: Post, removed: bool = True) -> Kept | Verdict:
        return full.judge(crawled, everything_removed if removed else nothing_removed)

    assert verdict(post(TAGS, images=[], flags=both)) is Verdict.NO_EMOJI
    assert verdict(post(SIX_TAGS, images=[], flags=both)) is Verdict.NO_IMAGE
    assert verdict(post(SIX_TAGS, flags=both)) is Verdict.OPTED_OUT
    assert verdict(post(SIX_TAGS, flags=both[:1])) is Verdict.SENSITIVE
    assert verdict(post(SIX_TAGS)) is Verdict.REMOVED
    assert verdict(post(SIX_TAGS), removed=False) is Verdict.TOO_MANY_HASHTAGS
    assert verdict(post(), removed=False) is Verdict.EMOJI_CAP
    assert verdict(post("🐕"), removed=False) is Verdict.AUTHOR_CAP


def test_an_emoji_that_has_its_pictures_keeps_no_more_posts() -> None:
    full = keeper(pb.KeepRules(images_per_emoji=2), taken={"🍕": 2})

    assert judged(post("🍕"), full) is Verdict.EMOJI_CAP


def test_a_post_with_one_emoji_that_lacks_pictures_is_kept_whole() -> None:
    kept = judged(post("🍕 🐕"), keeper(pb.KeepRules(images_per_emoji=2), taken={"🍕": 2}))

    assert isinstance(kept, Kept)
    assert kept.mentions == [Mention("🍕", Where.TEXT), Mention("🐕", Where.TEXT)]


def test_caps_count_pictures_once_for_each_emoji_of_a_post() -> None:
    some = keeper(pb.KeepRules(images_per_emoji=3))
    kept = judged(post("🍕 #🍕", images=[IMAGE, IMAGE._replace(url="https://cdn.example/2.jpg")]))
    assert isinstance(kept, Kept)

    some.caps.count(kept)
    assert some.caps.wanted("🍕")

    some.caps.count(kept)
    assert not some.caps.wanted("🍕")
    assert some.caps.wanted("🐕")


def test_an_author_is_taken_up_to_a_cap_and_nobody_stands_for_all_who_are_unknown() -> None:
    rules = pb.KeepRules(images_per_author=7)

    assert isinstance(judged(post(), keeper(rules, of_author=lambda author: 6)), Kept)
    assert judged(post(), keeper(rules, of_author=lambda author: 7)) is Verdict.AUTHOR_CAP
    assert isinstance(judged(post(author=""), keeper(rules, of_author=lambda author: 7)), Kept)


def test_the_articles_caps_hold_where_a_crawl_names_none() -> None:
    assert Caps(pb.KeepRules(), {"🍕": 2999}, lambda author: 0).wanted("🍕")
    assert not Caps(pb.KeepRules(), {"🍕": 3000}, lambda author: 0).wanted("🍕")
    assert Caps(pb.KeepRules(), {}, lambda author: 99).welcome(b"anna")
    assert not Caps(pb.KeepRules(), {}, lambda author: 100).welcome(b"anna")


def test_what_is_kept_of_a_post_names_nobody() -> None:
    crawled = Post(
        uri="at://1",
        text="Best #🍕 in town with @luigis and Anna 🐕 #yum",
        images=[IMAGE],
        author="did:plc:anna",
        time_seconds=5.0,
        segment="café",
    )

    kept = judged(crawled)

    assert kept == Kept(
        source="bluesky",
        uri="at://1",
        author=author_hash("bluesky", "did:plc:anna", KEY),
        time_seconds=5.0,
        segment="café",
        mentions=[Mention("🍕", Where.HASHTAG), Mention("🐕", Where.TEXT)],
        hashtags=["🍕", "yum"],
        words=["town", "with", "and"],
        images=[IMAGE],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("🍕", [("🍕", "text")]),
        ("#🍕", [("🍕", "hashtag")]),
        ("#🍕 🍕", [("🍕", "hashtag"), ("🍕", "text")]),
        ("#❤ ❤️", [("❤️", "hashtag"), ("❤️", "text")]),
        ("❤ ❤︎ © ™", []),
        ("#❤ #©", [("❤️", "hashtag"), ("©️", "hashtag")]),
        ("＃❤ ﹟☕", [("❤️", "hashtag"), ("☕", "hashtag")]),
        ("#❤︎", []),
        ("#️⃣ #1️⃣ 2⃣", [("1️⃣", "hashtag"), ("#️⃣", "text"), ("2️⃣", "text")]),
        ("1 # * 2", []),
        ("👍🏽 #👍🏿", [("👍", "hashtag"), ("👍", "text")]),
        ("👨‍👩‍👧‍👦 👩‍🚀 🚬⃠ ❤️‍🔥", []),
        ("👨👩", [("👨", "text"), ("👩", "text")]),
        ("🇯🇵🇧🇷🇫🇷🇯", [("🇯🇵", "text"), ("🇫🇷", "text")]),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 🦀 🤗", []),
        ("#food#🍕pizza🐕", [("🍕", "hashtag"), ("🐕", "hashtag")]),
        ("I🍕#🐕 foo#🐈 https://x.y/#🚗", [(e, "text") for e in "🍕🐕🐈🚗"]),
        ("#🍕.🐕", [("🍕", "hashtag"), ("🐕", "text")]),
    ],
)
def test_emoji_are_told_apart_by_where_they_stand(
    text: str, expected: list[tuple[str, str]]
) -> None:
    assert places(text) == expected


def test_labels_are_emoji_in_any_spelling() -> None:
    assert places("🍕", "🍕", " ❤ ", "👍🏽", "pizza", "", "👩‍🚀") == [
        ("🍕", "text"),
        ("🍕", "label"),
        ("❤️", "label"),
        ("👍", "label"),
    ]
    assert labelled("🍕🍕") is None


def test_the_captions_of_the_stand_in_are_read_without_an_error() -> None:
    for true in World(seed=3, posts=5000).truth():
        found = mentioned(post(true.text))

        assert {m.emoji for m in found if m.where == Where.TEXT} == true.in_text, true.text
        assert {m.emoji for m in found if m.where == Where.HASHTAG} == true.in_hashtags, true.text
        tags = [unicodedata.normalize("NFC", tag.content) for tag in true.hashtags]
        assert vocabulary.hashtags(true.text) == tags


# What emoji, hashtags and the borders of clusters are made of.
_SHOWN = "🍕 ❤ ❤️ 👍 🏽 🇯 🇵 👨 # ＃ * 1 a क ् ᄀ ᅡ _"
_HIDDEN = " \n\r\ufe0f\ufe0e\u200d\u20e3\u0301\u0600\u0903\u200b\U000e0061"
pieces = st.lists(st.sampled_from([*_SHOWN.split(" "), *_HIDDEN])).map("".join)


@given(pieces | st.text())
def test_a_text_has_the_emoji_of_its_grapheme_clusters(text: str) -> None:
    clusters = [(c, vocabulary.canonical(c)) for c in regex.findall(r"\X", text)]

    assert vocabulary.find(text, hashtag=True) == [emoji for _, emoji in clusters if emoji]
    assert vocabulary.find(text) == [e for c, e in clusters if e and e != c + "\ufe0f"]


@given(pieces)
def test_every_mention_is_in_the_text_or_in_a_hashtag(text: str) -> None:
    in_tags = [e for tag in vocabulary.hashtags(text) for e in vocabulary.find(tag, hashtag=True)]
    found = mentioned(post(text))

    assert [m.emoji for m in found if m.where == Where.HASHTAG] == list(dict.fromkeys(in_tags))
    if not vocabulary.hashtags(text):
        assert [m.emoji for m in found] == list(dict.fromkeys(vocabulary.find(text)))


@pytest.mark.parametrize(
    "private",
    [
        "@anna",
        "@ anna",
        "＠anna",
        "@anna.bsky.social",
        "anna.bsky.social",
        "@anna@mastodon.example",
        "anna@mastodon.example",
        "anna.smith@example.com",
        "<anna.smith+crawl@example.co.uk>",
        "(@anna)",
        ".@anna",
        "by:@anna",
        "insta:anna",
        "u/anna",
        "/u/anna",
        "https://example.com/anna",
        "HTTPS://EXAMPLE.COM/anna",
        "www.anna.example",
        "t.me/anna",
        "example.com/anna?smith=1#anna",
        "anna_smith",
        "anna92",
        "+1-555-anna",
        "+49 170 1234567",
        "#annasmith",
        "＃annasmith",
        "(#anna)",
        "Anna",
        "Anna's",
        "McAnna",
        "ANNA",
        "Łukasz",
        "did:plc:anna",
        "C:\\anna",
    ],
)
def test_words_name_nobody(private: str) -> None:
    assert words(f"{private} dinner {private}, with {private}") == ["dinner", "with"]


def test_words_are_those_with_small_letters_and_names_of_emoji() -> None:
    assert words("Pizza, CAFÉ... café! don't 'quoted' mother-in-law- naïve über 2nd is") == [
        "pizza",
        "café",
        "don't",
        "quoted",
        "mother-in-law",
        "naïve",
        "über",
    ]


def test_scripts_without_capitals_give_no_words() -> None:
    assert words("今日は田中さんと آنا ישראל अन्ना 민지") == []


def test_words_come_once_and_are_bounded() -> None:
    assert words("yes yes Pizza pizza") == ["yes", "pizza"]
    assert words("a" * 41 + " e" + "\u0301" * 1000 + "x") == []
    letters = [a + b + c for a in "abcde" for b in "abcde" for c in "abcde"]
    assert words(" ".join(letters)) == letters[: keep.MAX_WORDS]


@given(st.text())
def test_words_of_any_text_are_short_and_without_signs(text: str) -> None:
    for word in words(text):
        assert 3 <= len(word) <= keep.MAX_WORD
        assert not set("@#/_.:0123456789 ") & {*word}


@pytest.mark.parametrize(
    "unit",
    [
        "#",
        "🍕",
        "\u0301",
        "א\u202e",
        "\0",
        "🇯",
        "#️⃣",
        "#🍕",
        "🍕\u200d",
        "a",
        "@",
        "a.",
        "x'",
        "1\u20e3",
    ],
)
def test_a_hostile_caption_takes_time_that_grows_with_its_length(unit: str) -> None:
    text = unit * (200_000 // len(unit))  # what is not linear takes minutes for it
    began = time.process_time()

    judged(post(text + " 🍕"))
    words(text)

    assert time.process_time() - began < 3


@given(st.text(), st.text(), st.text(min_size=1))
def test_an_authors_hash_tells_apart_keys_sources_and_authors(a: str, b: str, key: str) -> None:
    digest = author_hash("bluesky", f"did:{a}", KEY)

    assert len(digest) == 16
    assert (digest == author_hash("bluesky", f"did:{b}", KEY)) == (a == b)
    assert digest != author_hash("import", f"did:{a}", KEY)
    assert digest != author_hash("bluesky", f"did:{a}", key.encode() + b"?")
    assert digest != hashlib.sha256(f"bluesky\0did:{a}".encode()).digest()[:16]


def test_an_unknown_author_has_no_hash() -> None:
    assert author_hash("bluesky", "", KEY) == b""
