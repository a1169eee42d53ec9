"""The gRPC face: wire in, admission, decoders, gate, wire out."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc

from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from emojinet.v1 import model_pb2
from services.inference import streams
from services.inference.admission import Admission
from services.inference.gate import Ask, Gate, Seen
from services.inference.metrics import Metrics
from services.inference.statistics import Statistics
from services.shared import errors, saliency, traces
from services.shared.decoders import Decoders, View
from services.shared.model import Model
from services.shared.queue import Priority
from services.shared.suggestions import ranked

MAX_IMAGES = 64
MAX_SUGGESTIONS = 100
PATIENCE_SECONDS = 30.0  # of callers who set no deadline
MAX_PATIENCE_SECONDS = 300.0
PRIORITIES = {pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE, pb.PRIORITY_BULK: Priority.BULK}

A = TypeVar("A")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Serving:
    """One model being served, and who still waits for it: what a swap exchanges whole."""

    def __init__(self, decoders: Decoders, gate: Gate, metrics: Metrics) -> None:
        self.decoders, self.gate, self.model = decoders, gate, gate.model
        self.admission = Admission(decoders, gate, metrics)
        self.label = model_pb2.ServedModel(
            name=gate.model.name,
            version=gate.model.version,
            backend=gate.backend,
            precision=gate.precision,
        )
        self.statistics = Statistics()
        self.in_flight = 0
        self._metrics = metrics

    def observe(self, seconds: dict[str, float], batch_size: int) -> None:
        """Tells Prometheus where the time of one answered image went."""
        for stage, name in (("decode", "decode"), ("device", "compute"), ("total", "total")):
            if name in seconds:
                self._metrics.stage_seconds[stage].observe(seconds[name])
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

        async for response in streams.answers(answer, requests, in_order=False):
            yield response

    async def GetServedModel(
        self, request: pb.GetServedModelRequest, context: Context
    ) -> pb.GetServedModelResponse:
        serving = self.served()
        return pb.GetServedModelResponse(
            model=serving.label, emoji=serving.model.vocabulary.emoji, card=serving.model.card
        )

    async def _suggest(
        self, request: pb.SuggestRequest, priority: Priority, context: Context
    ) -> pb.SuggestResponse:
        serving = self.served()
        _check(request, serving.model)
        ask = Ask(request.include_embedding, _explained(request.explain_emoji, serving.model))
        with Call(serving, ask, priority, patience_seconds(context)) as call:
            results = await call.pictures(
                [image.content for image in request.images],
                lambda seen, view: _result(request, call, seen, view),
                lambda index, error: _refusal(call, error),
            )
            return pb.SuggestResponse(results=results, model=serving.label)

    def served(self) -> Serving:
        """What answers now; raises Draining or NoModel when nothing does."""
        if self.draining:
            raise errors.Draining("This server is shutting down. Another one will answer.")
        if self.serving is None:
            raise errors.NoModel("No model is loaded yet. Wait until the server is ready.")
        return self.serving


class Call:
    """One request on its way through admission, decoders and gate; each picture has its own fate.

    A context: the model is not swapped away before it is left.
    """

    def __init__(
        self, serving: Serving, ask: Ask, priority: Priority, patience_seconds: float
    ) -> None:
        self.serving, self.ask, self.arrived = serving, ask, time.monotonic()
        self._priority, self._deadline = priority, self.arrived + patience_seconds
        self._slowest: dict[str, float] | None = None

    def __enter__(self) -> "Call":
        self.serving.in_flight += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: object
    ) -> None:
        self.serving.in_flight -= 1
        statistics = self.serving.statistics
        if failure is None and self._slowest is not None:
            statistics.succeed(self._slowest, self.age_seconds())
        else:
            statistics.fail.add(self.age_seconds())

    def age_seconds(self) -> float:
        """How long ago the request arrived."""
        return time.monotonic() - self.arrived

    async def pictures(
        self,
        contents: Sequence[bytes],
        answer: Callable[[Seen, View], A],
        refuse: Callable[[int, errors.EmojinetError], A],
    ) -> list[A]:
        """For each encoded picture what `answer` makes of it, or `refuse` of what is wrong with it.

        Raises what concerns the call as a whole, and what the two raise.
        """
        costs: dict[int, float] = {}
        fates: dict[int, A] = {}
        for index, content in enumerate(contents):
            try:
                costs[index] = self.serving.decoders.check(content)
            except errors.ImageError as error:
                fates[index] = refuse(index, error)
        if costs:
            self.serving.admission.admit(list(costs.values()), self._priority, self._deadline)

        async def one(index: int, cost: float) -> A:
            try:
                view = await self._view(contents[index], cost)
            except (errors.ImageError, errors.Internal) as error:
                return refuse(index, error)
            return answer(await self._look(view.rgb), view)

        sound = await _together([one(index, cost) for index, cost in costs.items()])
        fates |= zip(costs, sound, strict=True)
        return [fates[index] for index in range(len(contents))]

    async def squares(self, rgbs: Sequence[bytes], answer: Callable[[Seen], A]) -> list[A]:
        """The same for what has been decoded already, and cut as the model wants it."""
        costs = [0.0] * len(rgbs)
        self.serving.admission.admit(costs, self._priority, self._deadline, decoded=True)

        async def one(rgb: bytes) -> A:
            return answer(await self._look(rgb))

        return await _together([one(rgb) for rgb in rgbs])

    def account(self, seen: Seen, view: View | None = None) -> dict[str, float]:
        """Where the time of one answered image went, for its caller; tells the metrics, too."""
        seconds = {
            "queue_wait": seen.served.waited_seconds,
            "compute": seen.served.worked_seconds,
            "total": self.age_seconds(),
        }
        if view is not None:
            seconds["decode_wait"] = view.served.waited_seconds
            seconds["decode"] = view.served.worked_seconds
        self.serving.observe(seconds, seen.served.batch_size)
        traces.picture(seconds, seen.served.batch_size)
        if self._slowest is None or seconds["total"] > self._slowest["total"]:
            self._slowest = seconds
        return seconds

    async def _view(self, content: bytes, cost: float) -> View:
        return await self.serving.decoders.view(
            content,
            cost_seconds=cost,
            preprocessing=self.serving.model.preprocessing,
            priority=self._priority,
            deadline=self._deadline - self.serving.gate.image_seconds,
        )

    async def _look(self, rgb: bytes) -> Seen:
        alone = self.serving.in_flight == 1
        return await self.serving.gate.look(
            rgb, self.ask, self._priority, self._deadline, alone=alone
        )


def patience_seconds(context: Context) -> float:
    """How long the caller will wait."""
    left = context.time_remaining()
    return PATIENCE_SECONDS if left is None else min(left, MAX_PATIENCE_SECONDS)


async def _together(ones: Sequence[Coroutine[Any, Any, A]]) -> list[A]:
    """What all of them return; the first failure is raised, and ends the others."""
    if len(ones) == 1:
        return [await ones[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in ones]
    except* errors.EmojinetError as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _refusal(call: Call, error: errors.EmojinetError) -> pb.SuggestResult:
    result = pb.SuggestResult(error=errors.to_proto(error))
    result.timing.total.FromNanoseconds(int(call.age_seconds() * 1e9))
    return result


def _result(request: pb.SuggestRequest, call: Call, seen: Seen, view: View) -> pb.SuggestResult:
    result, model = pb.SuggestResult(), call.serving.model
    best = ranked(
        model.vocabulary,
        seen.probabilities_K,
        most=request.max_suggestions,
        least=request.min_probability,
    )
    result.suggestions.suggestions.extend(best)
    if seen.embedding_F is not None:
        result.suggestions.embedding.extend(seen.embedding_F)
    if seen.evidence_hw is not None:
        explained = result.suggestions.saliency
        explained.emoji = model.vocabulary.emoji[call.ask.explain]
        explained.png = saliency.to_png(seen.evidence_hw, model.preprocessing.size_px)
        left, top, right, bottom = view.box
        explained.box.MergeFrom(pb.Box(left=left, top=top, right=right, bottom=bottom))
    for name, seconds in call.account(seen, view).items():
        getattr(result.timing, name).FromNanoseconds(int(seconds * 1e9))
    result.timing.batch_size = seen.served.batch_size
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
