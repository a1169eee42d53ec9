import asyncio
from pathlib import Path

import pytest

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Event, Post
from services.crawler.sources import Plan
from services.crawler.sources.imported import ImportedSource
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


def test_posts_name_photographs_by_path_where_they_lie_and_by_url_elsewhere(
    tmp_path: Path,
) -> None:
    lying = next(p for p in photos.photos() if p.label == "Banana")
    (tmp_path / lying.path).parent.mkdir(parents=True)
    (tmp_path / lying.path).touch()

    posts = {name: (image, emoji) for image, emoji, name in photos.posts(tmp_path)}

    assert posts.pop(lying.path) == (str(tmp_path / lying.path), "🍌")
    assert posts
    assert all(image.startswith("https://") for image, _ in posts.values())


def test_posts_teach_nothing_that_may_only_be_judged_on(tmp_path: Path) -> None:
    barred = next(
        photo
        for photo in photos.photos()
        if photo.licence.endswith(photos.JUDGE_ONLY) and photos.labels()[photo.label].emoji
    )
    (tmp_path / barred.path).parent.mkdir(parents=True)
    (tmp_path / barred.path).touch()

    assert barred.path not in {name for _, _, name in photos.posts(tmp_path)}


def test_the_crawler_reads_every_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "posts.csv"
    monkeypatch.setattr("sys.argv", ["photos", "--posts", str(table)])
    photos.main()

    async def read() -> list[Event]:
        plan = Plan(emoji=(), wanted=lambda emoji: True)
        source = ImportedSource(pb.ImportSource(path=str(table)))
        return [event async for page in source.pages("", plan) for event in page.events]

    events = asyncio.run(read())
    assert len(events) == len(list(photos.posts()))
    assert all(isinstance(event, Post) and event.labels for event in events)
