import hashlib
import io
import json
import os
import random
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
import webdataset  # type: ignore[import-untyped]

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import dataset, duplicates, manifest, promises
from services.crawler.dataset import Find, Frozen
from services.crawler.keep import Mention, Where
from services.crawler.splits import Shares
from services.shared import shards
from services.shared.errors import AlreadyExists, BadDataset, StorageFailed
from tests.crawler.finds import VOCABULARY, finds, post, stream

pytestmark = pytest.mark.system

FUNNEL = [("post", "kept", 60), ("post", "no_image", 3)]
SHARES = Shares(0.2, 0.2)


def freeze(folder: Path, found: Sequence[Find] | Iterator[Find]) -> Frozen:
    return dataset.write(
        folder,
        found,
        vocabulary=VOCABULARY,
        funnel=FUNNEL,
        rules=pb.KeepRules(),
        name=folder.name,
        shares=SHARES,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Find]:
    return finds(tmp_path_factory.mktemp("store") / "jpeg", 60)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory, found: list[Find]) -> Path:
    """A data set of sixty samples; do not write to it."""
    folder = tmp_path_factory.mktemp("datasets") / "first"
    freeze(folder, found)
    return folder


@pytest.fixture
def own(frozen: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(frozen, tmp_path / "datasets" / "first"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def keys(folder: Path) -> list[str]:
    return [one.key for split in shards.SPLITS for one in shards.read_samples(folder, split)]


# -- what is written ------------------------------------------------------------------------------


def test_each_find_is_a_sample_with_its_picture_and_emoji(frozen: Path, found: list[Find]) -> None:
    read = {one.key: one for split in shards.SPLITS for one in shards.read_samples(frozen, split)}

    assert read.keys() == {find.sha256.hex() for find in found}
    for find in found:
        sample = read[find.sha256.hex()]
        assert sample.jpeg == find.jpeg.read_bytes()
        assert set(sample.emoji) == {mention.emoji for mention in find.posts[0].mentions}


def test_every_order_gives_the_same_bytes(tmp_path: Path, found: list[Find]) -> None:
    digests = set()
    for seed in range(3):
        shuffled = list(found)
        random.Random(seed).shuffle(shuffled)
        digests.add(freeze(tmp_path / str(seed) / "same", shuffled).digest)

    assert len(digests) == 1
    first, second = (contents(tmp_path / name / "same") for name in "01")
    assert first == second


def test_a_data_set_passes_its_own_checks(frozen: Path) -> None:
    promises.verify(frozen)


def test_its_digest_and_sizes_are_returned(tmp_path: Path, found: list[Find]) -> None:
    made = freeze(tmp_path / "first", found)

    said = shards.facts(tmp_path / "first")
    assert (made.digest, made.samples) == (said["digest"], said["samples"])
    assert sum(made.samples.values()) == 60


def test_nothing_is_left_beside_it(frozen: Path) -> None:
    assert os.listdir(frozen.parent) == ["first"]


def test_a_name_that_is_taken_is_refused(frozen: Path, found: list[Find]) -> None:
    with pytest.raises(AlreadyExists, match="choose another name"):
        freeze(frozen, found)


def test_near_duplicates_become_the_largest_with_the_emoji_of_all(
    tmp_path: Path, found: list[Find]
) -> None:
    small, large = sorted(found[:2], key=lambda find: find.sha256)  # else the first is shown
    bits = np.unpackbits(np.frombuffer(small.pdq, np.uint8))
    bits[: duplicates.DISTANCE] ^= 1
    posted = post(7, np.random.default_rng(3))._replace(mentions=[Mention("🚗", Where.HASHTAG)])
    twin = large._replace(pdq=np.packbits(bits).tobytes(), width=9000, posts=[posted])
    freeze(tmp_path / "set", [small, twin, found[2]])

    rows = dict(manifest.samples(tmp_path / "set"))[twin.sha256.hex()]
    own = {mention.emoji for mention in small.posts[0].mentions}
    assert {row["sha256"] for row in rows} == {small.sha256.hex(), twin.sha256.hex()}
    assert set(rows[0]["labels"]) == own | {"🚗"}
    assert rows[0]["pictures"] == 2
    assert len(keys(tmp_path / "set")) == 2
    assert dict(manifest.members(tmp_path / "set"))[small.sha256] == twin.sha256.hex()


def test_the_same_bytes_twice_are_one_sample_however_flat(
    tmp_path: Path, found: list[Find]
) -> None:
    flat = found[0]._replace(quality=0)
    freeze(tmp_path / "set", [flat, flat._replace(posts=found[1].posts), found[2]])

    assert len(keys(tmp_path / "set")) == 2
    promises.verify(tmp_path / "set")


def test_a_picture_without_an_emoji_of_the_vocabulary_is_counted_and_left_out(
    tmp_path: Path, found: list[Find]
) -> None:
    stranger = found[0].posts[0]._replace(mentions=[Mention("🦀", Where.TEXT)])
    freeze(tmp_path / "set", [found[0]._replace(posts=[stranger]), *found[1:5]])

    funnel = json.loads((tmp_path / "set" / "funnel.json").read_text())
    assert {"stage": "dataset", "outcome": "no_emoji_of_vocabulary", "count": 1} in funnel
    assert len(keys(tmp_path / "set")) == 4


def test_nothing_found_is_an_empty_data_set(tmp_path: Path) -> None:
    freeze(tmp_path / "set", [])

    promises.verify(tmp_path / "set")
    assert keys(tmp_path / "set") == []


def test_the_vocabulary_counts_what_there_is_to_learn_from(frozen: Path) -> None:
    counts = Counter(e for one in shards.read_samples(frozen, "train") for e in one.emoji)

    entries = json.loads((frozen / "vocabulary.json").read_text())
    assert {entry["emoji"]: entry["count"] for entry in entries} == dict(counts)
    assert [entry["emoji"] for entry in entries] == list(VOCABULARY.emoji)


def test_pandas_people_get_one_row_for_each_post(frozen: Path, found: list[Find]) -> None:
    table = pyarrow.parquet.read_table(frozen / "manifest.parquet")

    row = table.filter(pyarrow.compute.equal(table["uri"], "post/1")).to_pylist()[0]
    assert row["sha256"] == found[1].sha256.hex()
    assert row["author"] == found[1].posts[0].author.hex()
    assert (row["width"], row["height"]) == (1001, 800)
    assert row["time"].timestamp() == 1.4e9 + 1
    assert row["where"] == ["text"] * len(row["emoji"])
    assert (row["words"], row["hashtags"], row["segment"]) == (
        ["pizza", "delicious"],
        ["yum"],
        "blue",
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it closes nothing
def test_the_stock_reader_of_webdataset_reads_the_shards(frozen: Path) -> None:
    (shard,) = sorted(frozen.glob("shards/train-*.tar"))
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8"))

    ours = list(shards.read_samples(frozen, "train"))
    assert [one["__key__"] for one in read] == [one.key for one in ours]
    assert [one["json"]["emoji"] for one in read] == [one.emoji for one in ours]
    assert read[0]["jpg"].shape[0] == 24


def test_the_datasheet_tells_the_numbers(frozen: Path) -> None:
    sheet = (frozen / "datasheet.md").read_text()

    assert "60 pictures" in sheet
    assert "| post | no_image | 3 |" in sheet
    for section in ("Motivation", "Composition", "Collection process", "Uses", "Maintenance"):
        assert f"## {section}" in sheet


def test_shards_end_at_a_thousand_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[Find]
) -> None:
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 10)
    freeze(tmp_path / "set", found)

    promises.verify(tmp_path / "set")
    assert len(list((tmp_path / "set" / "shards").glob("train-*.tar"))) > 1


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        freeze(tmp_path / str(count), stream(tmp_path / "jpeg", count, px=96))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)

    assert peak(300) - peak(150) < 150 * 8_000  # a picture alone has 13,000


