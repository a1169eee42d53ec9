"""Which model is served: the one asked for, else the registry's live one, else the starter.

Where the registry decides, it is followed: once a second, without a call that fails. The new
model is loaded and checked beside the old one, then new calls go to it, then the old one ends.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.inference.metrics import Metrics
from services.inference.server import InferenceService, Serving
from services.shared import model, registry
from services.shared.errors import BadModel, EmojinetError, StorageFailed
from services.shared.worker import WorkerDied, WorkerFailed

Stamp = frozenset[tuple[str, int, int, int]]
LOOK_SECONDS = 1.0  # polled, since network volumes do not tell of changes

log = logging.getLogger(__name__)


async def first_model(folder: Path | None, root: Path) -> model.Model:
    """The model to begin with; builds the starter where there is none.

    Raises:
        BadModel: the folder asked for, or the registry's live model, is not usable.
        StorageFailed: the starter cannot be written.
    """
    if folder is not None:
        return model.load(folder)
    which = registry.live(root)
    if which is None:
        log.info("no model in %s yet: building the starter", root)
        await _build_starter(root)
        which = registry.live(root)
    if which is None:
        raise BadModel(f"There is no live model in {root}.", path=str(root))
    return registry.load(root, which)


async def _build_starter(root: Path) -> None:
    """In a process of its own: this one stays free of torch."""
    arguments = ["-m", "services.shared.starter", str(root)]
    builder = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=2)
    try:
        status = await builder.wait()
        if status == os.EX_IOERR:
            raise StorageFailed(
                f"The starter cannot be written to {root}, as said above. Free space, mend the "
                "disk, or choose another --data.",
                path=str(root),
            )
        if status:
            raise BadModel(
                "The starter could not be built. Is the extra there? pip install "
                "'emojinet[trainer]'; or name a model's folder with --model.",
                path=str(root),
            )
    finally:
        if builder.returncode is None:
            builder.kill()


async def turn(service: InferenceService, serving: Serving, metrics: Metrics) -> None:
    """Sends new calls to another model, and ends the present one when nobody waits for it."""
    before, service.serving = service.serving, serving
    metrics.show_model(serving.label, serving.gate)
    if before is not None:
        while before.in_flight:
            await asyncio.sleep(0.01)
        await before.gate.close()


async def follow(
    root: Path,
    service: InferenceService,
    start: Callable[[model.Model], Awaitable[Serving]],
    metrics: Metrics,
) -> None:
    """Serves whatever becomes live; a model that cannot serve is refused, and the old goes on.

    One that cannot be read may be readable at the next look, and one that was refused may be good
    when its files have changed: it was being copied, or was published again.
    """
    refused: tuple[registry.Live, Stamp] | None = None
    complaint = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looked: tuple[registry.Live, Stamp] | None = None
        try:
            which = await asyncio.to_thread(registry.live, root)
            if which is None or _serves(service, which):
                continue
            looked = which, await asyncio.to_thread(_stamp, registry.folder(root, which))
            if looked == refused:
                continue
            new = await asyncio.to_thread(registry.load, root, which)
            await turn(service, await start(new), metrics)
            log.info("serving %s@%s", *which)
        except (EmojinetError, WorkerDied, WorkerFailed, OSError) as error:
            if str(error) != complaint:  # else it would be said every second
                log.error("the old model goes on: %s", error)
            passing = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            refused, complaint = None if passing else looked, str(error)


def _serves(service: InferenceService, which: registry.Live) -> bool:
    serving = service.serving
    return serving is not None and (serving.model.name, serving.model.version) == which


def _stamp(folder: Path) -> Stamp:
    """What becomes another when a file of the folder does."""
    try:
        facts = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]
    except OSError:  # not there, or going
        return frozenset()
    return frozenset((name, of.st_ino, of.st_size, of.st_mtime_ns) for name, of in facts)
