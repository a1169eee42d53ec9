"""The Open Inference Protocol's calls: wire in, the same way as our own calls, wire out."""

import contextlib
import math
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import NoReturn

import grpc

from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc as rpc
from services.inference import streams
from services.inference.gate import Ask, Seen
from services.inference.oip import description, outputs, tensors
from services.inference.server import (
    Call,
    Context,
    InferenceService,
    Serving,
    patience_seconds,
)
from services.shared import errors
from services.shared.decoders import View
from services.shared.queue import Priority

EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)


class NotOffered(errors.MalformedRequest):
    """A call of the protocol that no server of ours answers."""

    code = grpc.StatusCode.UNIMPLEMENTED


class OpenInference(rpc.GRPCInferenceServiceServicer):
    """Implements `inference.GRPCInferenceService` with what our own service serves."""

    def __init__(self, service: InferenceService) -> None:
        self._service = service

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._ready())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        with contextlib.suppress(errors.NoModel, errors.Draining, errors.UnknownModel):
            self._named(request.name, request.version)
            return pb.ModelReadyResponse(ready=True)
        return pb.ModelReadyResponse(ready=False)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="emojinet", version=version("emojinet"), extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        return description.metadata(self._named(request.name, request.version).model)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        serving = self._named(request.name, request.version)
        return pb.ModelConfigResponse(config=description.config(serving))

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        serving = self._service.served()
        if request.name or request.version:
            serving = self._named(request.name or serving.model.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=[description.statistics(serving)])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        response, serving = pb.RepositoryIndexResponse(), self._service.serving
        if serving is not None and (self._ready() or not request.ready):
            model = response.models.add(name=serving.model.name, version=serving.model.version)
            model.state = "READY" if self._ready() else "UNAVAILABLE"
            model.reason = "" if self._ready() else "the server is shutting down"
        return response

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        _registry_decides()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        _registry_decides()

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        serving = self._named(request.model_name, request.model_version)
        wanted = outputs.wanted(request)
        priority = tensors.whole(request.parameters, "priority")
        timeout_seconds = tensors.whole(request.parameters, "timeout") / 1e6 or math.inf
        sent = tensors.read(request, serving.model.preprocessing.size_px)
        ask = Ask(embedding=outputs.EMBEDDING in wanted)
        patience = min(timeout_seconds, patience_seconds(context))
        ahead = Priority.BULK if priority > 1 else Priority.INTERACTIVE
        with Call(serving, ask, ahead, patience) as call:
            seen = await _look(call, sent)
            response = pb.ModelInferResponse(
                model_name=serving.model.name, model_version=serving.model.version, id=request.id
            )
            raw = len(request.raw_input_contents) > 0
            outputs.fill(response, wanted, serving.model, seen, raw)
            return response

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            try:
                response = await self.ModelInfer(request, context)
            except errors.EmojinetError as error:
                failed = pb.ModelInferResponse(id=request.id)
                message = f"{error.code.name}: {error}"
                return pb.ModelStreamInferResponse(error_message=message, infer_response=failed)
            response.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=response)

        async for response in streams.answers(answer, requests, in_order=True):
            yield response

    def _ready(self) -> bool:
        return self._service.serving is not None and not self._service.draining

    def _named(self, name: str, version: str) -> Serving:
        """What answers now; raises UnknownModel unless that is the model asked for."""
        serving = self._service.served()
        model = serving.model
        if name != model.name or version not in ("", model.version):
            asked = f"{name[:80]}@{version[:80]}" if version else name[:80]
            raise errors.UnknownModel(
                f"The model {asked!r} is not served here; {model.name!r} is, "
                f"of version {model.version!r}.",
                model=asked,
                served=f"{model.name}@{model.version}",
            )
        return serving


async def _look(call: Call, sent: tensors.Sent) -> list[Seen]:
    """What the model makes of each picture; one that is bad is the end of the call."""

    def answer(seen: Seen, view: View | None = None) -> Seen:
        call.account(seen, view)
        return seen

    def refuse(index: int, error: errors.EmojinetError) -> NoReturn:
        refusal = type(error)(f"{tensors.IMAGE}[{index}]: {error}")
        refusal.metadata = error.metadata | {"index": str(index)}
        raise refusal from None

    if sent.decoded:
        return await call.squares(sent.pictures, answer)
    return await call.pictures(sent.pictures, answer, refuse)


def _registry_decides() -> NoReturn:
    raise NotOffered(
        "Models are neither loaded nor unloaded by a call, which would change one replica of many: "
        "every server follows the registry. Use `emojinet model activate`.",
        field="method",
    )