# -- taking down ----------------------------------------------------------------------------------


def test_what_is_excluded_is_not_read_from_then_on(own: Path) -> None:
    before = keys(own)

    assert dataset.exclude(own, before[:3]) == 3
    assert keys(own) == before[3:]
    promises.verify(own)


def test_excluding_twice_or_what_is_not_there_changes_nothing(own: Path) -> None:
    gone = keys(own)[0]
    dataset.exclude(own, [gone])
    before = contents(own)

    assert dataset.exclude(own, [gone, "0" * 64]) == 0
    assert contents(own) == before


def test_nothing_is_excluded_from_what_is_not_there(tmp_path: Path) -> None:
    assert dataset.exclude(tmp_path / "none", ["0" * 64]) == 0


def test_compacting_leaves_no_byte_of_what_was_excluded(own: Path, found: list[Find]) -> None:
    gone = set(random.Random(1).sample(keys(own), 20))
    posts = [find.posts[0].uri.encode() for find in found if find.sha256.hex() in gone]
    left = [key for key in keys(own) if key not in gone]
    dataset.exclude(own, gone)

    made = dataset.compact(own)

    assert keys(own) == left
    promises.verify(own)
    everything = b"".join(contents(own).values())
    assert not any(key.encode() in everything for key in gone)
    table = pyarrow.parquet.read_table(own / "manifest.parquet")
    assert not {uri.encode() for uri in table["uri"].to_pylist()} & set(posts)
    assert made.digest == shards.facts(own)["digest"]
    assert shards.excluded(own) == frozenset()
    assert os.listdir(own.parent) == ["first"]
    funnel = {
        (c["stage"], c["outcome"]): c["count"]
        for c in json.loads((own / "funnel.json").read_text())
    }
    assert (funnel["dataset", "sample"], funnel["dataset", "taken_down"]) == (40, 20)


