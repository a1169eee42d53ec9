"""The gRPC face of the trainer: wire in, wire out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc
from services.shared import errors, watching
from services.shared.registry import Live
from services.trainer import models
from services.trainer.runs import Runs

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TrainerService(rpc.TrainerServiceServicer):
    """Implements `emojinet.v1.TrainerService`."""

    def __init__(self, registry: Path) -> None:
        self._registry = registry
        self._ready: Runs | None = None

    def open(self, runs: Runs) -> None:
        """Begins to answer, and goes on with what an earlier process left."""
        self._ready = runs
        runs.go_on()

    async def close(self) -> None:
        """Stops working; the next process goes on."""
        if runs := self._ready:
            self._ready = None
            await runs.close()

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        return pb.StartRunResponse(run=self._runs.start(request))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=self._runs.get(request.name))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=self._runs.list())

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        async for run in watching.changes(lambda: self._runs.get(request.name)):
            yield pb.WatchRunResponse(run=run)

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        return pb.CancelRunResponse(run=await self._runs.cancel(request.name))

    async def PublishModel(
        self, request: pb.PublishModelRequest, context: Context
    ) -> pb.PublishModelResponse:
        run = self._runs.get(request.run)
        if run.state != states.STATE_SUCCEEDED or run.request.kind != pb.RUN_KIND_TRAIN:
            raise errors.NotReady(
                f"{run.name} has no model: a training is published when it has succeeded."
            )
        which = await models.publish(self._registry, Path(run.uri) / "model")
        if request.activate:
            return pb.PublishModelResponse(model=await models.activate(self._registry, which))
        made = (await self._models())[which]
        return pb.PublishModelResponse(model=made)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=(await self._models()).values())

    async def ActivateModel(
        self, request: pb.ActivateModelRequest, context: Context
    ) -> pb.ActivateModelResponse:
        which = Live(request.name, request.version)
        found = await self._models()
        if which not in found:
            asked = f"{which.name:.80}@{which.version:.80}"
            served = next(("@".join(other) for other, model in found.items() if model.live), "")
            raise errors.UnknownModel(
                f"There is no model {asked} in the registry.", model=asked, served=served
            )
        return pb.ActivateModelResponse(model=await models.activate(self._registry, which))

    async def _models(self) -> dict[Live, pb.Model]:
        """Those of the registry, the newest first."""
        found = await asyncio.to_thread(models.models, self._registry)
        return {Live(model.name, model.version): model for model in found}

    @property
    def _runs(self) -> Runs:
        if self._ready is None:
            raise errors.Draining("This server is starting or shutting down. Try again soon.")
        return self._ready
