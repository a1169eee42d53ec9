"""The state from which a training goes on, on disk; a kill at any instant leaves the last one.

    STEP.safetensors    the tensors
    STEP.json           their length and sha256, the facts that are no tensors, its own digest

Either file is written under another name, has reached the disk, and then is renamed. The manifest
comes last: without one there is no checkpoint. Neither safetensors nor torch notices a flipped
byte, so that nothing is believed before its digest is the manifest's.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from services.shared import faults
from services.shared.model import read_regular
from services.shared.shards import Output, sealed, sync, writable

FORMAT = 1
KEEP = 2  # should the newest turn out to be damaged
OURS = re.compile(r"\.?(\d{8,})\.(json|safetensors)")  # with a dot: not yet in its place
MAX_MANIFEST_BYTES = 64 << 20
DAMAGED = (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError)

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What `save` was given."""

    step: int
    tensors: dict[str, torch.Tensor]
    """On the CPU, contiguous, in memory of their own."""
    facts: dict[str, Any]
    """As JSON knows them: tuples have become lists, and keys text."""


def save(
    folder: Path, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Writes a checkpoint, and then removes those that are neither among the newest nor needed.

    The same state makes the same bytes.

    Raises:
        StorageFailed: the disk is full or failing; the checkpoints of before are still there.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Clones: safetensors takes neither views nor tensors that share their memory.
        content = safetensors.torch.save(
            {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
        )
        said = {"format": FORMAT, "step": step, "facts": facts, **_listed(content)}
        _put(folder / f"{step:08}.safetensors", content)
        del content  # before an old one is read
        _put(folder / f"{step:08}.json", sealed(said))
        _prune(folder, step)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; those that are not are passed over, and logged.

    Raises:
        StorageFailed: the folder cannot be read.
    """
    for step in _steps(folder):
        try:
            said, content = _verified(folder, step)
            return Checkpoint(step, safetensors.torch.load(content), said["facts"])
        except DAMAGED as error:
            log.warning("The checkpoint %s/%08d is damaged, passed over: %s", folder, step, error)
    return None


def _steps(folder: Path) -> list[int]:
    """Those with a manifest, whether it is true or not; the newest first."""
    with writable(folder):
        names = os.listdir(folder) if folder.exists() else []
    found = (OURS.fullmatch(name) for name in names if not name.startswith("."))
    return sorted((int(each[1]) for each in found if each and each[2] == "json"), reverse=True)


def _verified(folder: Path, step: int) -> tuple[dict[str, Any], bytes]:
    """The manifest and the tensors' bytes; raises one of DAMAGED unless they are as written."""
    manifest = read_regular(folder / f"{step:08}.json", MAX_MANIFEST_BYTES)
    said = json.loads(manifest)
    if not isinstance(said, dict) or manifest != sealed(said):
        raise ValueError("its manifest was altered")
    if (said["format"], said["step"]) != (FORMAT, step):
        raise ValueError("its manifest is of another step or format")
    content = read_regular(folder / f"{step:08}.safetensors", said["bytes"])
    if _listed(content) != {name: said[name] for name in ("bytes", "sha256")}:
        raise ValueError("its tensors were altered")
    return said, content


def _listed(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _put(path: Path, content: bytes) -> None:
    """Has a file in its place, and on the disk, at once."""
    staged = path.with_name(f".{path.name}")
    try:
        with Output(staged) as file:
            file.write(content[: len(content) // 2])
            file.flush()
            faults.point("checkpoint-begun")
            file.write(content[len(content) // 2 :])
        faults.point("checkpoint-staged")
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)  # where there is no room it would take some
        raise
    sync(path.parent)
    faults.point("checkpoint-placed")


def _prune(folder: Path, written: int) -> None:
    """Keeps as many as are to be kept, and damaged ones that no whole one has replaced."""
    whole, stay = 0, set()
    for step in _steps(folder):
        sound = step == written or _is_sound(folder, step)
        if whole < KEEP and (sound or not whole):
            stay.add(step)
        whole += sound
    for name in sorted(os.listdir(folder)):  # .json before .safetensors: no manifest without
        ours = OURS.fullmatch(name)
        if ours and (int(ours[1]) not in stay or name.startswith(".")):
            (folder / name).unlink(missing_ok=True)
            faults.point("checkpoint-pruning")


def _is_sound(folder: Path, step: int) -> bool:
    try:
        _verified(folder, step)
    except DAMAGED:
        return False
    return True
