"""Finding the pictures of an emoji in a folder, as a program: beside torch OpenVINO would crash."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.shared import model, photographs
from services.shared.errors import UnknownEmoji, UnknownModel
from services.shared.vocabulary import Vocabulary
from services.trainer import find as finding
from tests.clients import commandline

pytestmark = pytest.mark.system  # they load models, and take half a minute

SHOWN = {path.stem: path for path in photographs.installed()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, some of them deeper down, and what may lie beside them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("coffee", "rocket", "china", "flower", "coins"):
        shutil.copy(SHOWN[name], root / "deep" / SHOWN[name].name)
    shutil.copy(SHOWN["chelsea"], root / "deep" / "er" / "chelsea.png")
    (root / "notes.txt").write_text("no picture")
    (root / "broken.jpg").write_bytes(SHOWN["flower"].read_bytes()[:2000])
    (root / "empty.png").touch()
    os.mkfifo(root / "pipe.jpg")
    (root / "loop").symlink_to(root)
    (root / ".hidden.png").write_bytes(SHOWN["chelsea"].read_bytes())
    return root


def find(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.trainer", "find", *map(str, arguments)],
        env={**commandline.clean(**environment), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("emoji", "first"), [("🐱", "chelsea.png"), ("☕", "coffee.png"), (":rocket:", "rocket.jpg")]
)
def test_what_the_emoji_shows_comes_first(
    starter: Path, folder: Path, emoji: str, first: str
) -> None:
    done = find(emoji, folder, f"--model={starter}", "--format=json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, 7))
    assert rows[0]["path"].endswith(first)
    shares = [row["probability"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert 1 >= shares[0] > 10 * shares[1]


def test_what_cannot_be_read_is_told_of_and_passed_over(starter: Path, folder: Path) -> None:
    done = find("🐱", folder, f"--model={starter}", "--top=1")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    told = {Path(line.partition(": ")[0]).name for line in done.stderr.splitlines()[:-1]}
    assert {"notes.txt", "empty.png", "pipe.jpg"} <= told
    assert "of 10 files were passed over." in done.stderr


def test_a_program_reads_it_as_csv(starter: Path, folder: Path) -> None:
    odd = folder / "deep" / b"caf\xe9, \x1b[31m.png".decode(errors="surrogateescape")
    shutil.copy(SHOWN["chelsea"], odd)
    try:
        done = find("cat face", folder, f"--model={starter}", "--format=csv", "--top=0")
        table = find("cat face", folder, f"--model={starter}")
    finally:
        odd.unlink()
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 7
    assert rows[0]["emoji"] == "🐱"
    assert rows[0]["path"].endswith(("chelsea.png", "caf\\udce9, \x1b[31m.png"))
    assert "\x1b" not in table.stdout


def test_pictures_come_in_batches_and_are_as_likely_as_alone(
    starter: Path, folder: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(2 * finding.BATCH + 3):
        os.link(folder / "deep" / "coffee.png", many / f"{number:03}.png")
    done = find("☕", many, f"--model={starter}", "--top=0", "--format=csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [Path(row["path"]).name for row in rows] == sorted(os.listdir(many))
    assert len({row["probability"][:6] for row in rows}) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["💉💉", "."], "does not know '💉💉'"),
        (["🦀", "."], "does not know '🦀'"),
        (["🐱", "/nowhere"], "There is no such file"),
        (["🐱", ".", "--model=/nowhere"], "/nowhere"),
    ],
)
def test_wrong_use_is_one_line(starter: Path, arguments: list[str], told: str) -> None:
    model_flag = [] if any("--model" in each for each in arguments) else [f"--model={starter}"]
    done = find(*arguments, *model_flag)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_emojinet_starts_it(starter: Path, folder: Path) -> None:
    done = commandline.emojinet("find", "☕", folder, f"--model={starter}", "--top=1")
    assert done.returncode == 0, done.stderr
    assert b"coffee.png" in done.stdout
    assert (
        b"--top"
        in commandline.emojinet("find", "--help").stdout
        + commandline.emojinet("find", ".", "--help").stdout
    )


def test_a_model_of_the_registry_goes_by_its_name(starter: Path) -> None:
    root = starter.parents[1]
    version = starter.name
    for named in ("", "starter", f"starter@{version}", str(starter)):
        assert finding.chosen(root, named, print).version == version
    for named in ("other", f"starter@{'0' * 12}"):
        with pytest.raises(UnknownModel, match=f"there is starter@{version}"):
            finding.chosen(root, named, print)


@pytest.mark.parametrize(
    ("asked", "known"),
    [("🐕", "🐕"), ("dog", "🐕"), (" Red Heart ", "❤️"), (":red_heart:", "❤️"), ("❤", "❤️")],
)
def test_an_emoji_goes_by_any_form_and_by_its_name(tiny: Path, asked: str, known: str) -> None:
    loaded = model.load(tiny)
    assert loaded.vocabulary.emoji[finding.output(loaded, asked)] == known


@pytest.mark.parametrize(
    ("asked", "near"), [("🐶", "🐕 dog"), ("🚙", "🚗 automobile"), ("piza", "🍕 pizza")]
)
def test_of_an_emoji_that_is_not_known_the_nearest_is_named(
    tiny: Path, asked: str, near: str
) -> None:
    with pytest.raises(UnknownEmoji, match=f"It knows {near}"):
        finding.output(model.load(tiny), asked)


def test_nothing_is_near_to_nonsense() -> None:
    assert finding.nearest(Vocabulary(("🍕",), (1,)), "qqqq", "qqqq") == []
