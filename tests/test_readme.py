"""Every command of the README, run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.supervised import CRAWLER, INFERENCE, TRAINER, WEB
from clients.up import MAX_OFFSET, taken
from services.shared.photographs import installed
from services.shared.starter import probe_jpegs

pytestmark = pytest.mark.system  # they take minutes together
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MAKE = [command for command in COMMANDS if command.startswith("make ")]
ASKING = [command for command in COMMANDS if command not in MAKE]
# What commands other than those that suggest show, or write.
SHOWN = {
    "emojinet status": ("", "ready"),
    "emojinet load": ("", "good"),
    "--output emoji.csv": ("emoji.csv", "🐱"),
    "emojinet find": ("", "photos/chelsea.png"),
    "crawl rank": ("", "succeeded"),
    "crawl start": ("", "stored"),
    "dataset create": ("", "succeeded"),
    "dataset verify": ("", "is whole: "),
    "dataset export": ("", "pictures is written"),
    "dataset prescale": ("", ""),
    "atlas build": ("data/atlas/first/atlas.json", "🐱"),
    "train start": ("", "succeeded"),
    "train list": ("", "succeeded"),
    "model publish": ("", "is live"),
    "model list": ("", "quick"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, starter: Path) -> Path:
    """A folder with a photograph and a registry, where a user might stand."""
    folder = tmp_path_factory.mktemp("user")
    cat = next(path for path in installed() if path.name == "chelsea.png")
    shutil.copy(cat, folder / "photo.jpg")  # a PNG under a wrong name: that must not matter
    (folder / "photos").mkdir()
    shutil.copy(cat, folder / "photos")
    lines = ["image,text", "photo.jpg,no emoji"]
    for number, jpeg in enumerate(starter_probes()):  # cats and cups, each another part of one
        (folder / f"{number}.jpg").write_bytes(jpeg)
        lines.append(f"{number}.jpg,My #{'🐱☕'[number % 2]} at home")
    (folder / "posts.csv").write_text("\n".join(lines) + "\n")
    (folder / "data").mkdir()
    shutil.copytree(starter.parents[1], folder / "data" / "registry")
    return folder


def starter_probes() -> list[bytes]:
    """Parts of the photographs of a cat and of a cup of coffee, in turn."""
    jpegs, kinds = probe_jpegs(), len(installed())
    return [jpeg for number, jpeg in enumerate(jpegs) if number % kinds < 2]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    binaries = Path(sys.executable).parent
    return os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def offset(place: Path, environment: dict[str, str]) -> Iterator[int]:
    """What `make up` was told to add to all ports; everything runs."""
    free = next(n for n in range(1000, MAX_OFFSET, 500) if not taken(n))
    own = environment | {"EMOJINET_DATA": str(place / "data")}
    make = ["make", "-C", str(ROOT)]
    assert "make up" in MAKE
    try:
        assert "EmojiNet runs" in run([*make, "up", f"OFFSET={free}"], place, own)
        yield free
    finally:
        assert "EmojiNet has ended" in run([*make, "down"], place, own)


def run(command: list[str], place: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def moved(text: str, offset: int) -> str:
    """With the ports at which things are here."""
    for port in (INFERENCE.port, WEB.port):
        text = text.replace(str(port), str(port + offset))
    return text


@pytest.mark.parametrize("command", ASKING)
def test_a_command_of_the_readme_does_what_it_says(
    command: str, offset: int, place: Path, environment: dict[str, str]
) -> None:
    told = {
        "EMOJINET_SERVER": INFERENCE.address(offset),
        "EMOJINET_CRAWLER": CRAWLER.address(offset),
        "EMOJINET_TRAINER": TRAINER.address(offset),
    }
    program = f"set -o pipefail; {moved(command, offset)}"
    out = run(["bash", "-c", program], place, environment | told)
    for part, (file, shown) in SHOWN.items():
        if part in command:
            assert shown in ((place / file).read_text() if file else out)
            return
    assert "🐱" in out


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_of_the_readme_runs(
    block: str, offset: int, place: Path, environment: dict[str, str]
) -> None:
    out = run([sys.executable, "-c", moved(block, offset)], place, environment)
    assert "🐱 cat face" in out


def test_the_demo_names_cat_coffee_and_rocket(
    starter: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    assert "make demo" in MAKE
    shutil.copytree(starter.parents[1], tmp_path / "data" / "registry")
    out = run([sys.executable, "-m", "clients.demo"], tmp_path, environment)
    for emoji in "🐱☕🚀":
        assert emoji in out


def test_the_demo_says_why_when_the_server_does_not_start(
    place: Path, environment: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    broken = environment | {"EMOJINET_MODEL": "/no/such/model"}
    done = subprocess.run(
        [sys.executable, "-m", "clients.demo"],
        cwd=place, env=broken, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "There is no model folder /no/such/model." in done.stderr


@pytest.mark.parametrize("target", [command.split()[1] for command in MAKE])
def test_the_makefile_has_the_targets_that_the_readme_names(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("service", ["inference", "crawler", "trainer"])
def test_every_flag_of_the_server_stands_in_its_readme(service: str) -> None:
    page = (ROOT / f"services/{service}/README.md").read_text()
    done = subprocess.run(
        [sys.executable, "-m", f"services.{service}", "--help"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=True,
    )  # fmt: skip
    flags = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help", "--no-reflection"}
    flags -= {"--install-completion", "--show-completion"}
    assert flags == set(re.findall(r"`(--[a-z-]+)`", page))


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("services/*/*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"
