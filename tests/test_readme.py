"""Every command of the README, run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from clients.demo import free_port, is_ready
from services.shared.photographs import installed
from services.shared.starter import probe_jpegs

pytestmark = pytest.mark.system  # they take minutes together
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MAKE = [command for command in COMMANDS if command.startswith("make ")]
SERVERS = [command for command in COMMANDS if command.endswith("&")]
ASKING = [command for command in COMMANDS if command not in MAKE + SERVERS]
# What commands other than those that suggest show, or write.
SHOWN = {
    "emojinet load": ("", "good"),
    "--output emoji.csv": ("emoji.csv", "🐱"),
    "crawl rank": ("", "succeeded"),
    "crawl start": ("", "stored"),
    "dataset create": ("", "succeeded"),
    "dataset verify": ("", "is whole: "),
    "dataset export": ("", "pictures is written"),
    "dataset prescale": ("", ""),
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
def ports(place: Path, environment: dict[str, str]) -> Iterator[dict[str, int]]:
    """Of the servers that the README starts, by their usual ports."""
    chosen = {usual: free_port() for usual in ("50051", "50052", "50053")}
    with ExitStack() as stack:
        for command, port in zip(SERVERS, chosen.values(), strict=True):
            stack.enter_context(started(command, port, place, environment))
        yield chosen


@contextmanager
def started(command: str, port: int, place: Path, environment: dict[str, str]) -> Iterator[None]:
    flags = f"--port={port} --metrics-port={free_port()}"
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command.rstrip('& ')} {flags}"],
        cwd=place,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert is_ready(f"127.0.0.1:{port}", server)
        yield
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(40)
        server.kill()


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


@pytest.mark.parametrize("command", ASKING)
def test_a_command_of_the_readme_does_what_it_says(
    command: str, ports: dict[str, int], place: Path, environment: dict[str, str]
) -> None:
    inference, crawler, trainer = ports.values()
    command = command.replace("50051", str(inference))
    told = {
        "EMOJINET_SERVER": f"127.0.0.1:{inference}",
        "EMOJINET_CRAWLER": f"127.0.0.1:{crawler}",
        "EMOJINET_TRAINER": f"127.0.0.1:{trainer}",
    }
    out = run(["bash", "-c", f"set -o pipefail; {command}"], place, environment | told)
    for part, (file, shown) in SHOWN.items():
        if part in command:
            assert shown in ((place / file).read_text() if file else out)
            return
    assert "🐱" in out


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_of_the_readme_runs(
    block: str, ports: dict[str, int], place: Path, environment: dict[str, str]
) -> None:
    block = block.replace("50051", str(ports["50051"]))
    out = run([sys.executable, "-c", block], place, environment)
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
