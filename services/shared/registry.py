"""The folder of models, and which of them is live.

    registry/<name>/<version>/    a model, as `model.py` describes it
    registry/live.json            {"name": …, "version": …}

The trainer writes it, inference follows it. Every change is a rename, so that a reader sees the
old state or the new one and a crash leaves no half.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from services.shared import model
from services.shared.errors import BadModel, UnknownModel

LIVE = "live.json"
STAGED = ".staged-"  # what begins so is not yet, or no longer, in its place
DAY = 86_400.0
VERSION = re.compile(r"[0-9a-f]{12}")
MAX_LIVE_BYTES = 4096
TOLD = 5  # models, to whom asks for another


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
        named = json.loads(model.read_regular(path, MAX_LIVE_BYTES))
        which = Live(named["name"], named["version"])
        if _is_proper(which):
            return which
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror}.", path=str(path)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BadModel(f"{path} must hold a model's name and version.", path=str(path))


def load(registry: Path, which: Live) -> model.Model:
    """The model of that name and version.

    Raises:
        BadModel: it is not in the registry, is not usable, or is another than its folder says.
    """
    if not _is_proper(which):
        raise BadModel(
            "A model of a registry has a name and a version of 12 hexadecimal digits.",
            path=str(registry),
        )
    path = folder(registry, which)
    if path.is_symlink() or path.parent.is_symlink():  # what it leads to may change at any time
        raise BadModel(f"The model {path} is a link, not a folder.", path=str(path))
    loaded = model.load(path)
    if (loaded.name, loaded.version) != which:
        raise BadModel(
            f"The model {loaded.folder} is {loaded.name}@{loaded.version}, not what its folder "
            "is called.",
            path=str(loaded.folder),
        )
    return loaded


def named(registry: Path, asked: str) -> model.Model:
    """The model of a folder, or one of the registry by NAME, the newest, or NAME@VERSION.

    Raises:
        UnknownModel: the registry has none of that name.
        BadModel: it is not usable.
    """
    if "/" in asked or Path(asked).is_dir():
        return model.load(Path(asked))
    name, _, version = asked.partition("@")
    for which in models(registry):
        if which.name == name and version in ("", which.version):
            return load(registry, which)
    have = ", ".join(f"{which.name}@{which.version}" for which in models(registry)[:TOLD])
    raise UnknownModel(
        f"There is no model {asked[:80]!r} in {registry}; there is {have or 'none'}: `emojinet "
        "model list`. A folder is named with a /.",
        model=asked[:80],
        served=have,
    )


def models(registry: Path) -> list[Live]:
    """Every model of the registry, the newest first."""
    found: list[tuple[int, Live]] = []
    for which in (Live(name, v) for name in _names(registry) for v in _names(registry / name)):
        path = folder(registry, which)
        with contextlib.suppress(OSError):  # taken away while we look
            if _is_proper(which) and path.is_dir():
                found.append((path.stat().st_mtime_ns, which))
    return [which for _, which in sorted(found, reverse=True)]


def _names(path: Path) -> list[str]:
    """What lies in a folder; nothing in one that is none, or is gone: Path.glob would raise."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def publish(registry: Path, staged: Path) -> Live:
    """Moves a finished model into the registry; publishing the same one twice changes nothing.

    A damaged one of the same version gives way, and so does what killed publishers left behind.

    Raises:
        BadModel: the staged model does not pass its own checks.
    """
    checked = model.load(staged).check()
    for name in (*checked.files, model.MANIFEST, ""):  # and the folder itself
        _sync(staged / name)
    which = Live(checked.name, checked.version)
    target = folder(registry, which)
    target.parent.mkdir(parents=True, exist_ok=True)
    while not _renamed(staged, target):
        try:
            load(registry, which).check()
            shutil.rmtree(staged)  # somebody has published the same one
            break
        except BadModel:
            _remove(registry, target)
    _sweep(registry)
    _sync(target.parent)
    _sync(registry)
    return which


def _renamed(staged: Path, target: Path) -> bool:
    """Whether the folder is there now; not if something else is."""
    try:
        os.rename(staged, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _remove(registry: Path, target: Path) -> None:
    """At once, for those who look."""
    with (
        tempfile.TemporaryDirectory(dir=registry, prefix=STAGED) as aside,
        contextlib.suppress(FileNotFoundError),  # another publisher was faster
    ):
        os.rename(target, Path(aside) / target.name)


def _sweep(registry: Path) -> None:
    """Removes what was being written a day ago and still is not where it belongs."""
    for name in _names(registry):
        path = registry / name
        with contextlib.suppress(OSError):  # another does the same
            if name.startswith((STAGED, f".{LIVE}")) and path.lstat().st_mtime < time.time() - DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def activate(registry: Path, which: Live) -> None:
    """Makes a model of the registry the one to serve.

    Raises:
        BadModel: it is not in the registry, or does not pass its checks.
    """
    load(registry, which).check()
    with tempfile.NamedTemporaryFile("w", dir=registry, prefix=f".{LIVE}", delete=False) as file:
        try:
            json.dump(which._asdict(), file)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.replace(file.name, registry / LIVE)
        except BaseException:
            os.unlink(file.name)
            raise
    _sync(registry)


def _is_proper(which: Live) -> bool:
    """Whether this may be part of a path; raises TypeError for what is no text."""
    return bool(model.NAME.fullmatch(which.name) and VERSION.fullmatch(which.version))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
