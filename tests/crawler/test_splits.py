import hashlib
from collections import Counter, defaultdict
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from services.crawler import splits
from services.crawler.splits import Shares

SEED = b"seed"
THIRD = Shares(validation=0.2, test=0.2)


class Given(NamedTuple):
    key: bytes
    authors: frozenset[bytes]
    emoji: frozenset[int]


def drawn(samples: list[Given], shares: Shares = THIRD, seed: bytes = SEED) -> dict[bytes, str]:
    found = splits.assign(
        [sample.key for sample in samples],
        [sample.authors for sample in samples],
        [sample.emoji for sample in samples],
        shares=shares,
        seed=seed,
    )
    return {sample.key: split for sample, split in zip(samples, found, strict=True)}


def sample(number: int, author: int | None = None, *emoji: int) -> Given:
    authors = frozenset([b"author %d" % author] if author is not None else [])
    return Given(hashlib.sha256(b"%d" % number).digest(), authors, frozenset(emoji or [0]))


SAMPLES = st.lists(
    st.builds(
        Given,
        st.binary(min_size=1, max_size=4),
        st.frozensets(st.sampled_from([b"%d" % n for n in range(25)]), max_size=2),
        st.frozensets(st.integers(0, 6), min_size=1, max_size=3),
    ),
    unique_by=lambda given: given.key,
    max_size=40,
)


@given(SAMPLES)
def test_no_author_is_in_two_splits(samples: list[Given]) -> None:
    found = drawn(samples)

    where = defaultdict(set)
    for one in samples:
        for author in one.authors:
            where[author].add(found[one.key])
    assert all(len(names) == 1 for names in where.values())


@given(SAMPLES, st.randoms(use_true_random=False))
def test_order_changes_nothing(samples: list[Given], chance: "st.DrawFn") -> None:
    shuffled = list(samples)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]

    assert drawn(shuffled) == drawn(samples)


@given(SAMPLES)
def test_an_emoji_of_one_group_is_learned(samples: list[Given]) -> None:
    lonely = [one._replace(emoji=frozenset([n])) for n, one in enumerate(samples)]
    apart = [one._replace(authors=frozenset([one.key])) for one in lonely]

    assert set(drawn(apart).values()) <= {"train"}


def test_a_later_crawl_moves_nothing_but_for_rare_emoji() -> None:
    before = [sample(n, n) for n in range(1000)]
    after = before + [sample(n, n) for n in range(1000, 1500)]

    first, second = drawn(before), drawn(after)

    assert all(second[key] == split for key, split in first.items())


def test_the_shares_are_about_what_was_asked_for() -> None:
    counts = Counter(drawn([sample(n, n // 2, n % 7) for n in range(4000)]).values())

    assert 0.17 < counts["test"] / 4000 < 0.23
    assert 0.17 < counts["validation"] / 4000 < 0.23


def test_every_emoji_of_three_groups_is_in_every_split() -> None:
    samples = [sample(n, n, n // 3) for n in range(900)]
    found = drawn(samples, Shares(0.1, 0.1))

    where = defaultdict(set)
    for one in samples:
        where[next(iter(one.emoji))].add(found[one.key])
    assert all(names == set(splits.SPLITS) for names in where.values())


def test_an_emoji_of_two_groups_is_learned_and_judged() -> None:
    for seed in range(20):
        first, second = drawn([sample(1, 1), sample(2, 2)], seed=b"%d" % seed).values()

        assert first != second
        assert "train" in (first, second)


def test_no_share_means_no_samples() -> None:
    found = drawn([sample(n, n, n // 3) for n in range(300)], Shares(0, 0.1))

    assert set(found.values()) == {"train", "test"}


def test_a_group_larger_than_a_split_is_learned_from() -> None:
    crowd = [sample(n, 1) for n in range(80)]
    found = [
        drawn(crowd + [sample(n, n) for n in range(100, 120)], seed=b"%d" % s) for s in range(9)
    ]

    assert {one[crowd[0].key] for one in found} == {"train"}


def test_no_group_larger_than_a_split_moves_there_for_its_emoji() -> None:
    crowds = [sample(n, n % 3) for n in range(90)]

    assert set(drawn(crowds).values()) == {"train"}


def test_another_seed_draws_anew() -> None:
    samples = [sample(n, n) for n in range(200)]

    assert drawn(samples, seed=b"one") != drawn(samples, seed=b"two")
