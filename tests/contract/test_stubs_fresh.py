import subprocess
import sys
from pathlib import Path

import google.rpc
import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted(path.relative_to(ROOT / "protos") for path in ROOT.glob("protos/**/*.proto"))
MADE = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stubs that `make protos` would write now."""
    folder, googleapis = tmp_path_factory.mktemp("fresh"), tmp_path_factory.mktemp("googleapis")
    # Alone: the others of its kind there would shadow those that protoc brings.
    package = Path(google.rpc.__path__[0])
    (googleapis / "google" / "rpc").mkdir(parents=True)
    (googleapis / "google" / "rpc" / "status.proto").symlink_to(package / "status.proto")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{googleapis}", *outputs]
    subprocess.run([*command, *map(str, PROTOS)], cwd=ROOT / "protos", check=True)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for pattern in MADE
        for path in folder.rglob(pattern)
    }


def test_there_are_protos() -> None:
    assert Path("emojinet/v1/inference_service.proto") in PROTOS


def test_every_committed_stub_is_what_protoc_makes_of_its_proto(fresh: Path) -> None:
    committed, made = contents(ROOT / "protos"), contents(fresh)
    stale = [name for name in made if committed.get(name) != made[name]]
    assert stale == [], "run `make protos`"


def test_no_stub_outlives_its_proto(fresh: Path) -> None:
    assert contents(ROOT / "protos").keys() == contents(fresh).keys()
