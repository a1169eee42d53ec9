"""Who may import whom, and how large things may grow: DESIGN.md section 3."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SERVICES = ("crawler", "inference", "trainer")
OURS = {"services", "clients", "emojinet", "tests"}
HEAVY = {"torch", "torchvision", "timm"}
# The design aims at 8,000 lines for everything, and at 35 packages; what is above it must not grow
# with the steps to come faster than they need.
MAX_LINES, MAX_FILE_LINES, MAX_FUNCTION_LINES = 34_000, 500, 60
MAX_PLAIN_DEPENDENCIES, MAX_DEPENDENCIES = 8, 44
DRAWERS = ("util", "helper", "common", "misc", "manager")


def python(*folders: str) -> list[Path]:
    """The Python files below these folders."""
    return sorted(chain.from_iterable((ROOT / folder).rglob("*.py") for folder in folders))


def named(path: Path) -> str:
    """The module's name, as the path is the import."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def walked(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    """The nodes that are run at import, or all; none that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from walked(child, everywhere=everywhere)


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """What a file imports; `from a import b` is `a.b`, which may be a module or a name in one."""
    found = set()
    for node in walked(ast.parse(path.read_text()), everywhere=everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in OURS}


def wrong(folder: str, *allowed: str) -> list[str]:
    """The imports of our own below the folder that lead elsewhere than allowed."""
    return [
        f"{named(path)} -> {name}"
        for path in python(folder)
        for name in sorted(ours(path))
        if not f"{name}.".startswith(tuple(f"{prefix}." for prefix in allowed))
    ]


def loaded(modules: list[str]) -> set[str]:
    """The top-level packages that a process has loaded after it imported the modules."""
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_other(service: str) -> None:
    home = f"services/{service}"
    assert python(home)
    assert wrong(home, f"services.{service}", "services.shared", "emojinet.v1") == []


def test_what_is_shared_imports_no_service_and_no_client() -> None:
    assert wrong("services/shared", "services.shared", "emojinet.v1") == []


def test_clients_import_the_contract_and_what_is_shared() -> None:
    assert wrong("clients", "clients", "services.shared", "emojinet.v1") == []


def test_the_contract_imports_nothing_of_ours() -> None:
    assert wrong("protos", "emojinet.v1") == []


def test_there_is_no_other_service() -> None:
    rooms = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}
    assert rooms - {"__pycache__"} == {*SERVICES, "shared"}


def test_of_what_is_shared_only_the_network_imports_torch() -> None:
    who = [
        path.name
        for path in python("services/shared")
        if HEAVY & {name.split(".")[0] for name in imports(path, everywhere=True)}
    ]
    assert who == ["network.py"]


def test_who_needs_no_network_runs_without_torch() -> None:
    shared = [path for path in python("services/shared") if path.stem != "network"]
    without = [
        named(path)
        for path in shared
        if "services.shared.network" not in imports(path, everywhere=False)
    ]
    assert len(without) >= len(shared) - 1
    assert not HEAVY & loaded(without)


@pytest.mark.parametrize("service", ["crawler", "inference"])
def test_neither_crawler_nor_the_process_that_answers_loads_torch(service: str) -> None:
    modules = [
        named(path) for path in python(f"services/{service}") if path.parent.name != "backends"
    ]
    assert not HEAVY & loaded(modules)


def test_the_plain_client_starts_without_what_only_a_server_needs() -> None:
    extras = {"torch", "openvino", "numpy", "PIL", "pyarrow", "matplotlib", "prometheus_client"}
    assert not extras & loaded(["clients.cli", "clients.client"])


def test_nothing_is_a_drawer() -> None:
    names = {named(path).lower() for path in python("services", "clients", "tests")}
    assert [name for name in names if any(word in name for word in DRAWERS)] == []


def test_no_class_is_a_manager() -> None:
    classes = [
        node.name
        for path in python("services", "clients")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name in classes if name.endswith(("Manager", "Helper", "Util", "Utils"))] == []


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{named(path)}.{node.name}"
        for path in python("services", "clients")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_files_of_services_and_clients_stay_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in python("services", "clients")}
    assert [path for path, count in lines.items() if count > MAX_FILE_LINES] == []
    assert 1_000 < sum(lines.values()) < MAX_LINES


def test_dependencies_stay_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plain = {Requirement(line).name for line in project["dependencies"]}
    extras = {
        Requirement(line).name
        for extra, lines in project["optional-dependencies"].items()
        if extra not in ("dev", "fuzz")  # which no program of ours runs with
        for line in lines
    }
    assert len(plain) <= MAX_PLAIN_DEPENDENCIES
    assert len((plain | extras) - {"emojinet"}) <= MAX_DEPENDENCIES


def calls(path: Path) -> Iterator[ast.Call]:
    return (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    who = [
        named(path)
        for path in python("services", "clients")
        if picklers & {name.split(".")[0] for name in imports(path)}
    ]
    assert who == []
    assert [
        f"{named(path)}:{call.lineno}"
        for path in python("services", "clients")
        for call in calls(path)
        if "allow_pickle=True" in ast.unparse(call)
    ] == []


def test_torch_loads_tensors_and_no_code() -> None:
    loads = [
        (f"{named(path)}:{call.lineno}", ast.unparse(call))
        for path in python("services", "clients")
        for call in calls(path)
        if ast.unparse(call.func) == "torch.load"
    ]
    assert [where for where, call in loads if "weights_only=True" not in call] == []


def test_no_test_replaces_parts_of_what_it_tests() -> None:
    mockers = {"mock", "unittest.mock", "pytest_mock"}
    who = [
        named(path)
        for path in python("tests")
        if any(name.startswith(tuple(mockers)) for name in imports(path))
    ]
    assert who == []
