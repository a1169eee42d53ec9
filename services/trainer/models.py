"""The models of the registry as the service tells of them, and their way in.

What has to run a network runs in a process of its own, `python -m services.trainer.models`: a
hostile model may hang it, or bring it down, and the service goes on.
"""

import asyncio
import os
import stat
from pathlib import Path
from typing import Annotated

import typer

from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors, registry, shards
from services.shared.errors import BadModel
from services.shared.registry import Live
from services.shared.worker import Handle, Worker, WorkerDied, WorkerFailed, serve


def models(root: Path) -> list[pb.Model]:
    """Every model of the registry, the newest first; one that cannot be used says why.

    That its files are there, and as long as they should be, is looked at; that no byte of them was
    altered, when it is activated.
    """
    live = _live(root)
    return [told(root, which, live) for which in registry.models(root)]


def told(root: Path, which: Live, live: Live | None) -> pb.Model:
    """What is known of one model."""
    folder = registry.folder(root, which)
    message = pb.Model(name=which.name, version=which.version, live=which == live, uri=str(folder))
    try:
        message.create_time.FromNanoseconds(folder.stat().st_mtime_ns)
        loaded = registry.load(root, which)
        message.emoji, message.card = len(loaded.vocabulary), loaded.card
        for name, listed in loaded.files.items():
            _require_whole(folder / name, listed["bytes"])
    except OSError as error:
        gone = BadModel(f"The model {folder} cannot be read: {error.strerror}.", path=str(folder))
        message.error.CopyFrom(errors.to_proto(gone))
    except BadModel as error:
        message.error.CopyFrom(errors.to_proto(error))
    return message


def _require_whole(path: Path, size: int) -> None:
    facts = path.lstat() if path.exists() else None
    if not facts or not stat.S_ISREG(facts.st_mode) or facts.st_size != size:
        raise BadModel(
            f"The model {path.parent} is not usable: {path.name} is no file of {size} bytes.",
            path=str(path.parent),
        )


def _live(root: Path) -> Live | None:
    try:
        return registry.live(root)
    except BadModel:  # then it names none of them
        return None


async def publish(root: Path, run_model: Path) -> Live:
    """Puts the model of a run into the registry, judged and proven. Raises as `publish.publish`."""
    hello = await _in_child("publish", str(root), str(run_model))
    name, version = hello.decode().split()
    return Live(name, version)


async def activate(root: Path, which: Live) -> pb.Model:
    """Makes a model the one to serve, once it is proven; an older one, too: that is going back.

    Raises:
        BadModel: it is not there, or must not be served. The live one goes on.
        StorageFailed: the registry cannot be written. The live one goes on.
    """
    await _in_child("verify", str(root), which.name, which.version)

    def turn() -> pb.Model:
        with shards.writable(root / registry.LIVE):
            registry.activate(root, which)
        return told(root, which, which)

    return await asyncio.to_thread(turn)


async def _in_child(*arguments: str) -> bytes:
    """What the child says of itself when it is done; raises what it refused with."""
    worker = Worker("services.trainer.models", arguments)
    try:
        hello = (await worker.start()).hello
    except (WorkerDied, WorkerFailed) as error:
        why = str(error).strip().splitlines()[-1][:200]
        raise BadModel(
            f"The model could not be checked: the process that did it {why}.", path=arguments[1]
        ) from None
    await worker.kill()
    return hello


def main(
    action: str,
    arguments: Annotated[list[str], typer.Argument()],
    pipe: Annotated[int, typer.Option()],
) -> None:
    """Started by the service, not by people."""
    os.nice(10)  # what answers people on the same machine goes first

    def prepare() -> tuple[bytes, Handle]:
        from services.trainer import publish  # torch takes seconds to import

        root, *rest = arguments
        if action == "publish":
            return " ".join(publish.publish(Path(root), Path(*rest))).encode(), bytes
        publish.verify(Path(root), Live(*rest))
        return b"", bytes

    serve(pipe, prepare)


if __name__ == "__main__":
    typer.run(main)
