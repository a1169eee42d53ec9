"""The plain install is the client: small, and without what only servers need."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.shared import photographs

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "torch", "openvino", "pillow", "prometheus_client"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with EmojiNet and no extra."""
    return installed(tmp_path_factory.mktemp("plain") / "venv", str(ROOT))


def installed(folder: Path, what: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), what], check=True)
    return folder / "bin"


def run(plain: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [plain / command[0], *command[1:]], capture_output=True, text=True, cwd=plain, check=False
    )


def test_the_plain_install_has_the_client_and_nothing_heavy(plain: Path) -> None:
    listed = run(plain, "pip", "list", "--format=freeze").stdout.lower()
    assert not {line.split("==")[0] for line in listed.splitlines()} & HEAVY
    for command in (["--help"], ["suggest", "--help"], ["load", "--help"]):
        assert run(plain, "emojinet", *command).returncode == 0


def test_without_a_server_it_says_how_to_start_one(plain: Path) -> None:
    done = run(plain, "emojinet", "suggest", __file__, "--server=127.0.0.1:1", "--timeout=2")
    assert done.returncode == 1
    assert "python -m services.inference" in done.stderr


def test_what_needs_an_extra_names_it(plain: Path) -> None:
    done = run(plain, "emojinet", "suggest", __file__, "--local")
    assert done.returncode == 2
    assert "emojinet[trainer]" in done.stderr


def test_the_crawlers_extra_is_all_that_the_crawler_needs(tmp_path: Path) -> None:
    crawler = installed(tmp_path / "venv", f"{ROOT}[crawler]")
    listed = run(crawler, "pip", "list", "--format=freeze").stdout.lower()
    names = {line.split("==")[0] for line in listed.splitlines()}
    assert not names & {"torch", "openvino", "safetensors", "timm"}
    for command in (["--help"], ["check", "--help"], ["prescale", "--help"]):
        assert run(crawler, "python", "-m", "services.crawler", *command).returncode == 0
    picture = next(path for path in photographs.installed() if path.suffix == ".jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy(picture, tmp_path / "photos")
    flags = [str(tmp_path / "photos"), f"--output={tmp_path / 'small'}"]
    done = run(crawler, "python", "-m", "services.crawler", "prescale", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small" / picture.name).exists()
