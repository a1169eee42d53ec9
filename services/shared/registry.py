"""The folder of models, and which of them is live.

    registry/<name>/<version>/    a model, as `model.py` describes it
    registry/live.json            {"name": …, "version": …}

The trainer writes it, inference follows it. Every change is a rename, so that a reader sees the
old state or the new one and a crash leaves no half.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from services.shared import model
from services.shared.errors import BadModel

LIVE = "live.json"
VERSION = re.compile(r"[0-9a-f]{12}")


class Live(NamedTuple):
    """Which model to serve."""

    name: str
    version: str


def folder(registry: Path, which: Live) -> Path:
    """Where a model of the registry lies."""
    return registry / which.name / which.version


def live(registry: Path) -> Live | None:
    """What `live.json` names; none when there is no such file.

    Raises:
        BadModel: the file says nothing usable.
    """
    path = registry / LIVE
    try:
        content = path.read_text()[:4096]
        named = json.loads(content)
        which = Live(named["name"], named["version"])
        if model.NAME.fullmatch(which.name) and VERSION.fullmatch(which.version):
            return which
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BadModel(f"{path} must hold a model's name and version.", path=str(path))


def models(registry: Path) -> list[Live]:
    """Every model of the registry, the newest first."""
    found = [path for path in registry.glob("*/*") if VERSION.fullmatch(path.name)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [Live(path.parent.name, path.name) for path in found]


def publish(registry: Path, staged: Path) -> Live:
    """Moves a finished model into the registry; publishing the same one twice changes nothing.

    Raises:
        BadModel: the staged model does not pass its own checks.
    """
    checked = model.load(staged)
    for name in checked.files:
        checked.read(name)
    which = Live(checked.name, checked.version)
    target = folder(registry, which)
    if target.exists():
        shutil.rmtree(staged)
        return which
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_tree(staged)
    os.rename(staged, target)
    _sync(target.parent)
    return which


def activate(registry: Path, which: Live) -> None:
    """Makes a model of the registry the one to serve.

    Raises:
        BadModel: it is not in the registry, or does not pass its checks.
    """
    model.load(folder(registry, which))
    with tempfile.NamedTemporaryFile("w", dir=registry, prefix=f".{LIVE}", delete=False) as file:
        json.dump(which._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, registry / LIVE)
    _sync(registry)


def _sync_tree(path: Path) -> None:
    for child in path.iterdir():
        _sync(child)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
