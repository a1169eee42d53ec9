"""Models that must not be served, laid into a registry by hand."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from services.shared import model, registry
from services.shared.model import MANIFEST, Model
from services.shared.registry import Live

XML, BIN, WEIGHTS = "openvino.xml", "openvino.bin", "weights.safetensors"


def lay(root: Path, name: str, files: Mapping[str, bytes]) -> Live:
    """A folder with these files and a manifest that lists them, whatever they hold."""
    listed = {
        n: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for n, content in sorted(files.items())
    }
    manifest = json.dumps({"format": model.FORMAT, "name": name, "files": listed}).encode()
    which = Live(name, hashlib.sha256(manifest).hexdigest()[:12])
    folder = registry.folder(root, which)
    folder.mkdir(parents=True)
    for n, content in {**files, MANIFEST: manifest}.items():
        (folder / n).write_bytes(content)
    return which


def turn(root: Path, which: Live) -> None:
    """Has live.json name it, as nobody but a careless hand would: unchecked."""
    staged = root / f".{registry.LIVE}by-hand"
    staged.write_text(json.dumps(which._asdict()))
    os.replace(staged, root / registry.LIVE)


def all_kinds(root: Path, good: Model, other: Model) -> dict[str, Live]:
    """One of each kind, made of a good model; `other` is one of another architecture."""
    files = {name: good.read(name) for name in good.files}
    made: dict[str, Live] = {}

    def fresh(kind: str, **changed: bytes) -> Path:
        card = {"card.md": f"# {kind}\n".encode()}  # so that each is a version of its own
        named = {name.replace("_", "."): content for name, content in changed.items()}
        made[kind] = lay(root, kind.split(":")[0], {**files, **card, **named})
        return registry.folder(root, made[kind])

    for name in (BIN, WEIGHTS, "vocabulary.json"):
        _rewrite(fresh(f"truncated:{name}") / name, lambda content: content[: len(content) // 2])
        _rewrite(fresh(f"bit-flipped:{name}") / name, _flipped)
    fresh("wrong-architecture:all", **_underscored(other, XML, BIN, WEIGHTS))
    fresh("wrong-architecture:form", **_underscored(other, XML, BIN))
    fresh("nan:weights", weights_safetensors=_nan_weights(good))
    fresh("nan:form", openvino_bin=_nan_form(files[BIN]))
    _link(fresh("symlinked:file") / BIN)
    _link(fresh("symlinked:folder"))
    half = fresh("half-copied:missing")
    for name in (BIN, WEIGHTS, "probes.safetensors"):
        (half / name).unlink()
    half = fresh("half-copied:growing")
    (half / WEIGHTS).unlink()
    _rewrite(half / BIN, lambda content: content[: len(content) // 3])
    return made


def _underscored(of: Model, *names: str) -> dict[str, bytes]:
    return {name.replace(".", "_"): of.read(name) for name in names}


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _nan_weights(good: Model) -> bytes:
    arrays = good.weights()
    spoilt = arrays["head.weight"].copy()
    spoilt[0, 0] = np.nan
    return safetensors.numpy.save({**arrays, "head.weight": spoilt})


def _nan_form(content: bytes) -> bytes:
    """Every value of 1.5 KB of constants is NaN."""
    at = len(content) // 8 * 4  # of a float32
    return content[:at] + np.full(384, np.nan, "<f4").tobytes() + content[at + 1536 :]


def _link(path: Path) -> None:
    """What it was lies elsewhere, and a link leads there."""
    elsewhere = path.parents[2] / "elsewhere" / f"{path.parent.name}-{path.name}"
    elsewhere.parent.mkdir(exist_ok=True)
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