def test_compacting_without_need_changes_nothing(own: Path) -> None:
    before = contents(own)
    dataset.compact(own)

    assert contents(own) == before


def test_what_is_excluded_while_compacting_stays_excluded(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *rest = keys(own)
    dataset.exclude(own, [first])
    sync = shards.sync
    calls = iter([lambda: dataset.exclude(own, [second])])

    def meanwhile(path: Path) -> None:
        next(calls, lambda: 0)()
        sync(path)

    monkeypatch.setattr(shards, "sync", meanwhile)
    dataset.compact(own)

    assert keys(own) == rest
    promises.verify(own)


def test_leftovers_of_a_process_that_died_are_swept(frozen: Path, tmp_path: Path) -> None:
    shutil.copytree(frozen, tmp_path / ".staged-other")
    dataset.sweep(tmp_path)

    assert os.listdir(tmp_path) == []


# -- damage ---------------------------------------------------------------------------------------


def damaged(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    if draw.random() < 0.3:
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def test_no_flipped_bit_and_no_truncation_goes_unseen(own: Path) -> None:
    draw = random.Random(1)
    names = [name for name in contents(own) if name != "skew.png"]
    for number in range(2000):
        path = own / names[number % len(names)]
        content = path.read_bytes()
        path.write_bytes(damaged(content, draw))
        with pytest.raises(BadDataset, match=str(path)):
            promises.verify(own)
        path.write_bytes(content)
    promises.verify(own)


def test_a_missing_or_a_stray_file_is_named(own: Path) -> None:
    for name in contents(own):
        if name != "skew.png":
            (own / name).rename(own / "aside")
            with pytest.raises(BadDataset, match=name):
                promises.verify(own)
            (own / "aside").rename(own / name)
    (own / "shards" / "train-000009.tar").write_bytes(b"")
    with pytest.raises(BadDataset, match="train-000009"):
        promises.verify(own)


def resealed(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """A data set whose manifest was changed by somebody who knows about digests."""
    rows = [row for _, rows in manifest.samples(folder) for row in rows]
    change(rows)
    writer = manifest.ManifestWriter(folder)
    writer.add(rows)
    said = shards.facts(folder)
    said["files"][manifest.MANIFEST] = dict(writer.close())
    (folder / shards.DATASET).write_bytes(shards.sealed(said))


def one_of_each_split(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["split"]: row for row in rows}.values())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows.pop(), "other samples"),
        (lambda rows: rows.reverse(), "other samples"),
        (lambda rows: rows[0].update(labels=["🚗", "🍕"]), "is another in"),
        (lambda rows: rows[0].update(split="test"), "is another in"),
        (lambda rows: rows[0].update(stored_width=9), "is another in"),
        (
            lambda rows: [row.update(author="ab") for row in one_of_each_split(rows)],
            "author ab is in two splits",
        ),
        (
            lambda rows: [row.update(pdq="0f" * 32) for row in one_of_each_split(rows)],
            "near-duplicates are in",
        ),
    ],
)
def test_a_data_set_that_breaks_its_promises_is_refused(
    own: Path, change: Callable[[list[dict[str, Any]]], object], why: str
) -> None:
    resealed(own, change)

    with pytest.raises(BadDataset, match=why):
        promises.verify(own)


