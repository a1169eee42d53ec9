"""Every kind of call that a stranger may make, drawn by seed, and what may come of it."""

import random
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import grpc
import numpy as np

from clients.arrivals import poisson, steps
from clients.client import from_rpc, suggest_request
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from services.shared.errors import EmojinetError
from tests import corpus
from tests.inference.oip import requests as oip
from tests.photographs import make

SUGGEST, STREAM, SERVED_MODEL = (
    f"/emojinet.v1.InferenceService/{name}"
    for name in ("Suggest", "SuggestStream", "GetServedModel")
)
OPEN = "/inference.GRPCInferenceService/ModelInfer"
ASKS = 400  # different ones
SIZES = {(640, 480): 18, (320, 240): 6, (1632, 1224): 4}  # of photographs, and how many
MOST_BYTES = 100_000  # of a broken picture: larger ones cost the callers more than the server
RATE, BURST, TURN_SECONDS = 12.0, 100, 5.0  # calls a second, and more at once behind each turn
DEADLINES = (0.03, 0.1, 1.0, 1.0, 1.0, 10.0)
CANCELLED, CANCEL_SECONDS = 0.15, 0.2  # so many give up, after so long at most
THEIR_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


class Ask(NamedTuple):
    """What is asked: one request, or those of a stream."""

    method: str
    requests: list[bytes]
    sound: list[bool]
    """Whether each picture must be seen; of a stream, that of each request."""
    faulty: bool = False
    """Whether all of it may be refused as the caller's fault."""


class Call(NamedTuple):
    """When, for how long, and when its caller gives up, in seconds."""

    at: float
    ask: Ask
    deadline: float
    cancel: float | None


class Fate(StrEnum):
    """What became of a call; of its parts the last of these that holds."""

    ANSWERED = "answered"  # also where the answer rightly says what is wrong with it
    REFUSED = "refused"
    LATE = "late"
    CANCELLED = "cancelled"
    FAILED = "failed"


Outcome = tuple[Fate, str]
"""With the reason, where it failed."""
FATES = list(Fate)
Came = Sequence[bytes] | grpc.aio.AioRpcError | None
"""Answers, what went wrong, or nothing for who has given up."""


class Asks:
    """Draws what is asked of a server with this model, which knows this emoji."""

    def __init__(self, model: str, emoji: str, rng: random.Random) -> None:
        self._model, self._emoji, self._rng = model, emoji, rng
        photographs = [jpeg for size, count in SIZES.items() for jpeg in make(*size, count)]
        formats = [case.content for case in corpus.valid() if len(case.content) < MOST_BYTES]
        self._sound = (photographs, photographs, formats)
        self._broken = [c.content for c in corpus.hostile() if len(c.content) < MOST_BYTES]

    def draw(self) -> Ask:
        """Any of them, most often the simplest."""
        kinds: dict[Callable[[], Ask], int] = {
            self._one: 16,
            self._several: 6,
            self._explained: 4,
            self._hostile: 4,
            self._open: 4,
            self._open_square: 1,
            self._malformed: 2,
            self._stream: 1,
            self._served_model: 1,
        }
        (kind,) = self._rng.choices(list(kinds), list(kinds.values()))
        return kind()

    def _picture(self, broken_share: float = 0.0) -> tuple[bytes, bool]:
        if self._rng.random() < broken_share:
            return self._rng.choice(self._broken), False
        return self._rng.choice(self._rng.choice(self._sound)), True

    def _priority(self) -> pb.Priority:
        return self._rng.choice((pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK))

    def _suggest(self, *pictures: tuple[bytes, bool], embed: bool = False, why: str = "") -> Ask:
        contents, sound = zip(*pictures, strict=True)
        request = suggest_request(
            contents, priority=self._priority(), include_embedding=embed, explain_emoji=why
        )
        return Ask(SUGGEST, [request.SerializeToString()], list(sound))

    def _one(self) -> Ask:
        return self._suggest(self._picture())

    def _several(self) -> Ask:
        return self._suggest(*(self._picture(0.2) for _ in range(self._rng.randint(2, 8))))

    def _explained(self) -> Ask:
        why = self._rng.choice(("", self._emoji))
        return self._suggest(self._picture(), embed=True, why=why)

    def _hostile(self) -> Ask:
        return self._suggest(self._picture(1.0))

    def _open(self) -> Ask:
        contents, sound = zip(*(self._picture(0.1) for _ in range(2)), strict=True)
        raw = self._rng.random() < 0.5
        request = oip.pictures(*contents, name=self._model, raw=raw)
        return Ask(OPEN, [request.SerializeToString()], [], faulty=not all(sound))

    def _open_square(self) -> Ask:
        square = np.full((1, 224, 224, 3), float(self._rng.randrange(256)))
        return Ask(OPEN, [oip.squares(square, self._model).SerializeToString()], [])

    def _malformed(self) -> Ask:
        picture, _ = self._picture()
        elsewhere = suggest_request([picture], model="another")
        method, request, sound = self._rng.choice(
            [
                (SUGGEST, suggest_request([]), []),
                (SUGGEST, elsewhere, [True]),
                (OPEN, oip.pictures(picture, name="another"), []),
                (OPEN, oip.squares(np.zeros((1, 8, 8, 3)), self._model), []),
            ]
        )
        return Ask(method, [request.SerializeToString()], sound, faulty=True)

    def _stream(self) -> Ask:
        pictures = [self._picture(0.1) for _ in range(self._rng.randint(8, 24))]
        requests = [
            pb.SuggestStreamRequest(id=n, request=suggest_request([content])).SerializeToString()
            for n, (content, _) in enumerate(pictures)
        ]
        return Ask(STREAM, requests, [sound for _, sound in pictures])

    def _served_model(self) -> Ask:
        request = pb.GetServedModelRequest().SerializeToString()
        return Ask(SERVED_MODEL, [request], [])


