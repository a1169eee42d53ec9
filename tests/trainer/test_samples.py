import hashlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.crawler import dataset as crawled
from services.crawler import export
from services.shared import pixels, shards
from services.shared.errors import BadDataset, UnknownDataset
from services.shared.vocabulary import Vocabulary
from services.trainer import samples
from tests.crawler.finds import VOCABULARY
from tests.trainer.freezing import freeze

JPEG = b"as far as samples care"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of forty samples; do not write to it."""
    return freeze(tmp_path_factory.mktemp("frozen"))


@pytest.fixture
def own(frozen: Path, tmp_path: Path) -> Path:
    """The same, to write to."""
    shutil.copytree(frozen, tmp_path / "set")
    return tmp_path / "set"


def contents(found: samples.Samples) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    return {key: (found.read(n), found.classes[n]) for n, key in enumerate(found.keys)}


def stored(folder: Path, split: str) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    places = {emoji: index for index, emoji in enumerate(VOCABULARY.emoji)}
    return {
        one.key: (one.jpeg, tuple(sorted(places[emoji] for emoji in one.emoji)))
        for one in shards.read_samples(folder, split)
    }


def test_a_version_is_read_by_number_from_any_thread(frozen: Path) -> None:
    for split in shards.SPLITS:
        found = samples.opened(frozen, split, VOCABULARY)
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(found.read, [*range(len(found.keys))] * 20))

        assert contents(found) == stored(frozen, split)
        assert read == [found.read(n) for n in range(len(found.keys))] * 20


def test_no_more_shards_are_open_than_allowed(
    frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "OPEN_SHARDS", 2)
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 3)
    folder = freeze(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    found = samples.opened(folder, "train", VOCABULARY)

    assert contents(found) == stored(folder, "train")
    assert len(list((folder / "shards").glob("train-*"))) > 4
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    del found
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_exported_folder_has_the_same_samples(frozen: Path, tmp_path: Path) -> None:
    export.folders(frozen, tmp_path / "out")

    for split in shards.SPLITS:
        assert contents(samples.opened(tmp_path / "out", split, VOCABULARY)) == stored(
            frozen, split
        )
    assert {*samples.vocabulary(tmp_path / "out").emoji} == {*VOCABULARY.emoji}


def picture(folder: Path, name: str, seed: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(JPEG + b"%d" % seed)
    return path


def test_a_folder_without_splits_is_split_by_its_pictures(tmp_path: Path) -> None:
    for number in range(200):
        picture(tmp_path, f"red_heart/{number}.jpg", number)
        picture(tmp_path, f"🍕/{number}.JPEG", 1000 + number)
    picture(tmp_path, "🍕/the-first-heart-again.jpg", 0)
    (tmp_path / "🍕" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    vocabulary = samples.vocabulary(tmp_path)
    found = {split: samples.opened(tmp_path, split, vocabulary) for split in shards.SPLITS}
    counts = {split: len(each.keys) for split, each in found.items()}

    assert sum(counts.values()) == 400
    assert 300 < counts["train"] < 340
    assert {*vocabulary.emoji} == {"❤️", "🍕"}
    assert sum(vocabulary.counts) in (counts["train"], counts["train"] + 1)
    both = hashlib.sha256(JPEG + b"0").hexdigest()
    own = [each.classes[n] for each in found.values() for n, k in enumerate(each.keys) if k == both]
    assert own == [(0, 1)]


def test_of_another_vocabulary_only_its_emoji_count(frozen: Path) -> None:
    vocabulary = Vocabulary(("🚗", "🍕"), (0, 0))
    found = samples.opened(frozen, "train", vocabulary)

    assert {*found.classes} <= {(0,), (1,), (0, 1)}
    assert len(found.keys) == sum(
        bool({"🚗", "🍕"} & {*one.emoji}) for one in shards.read_samples(frozen, "train")
    )


def test_what_is_taken_down_is_not_there_and_is_noticed_later(own: Path) -> None:
    first, second, *_ = samples.opened(own, "train", VOCABULARY).keys
    crawled.exclude(own, [first])
    found = samples.opened(own, "train", VOCABULARY)

    assert isinstance(found, samples.Shards)
    assert first not in found.keys
    assert found.taken_down() is None
    crawled.exclude(own, [second])
    assert found.taken_down() == frozenset((first, second))
    assert found.taken_down() is None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncate(folder: Path) -> None:
    os.truncate(folder / "shards" / "train-000000.tar", 10_000)


def flip(folder: Path) -> None:
    path = folder / "shards" / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def alter(folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"name": "set"', '"name": "sex"'))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove("shards/train-000000.tar"), "train-000000.tar"),
        (remove("excluded.txt"), "excluded.txt"),
        (remove("dataset.json"), "not frozen to the end"),
        (truncate, "train-000000.tar"),
        (flip, "train-000000.tar"),
        (alter, "digest"),
    ],
)
def test_verifying_names_what_is_damaged(
    own: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(own)

    with pytest.raises(BadDataset, match=named) as raised:
        samples.verify(own)
    assert "\n" not in str(raised.value)


def test_verifying_tells_how_far_it_is_and_returns_the_digest(frozen: Path) -> None:
    told: list[tuple[int, int]] = []
    digest = samples.verify(frozen, lambda *progress: told.append(progress))

    assert digest == json.loads((frozen / "dataset.json").read_text())["digest"]
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0


def test_a_folders_digest_follows_its_pictures(tmp_path: Path) -> None:
    path = picture(tmp_path, "red_heart/1.jpg", 1)
    before = samples.verify(tmp_path)
    path.write_bytes(JPEG)

    assert samples.verify(tmp_path) != before


def test_a_shard_cut_short_while_it_is_in_use_is_a_bad_data_set(own: Path) -> None:
    found = samples.opened(own, "train", VOCABULARY)
    truncate(own)

    with pytest.raises(BadDataset, match=r"train-000000\.tar"):
        found.read(len(found.keys) - 1)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        ([], UnknownDataset, "no data set"),
        (["notes.txt"], BadDataset, "such as red_heart/1.jpg"),
        (["red_hart/1.jpg"], BadDataset, "is it red_heart?"),
        (["empty/"], BadDataset, "named after no emoji"),
        (["test/red_heart/1.jpg"], BadDataset, "'train'"),
        (["shards/train-000000.tar"], BadDataset, "not frozen to the end"),
    ],
)
def test_what_no_training_can_start_from_is_said_in_a_line(
    tmp_path: Path, made: list[str], error: type[Exception], message: str
) -> None:
    for name in made:
        if name.endswith("/"):
            (tmp_path / "set" / name).mkdir(parents=True)
        else:
            picture(tmp_path / "set", name, 0)

    with pytest.raises(error) as raised:
        samples.opened(tmp_path / "set", "train", Vocabulary(("🍕", "❤️"), (0, 0)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_picture_larger_than_allowed_is_not_read_whole(tmp_path: Path) -> None:
    path = picture(tmp_path, "train/red_heart/1.jpg", 0)
    os.truncate(path, 1 << 30)
    os.rename(path, path.with_name(f"{'0' * 64}.jpg"))
    found = samples.opened(tmp_path, "train", Vocabulary(("❤️",), (0,)))

    assert len(found.read(0)) == pixels.MAX_BYTES + 1


def test_many_keys_take_little_memory() -> None:
    tracemalloc.start()
    keys = samples.Keys()
    for number in range(20_000):
        keys.append(f"{number:064x}")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 20_000 * 40
    assert (keys[0], keys[-1]) == ("0" * 64, f"{19_999:064x}")
    assert keys[1:3] == [f"{1:064x}", f"{2:064x}"]
    assert f"{5:064x}" in keys
    with pytest.raises(IndexError):
        keys[20_000]
    with pytest.raises(ValueError, match="no sha256"):
        keys.append("no key")
