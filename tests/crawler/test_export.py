import csv
import io
import os
import shutil
import sys
from pathlib import Path

import lmdb
import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from PIL import Image
from rich.console import Console
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import dataset, export
from services.crawler.splits import Shares
from services.shared import header, photographs, pixels, shards, vocabulary
from services.shared.errors import (
    AlreadyExists,
    FileNotFound,
    MalformedRequest,
    NotReady,
    StorageFailed,
)
from tests.crawler.finds import VOCABULARY, finds

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of forty samples, one of which is excluded; do not write to it."""
    root = tmp_path_factory.mktemp("frozen")
    dataset.write(
        root / "set",
        finds(root / "jpeg", 40),
        vocabulary=VOCABULARY,
        funnel=[],
        rules=pb.KeepRules(),
        name="set",
        shares=Shares(0.2, 0.2),
    )
    dataset.exclude(root / "set", [next(shards.read_samples(root / "set", "train")).key])
    return root / "set"


def samples(folder: Path) -> dict[str, list[shards.Sample]]:
    return {split: list(shards.read_samples(folder, split)) for split in shards.SPLITS}


def test_torchvision_reads_the_folders(frozen: Path, tmp_path: Path) -> None:
    export.folders(frozen, tmp_path / "out")

    for split, expected in samples(frozen).items():
        read = ImageFolder(str(tmp_path / "out" / split))
        found = {(Path(path).stem, read.classes[index]) for path, index in read.samples}
        assert found == {
            (one.key, vocabulary.name(emoji).replace(" ", "_"))
            for one in expected
            for emoji in one.emoji
        }
        image, _ = read[0]
        assert min(image.size) == 24


def test_every_emoji_of_the_inventory_has_a_folder_of_its_own() -> None:
    names = {shards.folder_name(emoji.text) for emoji in vocabulary.inventory()}

    assert len(names) == 845
    assert not any("/" in name or name.startswith(".") for name in names)


def test_lmdb_has_each_picture(frozen: Path, tmp_path: Path) -> None:
    export.to_lmdb(frozen, tmp_path / "out")

    for split, expected in samples(frozen).items():
        with (
            lmdb.open(str(tmp_path / "out" / split), readonly=True) as environment,
            environment.begin() as transaction,
        ):
            found = {key.decode() for key, _ in transaction.cursor() if key.endswith(b".jpg")}
            assert found == {f"{one.key}.jpg" for one in expected}
            assert transaction.get(f"{expected[0].key}.jpg".encode()) == expected[0].jpeg


def test_without_lmdb_its_package_is_named(
    frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(NotReady, match="pip install lmdb"):
        export.to_lmdb(frozen, tmp_path / "out")


def test_csv_and_parquet_list_the_samples(frozen: Path, tmp_path: Path) -> None:
    export.to_csv(frozen, tmp_path / "index.csv")
    export.to_parquet(frozen, tmp_path / "index.parquet")

    expected = {
        one.key: (split, one.emoji) for split, ones in samples(frozen).items() for one in ones
    }
    with (tmp_path / "index.csv").open(encoding="utf-8", newline="") as file:
        lines = {row["key"]: (row["split"], row["labels"].split()) for row in csv.DictReader(file)}
    rows = pyarrow.parquet.read_table(tmp_path / "index.parquet").to_pylist()
    assert lines == expected
    assert {row["key"]: (row["split"], row["labels"]) for row in rows} == expected


@pytest.mark.parametrize("name", ["folders", "to_lmdb", "to_csv", "to_parquet"])
def test_an_export_overwrites_nothing_and_leaves_nothing_behind(
    frozen: Path, tmp_path: Path, name: str
) -> None:
    work = getattr(export, name)
    work(frozen, tmp_path / "out")
    with pytest.raises(AlreadyExists):
        work(frozen, tmp_path / "out")

    assert os.listdir(tmp_path) == ["out"]


# -- any folder -----------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of photographs, with a few things that are none."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    for number, photo in enumerate(photographs.installed()[:4]):
        shutil.copy(photo, folder / ("deep/er" if number % 2 else "."))
    Image.fromarray(np.zeros((600, 400, 3), np.uint8)).save(folder / "deep" / "same.png")
    Image.fromarray(np.zeros((600, 400, 3), np.uint8)).save(folder / "deep" / "same.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def prescale(source: Path, out: Path, edge_px: int = 128) -> tuple[int, str]:
    said = io.StringIO()
    status = export.prescale_folder(
        source, out, edge_px=edge_px, console=Console(file=said, width=200)
    )
    return status, said.getvalue()


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != export.MARK
    }


def test_a_folder_is_prescaled_with_its_structure(source: Path, tmp_path: Path) -> None:
    before = {name: (source / name).read_bytes() for name in files(source)}
    status, said = prescale(source, tmp_path / "out")

    made = files(tmp_path / "out")
    pictures = set(before) - {"broken.jpg", "notes.txt"}
    assert set(made) == {n if n.endswith(".jpg") else f"{n}.jpg" for n in pictures}
    for name in made:
        content = (tmp_path / "out" / name).read_bytes()
        found = header.read(content)
        assert found is not None
        assert (found.format, min(found.width, found.height)) == ("JPEG", 128)
    content = before["deep/same.png"]
    out = tmp_path / "out" / "deep" / "same.png.jpg"
    assert out.read_bytes() == pixels.prescale(content, edge_px=128)
    assert status == 1
    assert "broken.jpg: " in said
    assert {name: (source / name).read_bytes() for name in files(source)} == before


def test_what_is_done_is_not_done_again(source: Path, tmp_path: Path) -> None:
    prescale(source, tmp_path / "out")
    before = files(tmp_path / "out")
    (tmp_path / "out" / "deep" / "same.jpg").unlink()
    changed = tmp_path / "out" / "deep" / "same.png.jpg"
    os.utime(source / "deep" / "same.png", ns=(changed.stat().st_mtime_ns + 10**9,) * 2)
    prescale(source, tmp_path / "out")

    after = files(tmp_path / "out")
    redone = {name for name in after if after[name] != before.get(name)}
    assert redone == {"deep/same.jpg", "deep/same.png.jpg"}


def test_another_size_needs_another_folder(source: Path, tmp_path: Path) -> None:
    prescale(source, tmp_path / "out")
    with pytest.raises(MalformedRequest, match="choose another folder"):
        prescale(source, tmp_path / "out", edge_px=64)


def test_originals_are_never_overwritten(source: Path, tmp_path: Path) -> None:
    for out in (source, source / "deep", tmp_path):
        with pytest.raises(MalformedRequest, match="apart from their originals"):
            prescale(source, out)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFound, match="nowhere"):
        prescale(tmp_path / "nowhere", tmp_path / "out")


def test_a_failing_disk_ends_it_with_the_path(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").write_bytes(b"in the way")
    with pytest.raises(StorageFailed, match="deep"):
        prescale(source, tmp_path / "out")
