import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.crawler import duplicates
from services.crawler.duplicates import DISTANCE, LEAST_QUALITY, Hashes


def hashes(count: int, seed: int = 0) -> Hashes:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def flipped(pdq: Hashes, bits: int) -> Hashes:
    unpacked = np.unpackbits(pdq)
    unpacked[:bits] ^= 1
    return np.packbits(unpacked)


def test_pictures_belong_together_up_to_the_distance() -> None:
    (one,) = hashes(1)
    many = np.stack([one, flipped(one, DISTANCE), flipped(one, 2 * DISTANCE + 1)])

    assert duplicates.clusters(many, [100] * 3).tolist() == [0, 0, 2]


def test_a_chain_of_near_duplicates_is_one_cluster() -> None:
    (one,) = hashes(1)
    chain = np.stack([flipped(one, n * DISTANCE) for n in (3, 0, 2, 1)])

    assert duplicates.clusters(chain, [100] * 4).tolist() == [0, 0, 0, 0]


def test_hashes_that_say_too_little_are_alone() -> None:
    same = np.zeros((3, 32), np.uint8)

    found = duplicates.clusters(same, [LEAST_QUALITY - 1, LEAST_QUALITY, LEAST_QUALITY])
    assert found.tolist() == [0, 1, 1]


def test_nothing_has_no_clusters() -> None:
    assert duplicates.clusters(hashes(0), []).tolist() == []


def test_all_pairs_of_thousands_are_found() -> None:
    apart = hashes(9000)
    twins = np.stack([flipped(pdq, DISTANCE) for pdq in apart[:500]])
    found = duplicates.clusters(np.concatenate([apart, twins]), np.full(9500, 100))

    assert found.tolist() == [*range(9000), *range(500)]


def test_the_order_changes_numbers_but_no_cluster() -> None:
    apart = hashes(200)
    both = np.concatenate([apart, [flipped(pdq, 20) for pdq in apart]])
    shuffle = np.random.default_rng(1).permutation(400)
    found = duplicates.clusters(both[shuffle], np.full(400, 100))

    where = np.argsort(shuffle)
    assert (found[where[:200]] == found[where[200:]]).all()
    assert len(np.unique(found)) == 200


def test_what_is_near_is_told() -> None:
    known = hashes(50)

    near = duplicates.near(known, flipped(known[7], DISTANCE).tobytes())
    assert np.flatnonzero(near).tolist() == [7]
    assert not duplicates.near(known, flipped(known[7], DISTANCE + 1).tobytes()).any()
    assert duplicates.near(known[:0], known[0].tobytes()).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
def test_components_are_what_pairs_connect(pairs: list[tuple[int, int]]) -> None:
    found = duplicates.components(30, np.array(pairs, np.int64).reshape(-1, 2)).tolist()

    groups = {one: {one} for one in range(30)}
    for one, other in pairs:
        union = groups[one] | groups[other]
        groups.update(dict.fromkeys(union, union))
    assert found == [min(groups[one]) for one in range(30)]


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    pairs = np.stack([order[:-1], order[1:]], axis=1)

    assert not duplicates.components(100_000, pairs).any()
