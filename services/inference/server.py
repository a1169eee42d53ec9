"""The gRPC face: wire in, admission, decoders, gate, wire out."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from emojinet.v1 import model_pb2
from services.inference.admission import Admission
from services.inference.gate import Ask, Gate, Seen
from services.inference.metrics import Metrics
from services.shared import errors, saliency
from services.shared.decoders import Decoders, View
from services.shared.model import Model
from services.shared.queue import Priority
from services.shared.suggestions import ranked

MAX_IMAGES = 64
MAX_SUGGESTIONS = 100
PATIENCE_SECONDS = 30.0  # of callers who set no deadline
MAX_PATIENCE_SECONDS = 300.0
STREAM_IN_FLIGHT = 32  # requests of one stream; the next is read when one is answered
PRIORITIES = {pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE, pb.PRIORITY_BULK: Priority.BULK}

A = TypeVar("A")
B = TypeVar("B")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Serving:
    """One model being served, and who still waits for it: what a swap exchanges whole."""

    def __init__(self, decoders: Decoders, gate: Gate, metrics: Metrics) -> None:
        self.gate, self.model = gate, gate.model
        self.admission = Admission(decoders, gate, metrics)
        self.label = model_pb2.ServedModel(
            name=gate.model.name,
            version=gate.model.version,
            backend=gate.backend,
            precision=gate.precision,
        )
        self.in_flight = 0
        self._metrics = metrics

    def observe(self, seconds: dict[str, float], batch_size: int) -> None:
        """Tells Prometheus where the time of one answered image went."""
        for stage, name in (("decode", "decode"), ("device", "compute"), ("total", "total")):
            self._metrics.stage_seconds.labels(stage).observe(seconds[name])
        self._metrics.batch_size.observe(batch_size)


class InferenceService(rpc.InferenceServiceServicer):
    """Implements `emojinet.v1.InferenceService`."""

    def __init__(self, decoders: Decoders) -> None:
        self.decoders = decoders
        self.serving: Serving | None = None
        self.draining = False

    async def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
        default = Priority.INTERACTIVE
        return await self._suggest(request, PRIORITIES.get(request.priority, default), context)

    async def SuggestStream(
        self, requests: AsyncIterator[pb.SuggestStreamRequest], context: Context
    ) -> AsyncIterator[pb.SuggestStreamResponse]:
        async def answer(ask: pb.SuggestStreamRequest) -> pb.SuggestStreamResponse:
            try:
                priority = PRIORITIES.get(ask.request.priority, Priority.BULK)
                response = await self._suggest(ask.request, priority, context)
                return pb.SuggestStreamResponse(id=ask.id, response=response)
            except errors.EmojinetError as error:
                return pb.SuggestStreamResponse(id=ask.id, error=errors.to_proto(error))

        async for response in _bounded_map(answer, requests, STREAM_IN_FLIGHT):
            yield response

    async def GetServedModel(
        self, request: pb.GetServedModelRequest, context: Context
    ) -> pb.GetServedModelResponse:
        serving = self._served()
        return pb.GetServedModelResponse(
            model=serving.label, emoji=serving.model.vocabulary.emoji, card=serving.model.card
        )

    async def _suggest(
        self, request: pb.SuggestRequest, priority: Priority, context: Context
    ) -> pb.SuggestResponse:
        arrived = time.monotonic()
        left = context.time_remaining()
        patience = PATIENCE_SECONDS if left is None else min(left, MAX_PATIENCE_SECONDS)
        serving = self._served()
        call = Call(request, serving, self.decoders, priority, arrived, arrived + patience)
        serving.in_flight += 1
        try:
            return pb.SuggestResponse(results=await call.results(), model=serving.label)
        finally:
            serving.in_flight -= 1

    def _served(self) -> Serving:
        if self.draining:
            raise errors.Draining("This server is shutting down. Another one will answer.")
        if self.serving is None:
            raise errors.NoModel("No model is loaded yet. Wait until the server is ready.")
        return self.serving


class Call:
    """One request on its way; each image has its own fate."""

    def __init__(
        self,
        request: pb.SuggestRequest,
        serving: Serving,
        decoders: Decoders,
        priority: Priority,
        arrived: float,
        deadline: float,
    ) -> None:
        self._request, self._serving, self._decoders = request, serving, decoders
        self._priority, self._arrived, self._deadline = priority, arrived, deadline
        _check(request, serving.model)
        self._ask = Ask(request.include_embedding, _explained(request.explain_emoji, serving.model))

    async def results(self) -> list[pb.SuggestResult]:
        """One for each image, in order. Raises what concerns the call as a whole."""
        costs = [self._cost(image.content) for image in self._request.images]
        sound = [cost for cost in costs if isinstance(cost, float)]
        if sound:
            self._serving.admission.admit(sound, self._priority, self._deadline)
        ones = [self._one(i.content, c) for i, c in zip(self._request.images, costs, strict=True)]
        if len(ones) == 1:
            return [await ones[0]]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in ones]
        except* errors.EmojinetError as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def _cost(self, content: bytes) -> float | errors.ImageError:
        try:
            return self._decoders.check(content)
        except errors.ImageError as error:
            return error

    async def _one(self, content: bytes, cost: float | errors.ImageError) -> pb.SuggestResult:
        if isinstance(cost, errors.ImageError):
            return self._refuse(cost)
        model = self._serving.model
        try:
            view = await self._decoders.view(
                content,
                cost_seconds=cost,
                preprocessing=model.preprocessing,
                priority=self._priority,
                deadline=self._deadline - self._serving.gate.image_seconds,
            )
        except (errors.ImageError, errors.Internal) as error:
            return self._refuse(error)
        gate = self._serving.gate
        seen = await gate.look(view.rgb, self._ask, self._priority, self._deadline)
        return self._answer(view, seen)

    def _refuse(self, error: errors.EmojinetError) -> pb.SuggestResult:
        result = pb.SuggestResult(error=errors.to_proto(error))
        result.timing.total.FromNanoseconds(int((time.monotonic() - self._arrived) * 1e9))
        return result

    def _answer(self, view: View, seen: Seen) -> pb.SuggestResult:
        result = pb.SuggestResult()
        request, known = self._request, self._serving.model.vocabulary
        best = ranked(
            known,
            seen.probabilities_K,
            most=request.max_suggestions,
            least=request.min_probability,
        )
        result.suggestions.suggestions.extend(best)
        if seen.embedding_F is not None:
            result.suggestions.embedding.extend(seen.embedding_F)
        if seen.evidence_hw is not None:
            explained = result.suggestions.saliency
            explained.emoji = known.emoji[self._ask.explain]
            explained.png = saliency.to_png(
                seen.evidence_hw, self._serving.model.preprocessing.size_px
            )
            left, top, right, bottom = view.box
            explained.box.MergeFrom(pb.Box(left=left, top=top, right=right, bottom=bottom))
        seconds = {
            "decode_wait": view.served.waited_seconds,
            "decode": view.served.worked_seconds,
            "queue_wait": seen.served.waited_seconds,
            "compute": seen.served.worked_seconds,
            "total": time.monotonic() - self._arrived,
        }
        for name, value in seconds.items():
            getattr(result.timing, name).FromNanoseconds(int(value * 1e9))
        result.timing.batch_size = seen.served.batch_size
        self._serving.observe(seconds, seen.served.batch_size)
        return result


def _explained(emoji: str, model: Model) -> int:
    """The output of the emoji to explain; -1 where none is asked for."""
    if not emoji:
        return -1
    output = model.vocabulary.index(emoji)
    if output is None:
        raise errors.UnknownEmoji(
            f"The model {model.name} does not know {emoji[:16]!r}; "
            "GetServedModel lists what it knows.",
            emoji=emoji[:16],
        )
    return output


def _check(request: pb.SuggestRequest, model: Model) -> None:
    """Raises unless every field keeps the rule that the contract states for it."""
    least = request.min_probability
    rules = {
        "images": (1 <= len(request.images) <= MAX_IMAGES, f"1 to {MAX_IMAGES}"),
        "max_suggestions": (0 <= request.max_suggestions <= MAX_SUGGESTIONS, "0 to 100"),
        "min_probability": (0 <= least <= 1, "from 0 to 1"),  # false for NaN, too
        "priority": (request.priority in (0, *PRIORITIES), "a Priority"),
    }
    for field, (holds, rule) in rules.items():
        if not holds:
            value = getattr(request, field)
            value = len(value) if field == "images" else value
            raise errors.MalformedRequest(f"{field} must be {rule}, not {value}.", field=field)
    names = ("", model.name, f"{model.name}@{model.version}")
    if request.model not in names:
        raise errors.UnknownModel(
            f"The model {request.model[:80]!r} is not served here; {names[2]} is.",
            model=request.model[:80],
            served=names[2],
        )


async def _bounded_map(
    answer: Callable[[A], Awaitable[B]], asks: AsyncIterator[A], limit: int
) -> AsyncIterator[B]:
    """Answers in the order in which they are ready; at most `limit` asks are under way."""
    answers: asyncio.Queue[B | None] = asyncio.Queue()
    room = asyncio.Semaphore(limit)

    async def one(ask: A) -> None:
        await answers.put(await answer(ask))

    async def read() -> None:
        async with asyncio.TaskGroup() as group:
            async for ask in asks:
                await room.acquire()
                group.create_task(one(ask))
        await answers.put(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        while (response := await answers.get()) is not None:
            yield response
            room.release()