def test_sizes_that_are_not_those_of_the_splits_are_refused(own: Path) -> None:
    said = shards.facts(own)
    said["samples"]["train"] += 1
    (own / shards.DATASET).write_bytes(shards.sealed(said))

    with pytest.raises(BadDataset, match="other sizes"):
        promises.verify(own)


# -- a full or failing disk -----------------------------------------------------------------------


class Disk:
    """Fails at the n-th call that writes, and counts them."""

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int, number: int) -> None:
        self.calls, self._fail_at, self._number = 0, fail_at, number
        disk = self

        class File(io.FileIO):
            def write(self, content: Any, /) -> int:
                disk.call()
                return super().write(content) or 0

        patch.setattr(io, "FileIO", File)
        for name in ("fsync", "rename", "replace", "mkdir"):
            patch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.call()
            return real(*arguments, **named)

        return call

    def call(self) -> None:
        self.calls += 1
        if self.calls == self._fail_at:
            raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [28, 5])
@pytest.mark.parametrize("step", ["write", "exclude", "compact"])
def test_wherever_the_disk_fails_the_old_state_stays(
    own: Path, found: list[Find], step: str, number: int
) -> None:
    def work() -> None:
        if step == "write":
            freeze(own.parent / "second", found)
        elif step == "exclude":
            dataset.exclude(own, gone)
        else:
            dataset.compact(own)

    gone = keys(own)[:2]
    if step == "compact":
        dataset.exclude(own, gone)
    before = contents(own.parent)
    for fail_at in range(1, 200):
        failed, calls = fails_at(fail_at, number, work)
        assert sorted({name.split("/")[0] for name in contents(own.parent)} - {"second"}) == [
            "first"
        ]
        if contents(own.parent) != before:  # at the earliest when the very last call fails
            assert calls in (fail_at - 1, fail_at)
            whole(own.parent)
            break
        assert str(own.parent) in failed
    assert fail_at > 3
    assert step != "write" or not failed


def fails_at(count: int, number: int, work: Callable[[], object]) -> tuple[str, int]:
    """What work says when the disk fails at that call, and how many calls there were."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, count, number)
        try:
            work()
        except StorageFailed as failure:
            return str(failure), disk.calls
        return "", disk.calls


def whole(datasets: Path) -> None:
    for folder in datasets.iterdir():
        promises.verify(folder)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, found: list[Find]) -> None:
    (tmp_path / "torn.jpg").mkdir()
    torn = found[0]._replace(jpeg=tmp_path / "torn.jpg")
    with pytest.raises(StorageFailed, match=r"torn\.jpg"):
        freeze(tmp_path / "datasets" / "set", [torn, *found[1:]])

    assert os.listdir(tmp_path / "datasets") == []


def test_a_picture_taken_down_meanwhile_is_left_out(tmp_path: Path, found: list[Find]) -> None:
    gone = found[0]._replace(jpeg=tmp_path / "gone.jpg")
    freeze(tmp_path / "set", [gone, *found[1:10]])

    promises.verify(tmp_path / "set")
    assert len(keys(tmp_path / "set")) == 9
    funnel = json.loads((tmp_path / "set" / "funnel.json").read_text())
    assert {"stage": "dataset", "outcome": "taken_down", "count": 1} in funnel


def test_keys_are_digests_of_originals(frozen: Path, found: list[Find]) -> None:
    members = dict(manifest.members(frozen))

    assert members == {find.sha256: find.sha256.hex() for find in found}
    assert hashlib.sha256(b"0 0").digest() in members
