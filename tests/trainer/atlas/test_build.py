"""Atlases of small data sets, from end to end, and what is told of those that lack something."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from PIL import Image

from services.crawler.dataset import Find
from services.shared import photographs, shards
from services.shared.errors import BadDataset, MalformedRequest, UnknownDataset, UnknownModel
from services.trainer import faces
from services.trainer.atlas import build, tables
from tests.trainer.atlas.making import EMOJI, atlas, find, frozen

pytestmark = pytest.mark.system  # they take a minute together


def some(root: Path, count: int = 60, authors: int = 30, **more: object) -> list[Find]:
    return [
        find(
            root / "jpeg",
            number,
            [EMOJI[number % 4]],
            author=f"author {number % authors}" if authors else "",
            words=["tattoo"] if number % 12 == 0 else ["word"],
            segment=("brand", "category")[number % 2],
            **more,  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


def test_a_data_set_becomes_a_page_and_tables_that_agree(tmp_path: Path, starter: Path) -> None:
    said = atlas(
        frozen(tmp_path, some(tmp_path, seconds=1.4e9)),
        tmp_path,
        starter,
        compare="segment=brand,category",
    )
    folder = tmp_path / "atlas"
    assert (said["pictures"], said["posts"], said["authors"]) == (60, 60, 30)
    assert [row["emoji"] for row in said["emoji"]] == list(EMOJI)
    with (folder / "emoji.csv").open(encoding="utf-8", newline="") as file:
        assert [row["emoji"] for row in csv.DictReader(file)] == list(EMOJI)
    for name in tables.COLUMNS:
        assert pq.read_table(folder / f"{name}.parquet").to_pylist() == said[name]
    page = (folder / "atlas.html").read_text()
    assert "https://posts.example/1" in page
    assert "brand beside category" in page


def test_the_same_data_set_gives_the_same_bytes(tmp_path: Path, starter: Path) -> None:
    path = frozen(tmp_path, some(tmp_path))
    files = ("atlas.html", "atlas.json", "emoji.csv", "emoji.parquet", "signs.parquet")
    atlas(path, tmp_path, starter)
    first = [(tmp_path / "atlas" / name).read_bytes() for name in files]
    shutil.rmtree(tmp_path / "data")  # looked at again
    atlas(path, tmp_path, starter)
    assert [(tmp_path / "atlas" / name).read_bytes() for name in files] == first


def test_what_was_taken_down_is_left_out_and_counted(tmp_path: Path, starter: Path) -> None:
    path = frozen(tmp_path, some(tmp_path))
    gone = next(shards.read_samples(path, "train")).key
    shards.write_excluded(path, [gone])
    said = atlas(path, tmp_path, starter)
    assert (said["pictures"], said["posts"], said["removed"]) == (59, 59, 1)
    assert any("taken down" in limit for limit in said["limits"])


def test_only_what_changed_is_looked_at_again(tmp_path: Path, starter: Path) -> None:
    path = frozen(tmp_path, some(tmp_path))
    atlas(path, tmp_path, starter)
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*.npy")}
    atlas(path, tmp_path, starter)
    again = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*.npy")}
    assert kept == again


def test_a_picture_that_cannot_be_read_is_counted(tmp_path: Path, starter: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, photograph in enumerate(photographs.installed()[:6]):
        shutil.copy(photograph, tmp_path / "pictures" / f"{number}{photograph.suffix}")
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    said = atlas(tmp_path / "pictures", tmp_path, starter)
    assert (said["pictures"], said["unreadable"]) == (7, 1)


def test_a_bare_folder_tells_what_a_model_sees_and_no_meaning(
    tmp_path: Path, starter: Path
) -> None:
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for photograph in photographs.installed():
        shutil.copy(photograph, tmp_path / "pictures" / "deep" / photograph.name)
    said = atlas(tmp_path / "pictures", tmp_path, starter)
    assert said["kind"] == "pictures"
    assert said["model"].startswith("starter@")
    assert {"☕", "🚀"} & {row["emoji"] for row in said["emoji"]}
    assert not any(row["flagged"] or row["judged"] for row in said["emoji"])
    assert any("without posts" in limit for limit in said["limits"])


def test_tables_have_their_columns_also_where_nothing_was_found(
    tmp_path: Path, starter: Path
) -> None:
    said = atlas(frozen(tmp_path, some(tmp_path)), tmp_path, starter)
    folder = tmp_path / "atlas"
    assert said["drift"] == []
    assert (folder / "drift.csv").read_text() == "emoji,date,sign,before,after,p_value\n"
    assert pq.read_table(folder / "drift.parquet").schema == tables.COLUMNS["drift"]


def test_faces_are_blurred_or_their_pictures_left_out(tmp_path: Path, starter: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for photograph in photographs.installed():
        shutil.copy(photograph, tmp_path / "pictures" / photograph.name)
    pages, hidden = {}, {}
    for how in faces.HOW:
        said = atlas(tmp_path / "pictures", tmp_path, starter, faces=how)
        pages[how] = (tmp_path / "atlas" / "atlas.html").read_bytes()
        hidden[how] = [limit for limit in said["limits"] if "faces that were to be drop" in limit]
    assert pages["keep"] != pages["blur"]
    assert hidden["keep"] == hidden["blur"] == []
    (limit,) = hidden["drop"]
    assert limit.startswith("Not shown are 3 of the pictures")  # of the three people


def test_a_folder_of_emoji_names_has_pictures_and_no_words(tmp_path: Path, starter: Path) -> None:
    for emoji, name in (("pizza", "a"), ("dog_face", "b")):
        (tmp_path / "pictures" / emoji).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            file = tmp_path / "pictures" / emoji / f"{name}{number}.png"
            Image.fromarray(noise + number).save(file)
    said = atlas(tmp_path / "pictures", tmp_path, starter)
    assert said["kind"] == "folder"
    assert {row["emoji"] for row in said["emoji"]} == {"🍕", "🐶"}
    assert any("no words, authors or times" in limit for limit in said["limits"])


@pytest.mark.parametrize(
    ("authors", "expected"), [(0, "No author is known"), (1, "All posts are of 1 author:")]
)
def test_too_few_authors_are_said(
    authors: int, expected: str, tmp_path: Path, starter: Path
) -> None:
    said = atlas(frozen(tmp_path, some(tmp_path, authors=authors)), tmp_path, starter)
    assert any(limit.startswith(expected) for limit in said["limits"])
    assert not any(row["flagged"] for row in said["emoji"])


def test_posts_without_times_are_said(tmp_path: Path, starter: Path) -> None:
    said = atlas(frozen(tmp_path, some(tmp_path)), tmp_path, starter)
    assert any("No post has a time" in limit for limit in said["limits"])


def test_an_emoji_of_three_pictures_is_said(tmp_path: Path, starter: Path) -> None:
    more = [find(tmp_path / "jpeg", 900 + n, ["⚽"], author=f"a {n}") for n in range(3)]
    path = frozen(tmp_path, [*some(tmp_path), *more], (*EMOJI, "⚽"))
    said = atlas(path, tmp_path, starter)
    assert any("fewer than 4 pictures" in limit and "⚽" in limit for limit in said["limits"])


def test_an_empty_data_set_is_refused_in_one_line(tmp_path: Path, starter: Path) -> None:
    with pytest.raises(BadDataset, match="no picture that is left"):
        atlas(frozen(tmp_path, []), tmp_path, starter)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadDataset, match="has no pictures"):
        atlas(tmp_path / "nothing", tmp_path, starter)
    with pytest.raises(UnknownDataset):
        atlas(tmp_path / "nowhere", tmp_path, starter)


def test_what_cannot_be_done_is_said_at_once(tmp_path: Path, starter: Path) -> None:
    path = frozen(tmp_path, some(tmp_path, 8))
    with pytest.raises(UnknownModel, match="emojinet model list"):
        atlas(path, tmp_path, starter, model="unheard-of")
    with pytest.raises(MalformedRequest, match="faces"):
        atlas(path, tmp_path, starter, faces="melt")
    with pytest.raises(MalformedRequest, match="There are: brand, category"):
        atlas(path, tmp_path, starter, compare="segment=a,b")


@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "data:text/html,x", "at://x", "//posts.example", "https://", "x\n", ""],
)
def test_only_the_web_is_linked_to(uri: str) -> None:
    assert build.web_address(uri) == ""


def test_no_request_can_leave_the_page(tmp_path: Path, starter: Path) -> None:
    atlas(frozen(tmp_path, some(tmp_path)), tmp_path, starter)
    page = (tmp_path / "atlas" / "atlas.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'; base-uri 'none'", policy[1])
    assert not re.search(r"<(link|iframe|object|embed|form|img|base)\b", page)
