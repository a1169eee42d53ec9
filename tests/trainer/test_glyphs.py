import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.shared import pixels, shards
from services.shared.errors import AlreadyExists, NotReady
from services.shared.vocabulary import inventory
from services.trainer import drawings, glyphs, samples

COLOURS = {
    "noto": (200, 30, 30),
    "twemoji": (30, 200, 30),
    "fluent": (30, 30, 200),
    "emojione": (180, 180, 30),
}
LAST = "emojione"  # what is chosen is known once all have drawn
COUNT, VIEWS = 20, 2


def path_of(folder: Path, vendor: str, emoji: str) -> Path:
    points = "-".join(f"{ord(character):x}" for character in emoji if character != "\ufe0f")
    return folder / vendor / f"{points}.png"


def draw(path: Path, colour: tuple[int, int, int], spot: int = 0) -> None:
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((*colour, 255), (2, 2, 14, 14))
    picture.paste((0, 0, 10 * spot, 255), (3, 3, 6, 6))
    path.unlink(missing_ok=True)
    picture.save(path)


@pytest.fixture
def drawn(tmp_path: Path) -> Iterator[Path]:
    """Every vendor draws everything in its own colour; what the tests write also differs."""
    folder = tmp_path / "drawings"
    for vendor, colour in COLOURS.items():
        (folder / vendor).mkdir(parents=True)
        draw(tmp_path / "any.png", colour)
        for emoji in inventory():
            os.link(tmp_path / "any.png", path_of(folder, vendor, emoji.text))
        for spot, text in enumerate(glyphs.chosen(folder)[:COUNT] if vendor == LAST else ()):
            for each, its in COLOURS.items():
                draw(path_of(folder, each, text), its, spot)
    yield folder
    glyphs.chosen.cache_clear()


def write(out: Path, drawn: Path) -> Path:
    glyphs.write(out, "twemoji", views=VIEWS, folder=drawn, count=COUNT)
    return out


def contents(folder: Path) -> set[tuple[str, str]]:
    return {
        (str(path.parent.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*.jpg")
    }


def test_the_500_are_spread_over_all_that_every_vendor_draws(drawn: Path) -> None:
    every = [emoji.text for emoji in inventory() if emoji.subgroup != glyphs.NOT_DRAWN]
    path_of(drawn, "fluent", every[0]).unlink()
    glyphs.chosen.cache_clear()
    chosen = glyphs.chosen(drawn)
    assert every[0] not in chosen
    assert len(set(chosen)) == len(chosen) == glyphs.EMOJI
    places = [every.index(emoji) for emoji in chosen]
    assert set(np.diff(places)) <= {1, 2}
    assert places[-1] >= len(every) - 2


def test_too_few_drawings_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="make drawings"):
        glyphs.chosen(tmp_path)
    glyphs.chosen.cache_clear()


def test_it_is_a_data_set_of_its_splits(drawn: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out", drawn)
    known = samples.vocabulary(out)
    lengths = {split: len(samples.opened(out, split, known).keys) for split in shards.SPLITS}
    assert len(known) == COUNT
    assert lengths == {
        "train": (len(COLOURS) - 1) * COUNT * VIEWS,
        "validation": COUNT,
        "test": COUNT,
    }


def test_the_test_is_the_vendor_that_was_left_out(drawn: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out", drawn)
    for path in (out / "test").rglob("*.jpg"):
        picture_HW3 = pixels.decode(path.read_bytes())
        edge = len(picture_HW3)
        assert np.abs(picture_HW3[edge // 2, edge // 2].astype(int) - COLOURS["twemoji"]).max() < 6
        assert (picture_HW3[0] == 255).all()


def test_nothing_is_learned_from_the_vendor_that_was_left_out(drawn: Path, tmp_path: Path) -> None:
    before = write(tmp_path / "before", drawn)
    for emoji in glyphs.chosen(drawn)[:COUNT]:
        draw(path_of(drawn, "twemoji", emoji), (0, 0, 0))
    after = write(tmp_path / "after", drawn)
    assert contents(before / "train") == contents(after / "train")
    assert contents(before / "validation") == contents(after / "validation")
    assert contents(before / "test") != contents(after / "test")


def test_a_drawing_validates_as_it_is_never_learned(drawn: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out", drawn)
    learned = {digest for _, digest in contents(out / "train")}
    asked = {digest for _, digest in contents(out / "test")}
    strange = {digest for _, digest in contents(out / "validation")}
    assert len(strange) == COUNT
    assert strange.isdisjoint(learned | asked)


def test_the_same_drawings_make_the_same_views_and_all_views_differ(
    drawn: Path, tmp_path: Path
) -> None:
    one, other = (write(tmp_path / name, drawn) for name in ("one", "other"))
    assert contents(one) == contents(other)
    assert len(contents(one / "train")) == (len(COLOURS) - 1) * COUNT * VIEWS


def test_a_folder_that_is_there_stays_as_it_is(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(AlreadyExists):
        write(tmp_path / "out", drawn)
    assert not list((tmp_path / "out").iterdir())


def test_every_vendor_that_is_fetched_is_judged_in_turn() -> None:
    assert {vendor.name for vendor in drawings.VENDORS} == set(COLOURS)
