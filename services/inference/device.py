"""The process that holds the accelerator: `python -m services.inference.device`, one per slot.

The gate starts it. A job is a batch of records, a record what `ASK` packs and the pixels; the
reply holds for each record its length, its logits and, where asked for, its embedding and the
evidence for one emoji. Before it is ready it proves that it computes what was published.
"""

import json
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from services.inference.backends import Look, timed
from services.shared import model as models
from services.shared.errors import BadModel, ImageError
from services.shared.model import Model
from services.shared.saliency import Explainer
from services.shared.worker import Handle, serve

ASK = struct.Struct("<?i")  # whether to return the embedding; which output to explain, -1 for none
SIZE = struct.Struct("<I")
GOLDEN = 16  # probes compared at every start; `reduced` compares all of them
BATCHES = (1, 2, 4, 8, 16, 32)


def prepare(folder: Path, version: str, backend: str, precision: str) -> tuple[bytes, Handle]:
    """Loads the model and checks it. The hello says which backend runs it and how fast, as JSON."""
    model = models.load(folder)
    if model.version != version:
        raise BadModel(f"{folder} was replaced while it was being loaded.", path=str(folder))
    chosen, look = _open(model, backend, precision)
    if chosen.startswith("timed:"):
        times = timed.parse(chosen)
        seconds = {batch: times.seconds(batch) for batch in BATCHES}
    else:
        check(model, look, precision)
        seconds = dict(_measure(model, look))
    hello = {"backend": chosen, "seconds": seconds}
    return json.dumps(hello).encode(), Device(model, look).handle


def _open(model: Model, backend: str, precision: str) -> tuple[str, Look]:
    # Here, so that a server needs only the packages of the backend it uses.
    if backend.startswith("timed:"):
        return backend, timed.open_timed(model, backend)
    path = str(model.folder)
    # A damaged OpenVINO form is no reason to be slow in silence: only an absent one is.
    if backend == "openvino" or (backend == "auto" and "openvino.xml" in model.files):
        try:
            from services.inference.backends.openvino import open_openvino

            return "openvino", open_openvino(model, precision)
        except ImportError as error:
            if backend == "openvino":
                raise BadModel(missing(error, "inference"), path=path) from None
    try:
        from services.inference.backends.torch import open_torch

        return "torch", open_torch(model, precision)
    except ImportError as error:
        raise BadModel(missing(error, "trainer"), path=path) from None


def missing(error: ImportError, extra: str) -> str:
    """What to do about a package that is not installed."""
    return f"Package {error.name} is missing: pip install 'emojinet[{extra}]'."


def check(model: Model, look: Look, precision: str) -> None:
    """Holds the backend's probabilities against the published ones.

    `exact` must agree within 1e-4 on the first probes. `reduced` may differ where the model itself
    wavers: the first place must agree on 96 % of all probes, on 99 % where the published margin is
    at least 0.05, and always where it is at least 0.20.

    Raises:
        BadModel: it does not; this machine must not serve it so.
    """
    probes, path = model.probes(), str(model.folder)
    count = GOLDEN if precision == "exact" else len(probes.jpegs)
    try:
        views = [models.view(model.preprocessing, jpeg) for jpeg in probes.jpegs[:count]]
    except ImageError as error:
        raise BadModel(f"The model {path} has a broken probe: {error}", path=path) from None
    seen = np.concatenate([look(view[None])[0] for view in views])
    published = model.probabilities(probes.logits[:count])
    computed = model.probabilities(seen)
    if not np.isfinite(computed).all():
        raise BadModel(f"The model {path} gives values that are not finite.", path=path)
    if precision == "exact":
        worst = float(np.abs(computed - published).max())
        if worst > 1e-4:
            raise BadModel(
                f"The model {path} gives other answers here than were published with it: "
                f"a probability differs by {worst:.1g}, more than 1e-4.",
                path=path,
            )
        return
    agrees = computed.argmax(1) == published.argmax(1)
    first_two = np.sort(published, axis=1)[:, -2:]
    margin = first_two[:, 1] - first_two[:, 0]
    for least, share in ((0.0, 0.96), (0.05, 0.99), (0.20, 1.0)):
        of = agrees[margin >= least]
        if len(of) and of.mean() < share:
            raise BadModel(
                f"--precision reduced agrees with float32 on {of.mean():.3f} of the probes with a "
                f"margin of at least {least}, less than {share}. Use --precision exact.",
                path=path,
            )


def _measure(model: Model, look: Look) -> Iterator[tuple[int, float]]:
    """s(b) for growing batches, as long as a larger one makes an image cheaper."""
    edge = model.preprocessing.size_px
    best = float("inf")
    for batch in BATCHES:
        images = np.zeros((batch, edge, edge, 3), np.uint8)
        look(images)
        took = min(_timed(look, images) for _ in range(3))
        yield batch, took
        if took / batch > 0.97 * best:
            return
        best = took / batch


def _timed(look: Look, images: np.ndarray) -> float:
    start = time.perf_counter()
    look(images)
    return time.perf_counter() - start


class Device:
    """Computes batches of records."""

    def __init__(self, model: Model, look: Look) -> None:
        self._look = look
        self._edge = model.preprocessing.size_px
        self._model = model
        self._explainer: Explainer | None = None

    def handle(self, job: memoryview) -> bytes:
        """The reply to a batch of records."""
        record = ASK.size + self._edge**2 * 3
        asks = [ASK.unpack_from(job, start) for start in range(0, len(job), record)]
        rows = np.frombuffer(job, np.uint8).reshape(-1, record)[:, ASK.size :]
        images = np.ascontiguousarray(rows).reshape(-1, self._edge, self._edge, 3)
        logits, feature_maps = self._look(images)
        return b"".join(self._reply(ask, logits[i], feature_maps[i]) for i, ask in enumerate(asks))

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
    pipe: Annotated[int, typer.Option()],
) -> None:
    """Started by the gate, not by people."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server drains first, then ends us
    serve(pipe, lambda: prepare(folder, version, backend, precision))


if __name__ == "__main__":
    typer.run(main)
