"""Near-duplicates: the same picture in other sizes, encodings and croppings, by how it looks.

Everything is compared with everything, exactly: with the CPU's own counting of bits that takes
0.07 ms for each of 100,000 pictures. Multi-index hashing, which looks only where a part of the
hash is alike, took 1 ms: at 36 of 256 bits too much is a little alike.
"""

# N pictures, M others, E pairs

import numpy as np
import numpy.typing as npt

DISTANCE = 36  # bits of 256, measured by `make bench-duplicates`
LEAST_QUALITY = 50  # of a hash that says anything: below, all blue skies are one
BLOCK = 4096

Hashes = npt.NDArray[np.uint8]  # (N, 32)
Numbers = npt.NDArray[np.int64]


def clusters(hashes_N32: Hashes, quality_N: npt.ArrayLike) -> Numbers:
    """For each picture the number of its cluster: the place of the cluster's first picture.

    Pictures belong together if a chain of near-duplicates leads from one to the other. Those
    whose hash says too little are alone.
    """
    telling = np.flatnonzero(np.asarray(quality_N) >= LEAST_QUALITY)
    pairs_E2 = telling[_near_pairs(np.ascontiguousarray(hashes_N32[telling]))]
    return components(len(hashes_N32), pairs_E2)


def near(known_N32: Hashes, pdq: bytes) -> npt.NDArray[np.bool_]:
    """Which of the known pictures are near-duplicates of one. Only for hashes that say enough."""
    different = np.bitwise_xor(known_N32, np.frombuffer(pdq, np.uint8))
    distance_N = np.bitwise_count(different.view(np.uint64)).sum(axis=1)
    return distance_N <= DISTANCE


def components(count: int, pairs_E2: npt.NDArray[np.integer]) -> Numbers:
    """For each of `count` things the first of those that it hangs together with by pairs."""
    first_N = np.arange(count)
    while True:
        low_E, high_E = np.sort(first_N[pairs_E2], axis=1).T
        if (low_E == high_E).all():
            return first_N
        np.minimum.at(first_N, high_E, low_E)
        while (first_N[first_N] != first_N).any():
            first_N = first_N[first_N]


def _near_pairs(hashes_N32: Hashes) -> Numbers:
    """All pairs of places of near-duplicates, (E, 2)."""
    import faiss  # takes a while to load, and only freezing a data set needs it

    index = faiss.IndexBinaryFlat(8 * hashes_N32.shape[1])
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes_N32), BLOCK):
        block = hashes_N32[start : start + BLOCK]
        index.add(block)  # what comes later will look for these
        ends, _, others = index.range_search(block, DISTANCE + 1)
        own = np.repeat(np.arange(start, start + len(block)), np.diff(ends.astype(np.int64)))
        found.append(np.stack([others, own], axis=1)[others < own])
    return np.concatenate(found)
