"""Suggestions without a server: the same decoder, the same model, eager PyTorch."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import model_pb2
from services.shared import errors, model, network, registry, starter
from services.shared.decoders import Decoders
from services.shared.queue import Priority, QueueMetrics
from services.shared.suggestions import ranked

PATIENCE_SECONDS = 60.0


@contextmanager
def opened(root: Path, progress: starter.Progress) -> Iterator["Local"]:
    """The registry's live model, ready to look; builds the starter where there is none.

    Raises:
        BadModel: the live model is not usable.
    """
    with asyncio.Runner() as runner:
        local = Local(registry.load(root, starter.ensure(root, progress)), runner)
        try:
            yield local
        finally:
            runner.run(local.decoders.close())


class Local:
    """One model and one decoder process, for one picture at a time."""

    def __init__(self, chosen: model.Model, runner: asyncio.Runner) -> None:
        self._model, self._runner = chosen, runner
        self._network = network.read(chosen)
        self._label = model_pb2.ServedModel(
            name=chosen.name, version=chosen.version, backend="torch", precision="exact"
        )
        self.decoders = Decoders(1)
        runner.run(self._start())

    async def _start(self) -> None:
        await self.decoders.start()
        self.decoders.open(QueueMetrics(CollectorRegistry()))

    def suggest(
        self, content: bytes, *, max_suggestions: int, min_probability: float
    ) -> pb.SuggestResponse:
        """As a server would answer for one image."""
        result = pb.SuggestResult()
        began = time.monotonic()
        try:
            view = self._runner.run(self._view(content))
        except errors.EmojinetError as error:
            result.error.CopyFrom(errors.to_proto(error))
            return pb.SuggestResponse(results=[result], model=self._label)
        edge = self._model.preprocessing.size_px
        x_BHWC = np.frombuffer(view, np.uint8).reshape(1, edge, edge, 3).copy()
        decoded = time.monotonic()
        logits, _ = network.look(self._network, x_BHWC)
        best = ranked(
            self._model.vocabulary,
            self._model.probabilities(logits)[0],
            most=max_suggestions,
            least=min_probability,
        )
        result.suggestions.suggestions.extend(best)
        now = time.monotonic()
        spans = {"decode": decoded - began, "compute": now - decoded, "total": now - began}
        for name, seconds in spans.items():
            getattr(result.timing, name).FromNanoseconds(int(seconds * 1e9))
        result.timing.batch_size = 1
        return pb.SuggestResponse(results=[result], model=self._label)

    async def _view(self, content: bytes) -> bytes:
        view = await self.decoders.view(
            content,
            cost_seconds=self.decoders.check(content),
            preprocessing=self._model.preprocessing,
            priority=Priority.INTERACTIVE,
            deadline=time.monotonic() + PATIENCE_SECONDS,
        )
        return view.rgb