def calls(asks: Sequence[Ask], seconds: float, rng: random.Random) -> Iterator[Call]:
    """Calm, and more at once than any server can do, in turn."""
    turn = 0.0
    while turn < seconds:
        calm = poisson(steps([RATE], TURN_SECONDS), rng)
        for at in (*calm, *[TURN_SECONDS] * BURST):
            gives_up = rng.uniform(0, CANCEL_SECONDS) if rng.random() < CANCELLED else None
            yield Call(turn + at, rng.choice(asks), rng.choice(DEADLINES), gives_up)
        turn += TURN_SECONDS


def expected(seconds: float) -> float:
    """How many calls there are in that time, about."""
    return seconds * (RATE + BURST / TURN_SECONDS)


def outcome(ask: Ask, came: Came) -> Outcome:
    """What became of a call, judged by what it asked."""
    if came is None:
        return Fate.CANCELLED, ""
    if isinstance(came, grpc.aio.AioRpcError):
        return _of_error(from_rpc(came, ""), ask.faulty)
    parts: list[Outcome] = [(Fate.ANSWERED, "")]
    if ask.method == SUGGEST:
        results = pb.SuggestResponse.FromString(came[0]).results
        parts += [_of_result(r, sound) for r, sound in zip(results, ask.sound, strict=True)]
    elif ask.method == STREAM:
        responses = [pb.SuggestStreamResponse.FromString(answer) for answer in came]
        if sorted(response.id for response in responses) != list(range(len(ask.requests))):
            parts.append((Fate.FAILED, "answers are missing"))
        parts += [_of_response(response, ask.sound[response.id]) for response in responses]
    return max(parts, key=lambda part: FATES.index(part[0]))


def _of_response(response: pb.SuggestStreamResponse, sound: bool) -> Outcome:
    if response.HasField("error"):
        return _of_error(errors.from_proto(response.error), False)
    return _of_result(response.response.results[0], sound)


def _of_result(result: pb.SuggestResult, sound: bool) -> Outcome:
    if result.HasField("error"):
        return _of_error(errors.from_proto(result.error), not sound)
    return Fate.ANSWERED, ""


def _of_error(error: EmojinetError, faulty: bool) -> Outcome:
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Fate.REFUSED, ""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        said = error.reason != reasons.ERROR_REASON_UNSPECIFIED
        return (Fate.REFUSED if said else Fate.LATE), ""
    if faulty and error.code in THEIR_FAULT:
        return Fate.ANSWERED, ""
    return Fate.FAILED, f"{error.code.name} {errors.reason_name(error)}"
