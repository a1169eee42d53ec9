from pathlib import Path

import pytest

from services.shared import extras
from services.shared.vocabulary import inventory
from services.trainer import lessons, photos


def test_every_photograph_has_a_known_label_and_a_part() -> None:
    assert {photo.label for photo in photos.photos()} <= set(photos.labels())
    assert {photo.part for photo in photos.photos()} == {"train", "val", "test"}


def test_no_photograph_is_in_two_places() -> None:
    paths = [photo.path for photo in photos.photos()]

    assert len(set(paths)) == len(paths)


def test_no_photograph_is_both_learned_from_and_judged_on() -> None:
    parts = {
        part: {photo.sha256 for photo in photos.photos() if photo.part == part}
        for part in ("train", "val", "test")
    }

    assert not parts["train"] & parts["test"]
    assert not parts["val"] & parts["test"]


def test_what_may_only_be_judged_on_is_only_judged_on() -> None:
    parts = {p.part for p in photos.photos() if p.licence.endswith("for evaluation only")}

    assert parts == {"test"}


def test_every_label_means_emoji_of_the_inventory_and_a_reviewed_class() -> None:
    known, classes = {e.text for e in inventory()}, {row.name for row in extras.load()}
    for label in photos.labels().values():
        assert known.issuperset(label.emoji), label
        assert label.name in classes | {""}, label


def test_every_reviewed_class_has_something_to_learn_from() -> None:
    labels = photos.labels()
    taught = {labels[photo.label].name for photo in photos.photos() if photo.part == "train"}

    assert {row.name for row in extras.load()} == (
        taught - {""} | set(lessons.HANDS) | {extras.NOTHING}
    )


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("npm:@a/b@1.0/package/x.jpg", "npm:@a/b@1.0"),
        ("debian:some-data=1:2-3/usr/share/x.rcc!a/b.webp", "debian:some-data=1:2-3"),
        ("wheel:foolbox==3.3.4/foolbox/x.jpg", "wheel:foolbox==3.3.4"),
        ("https://host/owner/repository/commit/x.jpg", "https://host/owner/repository/commit"),
    ],
)
def test_a_photograph_says_where_it_is_from(url: str, origin: str) -> None:
    assert photos.Photo(url, "", "", "", "", "").origin == origin


def test_a_photograph_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    photo = photos.Photo("", "", "", "", "a/b.jpg", "test")
    (tmp_path / "two/a").mkdir(parents=True)
    (tmp_path / "two/a/b.jpg").touch()

    assert photos.found(photo, [tmp_path / "one"]) is None
    assert photos.found(photo, [tmp_path / "one", tmp_path / "two"]) == tmp_path / "two/a/b.jpg"
