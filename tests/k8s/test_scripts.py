"""The script for a user's cluster: against a stand-in for kubectl, with a real page and server."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from clients.demo import free_port
from tests.k8s.conftest import Program
from tests.k8s.rendered import BINARIES, K8S, ROOT, SERVICES, containers, pods

SCRIPTS = [*ROOT.glob("k8s/**/*.sh"), *ROOT.glob("tests/**/*.sh"), ROOT / ".ci/run"]
STUB = Path(__file__).with_name("stub_kubectl.py")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_no_fault_with_a_script(script: Path) -> None:
    found = subprocess.run(
        [BINARIES / "shellcheck", "--enable=all", "--exclude=SC2250,SC2310,SC2311,SC2312", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def smoke(
    programs: dict[str, Program], folder: Path, **more: str
) -> "subprocess.CompletedProcess[str]":
    own = {
        "ASKED": str(folder / "asked"),
        "EMOJINET_SERVER": programs["inference"].address,
        "KUBECTL": str(STUB),
        "KUBECTL_REAL": str(BINARIES / "kubectl"),
        "PATH": f"{BINARIES}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [K8S / "smoke.sh"],
        env=os.environ | own | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_smoke_applies_waits_for_all_asks_and_says_pass(
    programs: dict[str, Program], tmp_path: Path
) -> None:
    done = smoke(programs, tmp_path, REGISTRY="registry.example/team")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS: for a photograph of a cat, ")
    asked = (tmp_path / "asked").read_text()
    for name in (*SERVICES, "web"):
        assert f"rollout status deployment/emojinet-{name} " in asked
    applied = [each for each in yaml.safe_load_all((tmp_path / "asked.yaml").read_text()) if each]
    images = {c["image"] for _, pod in pods(applied) for c in containers(pod)}
    assert len(images) == 4
    assert all(image.startswith("registry.example/team/emojinet-") for image in images)


def test_smoke_says_which_part_does_not_get_ready(
    programs: dict[str, Program], tmp_path: Path
) -> None:
    done = smoke(programs, tmp_path, BROKEN="emojinet-trainer")
    assert done.returncode == 1
    assert done.stderr.startswith("FAIL: trainer is not ready. This is how it looks:\nNAME  READY")
    assert "PASS" not in done.stdout


def test_smoke_says_why_there_is_no_suggestion(
    programs: dict[str, Program], tmp_path: Path
) -> None:
    done = smoke(programs, tmp_path, EMOJINET_SERVER=f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "FAIL: there is no suggestion: " in done.stderr
