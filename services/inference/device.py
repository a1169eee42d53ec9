"""The process that holds the accelerator: `python -m services.inference.device`, one per slot.

The gate starts it. A job is a batch of records, a record what `ASK` packs and the pixels; the
reply holds the seconds that the batch took, and for each record its length, its logits and, where
asked for, its embedding and the evidence for one emoji. Before it is ready it proves that it
computes what was published.
"""

import json
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from services.inference.backends import timed
from services.inference.newcomer import nicely
from services.shared import golden
from services.shared import model as models
from services.shared.cores import cores
from services.shared.errors import BadModel
from services.shared.golden import Look
from services.shared.model import Model
from services.shared.saliency import Explainer
from services.shared.worker import Handle, serve

# Whether it is alone, and its embedding is asked for; which output to explain, -1 for none.
ASK = struct.Struct("<??i")
TOOK = struct.Struct("<d")
SIZE = struct.Struct("<I")
BATCHES = (1, 2, 4, 8, 16, 32)
WIDEST = 4  # threads for who is alone; nobody has measured more than two


def prepare(
    folder: Path, version: str, backend: str, precision: str, threads: int = 1
) -> tuple[bytes, Handle]:
    """Loads the model and checks it. The hello says which backend runs it and how fast, as JSON."""
    model = models.load(folder).check()
    if model.version != version:
        raise BadModel(f"{folder} was replaced while it was being loaded.", path=str(folder))
    chosen, look, wide = _open(model, backend, precision, threads)
    # Its own CPU time, where it is one thread's: others may be at work on the same cores.
    clock = time.process_time if chosen == "openvino" and threads == 1 else time.perf_counter
    if chosen.startswith("timed:"):
        times = timed.parse(chosen)
        seconds = {batch: times.seconds(batch) for batch in BATCHES}
    else:
        for each in {look, wide}:
            golden.check(model, each, precision)
        seconds = dict(_measure(model, look, clock))
    hello = {"backend": chosen, "seconds": seconds, "widens": wide is not look}
    return json.dumps(hello).encode(), Device(model, look, wide, clock).handle


def _open(model: Model, backend: str, precision: str, threads: int) -> tuple[str, Look, Look]:
    """What computes batches, and what computes an image that is alone in the server."""
    # Here, so that a server needs only the packages of the backend it uses.
    if backend.startswith("timed:"):
        look = timed.open_timed(model, backend)
        return backend, look, look
    path = str(model.folder)
    # A damaged OpenVINO form is no reason to be slow in silence: only an absent one is.
    if backend == "openvino" or (backend == "auto" and "openvino.xml" in model.files):
        try:
            from services.shared.exported import open_each

            each = sorted({threads, max(threads, min(cores(), WIDEST))})
            looks = open_each(model, precision, each)
            return "openvino", looks[0], looks[-1]
        except ImportError as error:
            if backend == "openvino":
                raise BadModel(missing(error, "inference"), path=path) from None
    try:
        from services.inference.backends.torch import open_torch

        look = open_torch(model, precision, threads)
        return "torch", look, look
    except ImportError as error:
        raise BadModel(missing(error, "torch"), path=path) from None


def missing(error: ImportError, extra: str) -> str:
    """What to do about a package that is not installed."""
    return f"Package {error.name} is missing: pip install 'emojinet[{extra}]'."


def _measure(model: Model, look: Look, clock: Callable[[], float]) -> Iterator[tuple[int, float]]:
    """s(b) for growing batches, as long as a larger one makes an image cheaper."""
    edge = model.preprocessing.size_px
    best = float("inf")
    for batch in BATCHES:
        images = np.zeros((batch, edge, edge, 3), np.uint8)
        look(images)
        took = min(_timed(look, images, clock) for _ in range(3))
        yield batch, took
        if took / batch > 0.97 * best:
            return
        best = took / batch


def _timed(look: Look, images: np.ndarray, clock: Callable[[], float]) -> float:
    start = clock()
    look(images)
    return clock() - start


class Device:
    """Computes batches of records."""

    def __init__(self, model: Model, look: Look, wide: Look, clock: Callable[[], float]) -> None:
        self._look, self._wide, self._clock = look, wide, clock
        self._edge = model.preprocessing.size_px
        self._model = model
        self._explainer: Explainer | None = None

    def handle(self, job: memoryview) -> bytes:
        """The reply to a batch of records."""
        start = self._clock()
        record = ASK.size + self._edge**2 * 3
        asks = [ASK.unpack_from(job, start) for start in range(0, len(job), record)]
        rows = np.frombuffer(job, np.uint8).reshape(-1, record)[:, ASK.size :]
        images = np.ascontiguousarray(rows).reshape(-1, self._edge, self._edge, 3)
        look = self._wide if asks[0][0] else self._look
        logits, feature_maps = look(images)
        replies = [self._reply(ask[1:], logits[i], feature_maps[i]) for i, ask in enumerate(asks)]
        return b"".join([TOOK.pack(self._clock() - start), *replies])

    def _reply(self, ask: tuple[bool, int], logits_K: np.ndarray, map_Fhw: np.ndarray) -> bytes:
        embed, explain = ask
        parts = [logits_K.astype("<f4")]
        if embed:
            parts.append(map_Fhw.mean((1, 2)).astype("<f4"))
        if explain >= 0:
            self._explainer = self._explainer or Explainer(self._model)
            parts.append(self._explainer.explain(map_Fhw, explain).astype("<f4"))
        body = b"".join(part.tobytes() for part in parts)
        return SIZE.pack(len(body)) + body


def main(
    folder: Path,
    version: Annotated[str, typer.Option()],
    backend: Annotated[str, typer.Option()],
    precision: Annotated[str, typer.Option()],
    threads: Annotated[int, typer.Option()],
    pipe: Annotated[int, typer.Option()],
    gently: Annotated[bool, typer.Option()] = False,
) -> None:
    """Started by the gate, not by people."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server drains first, then ends us

    def ready() -> tuple[bytes, Handle]:
        return prepare(folder, version, backend, precision, threads)

    serve(pipe, (lambda: nicely(ready)) if gently else ready)


if __name__ == "__main__":
    typer.run(main)
