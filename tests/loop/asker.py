"""A client that asks the inference service all the time, and forgets no failure."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple, Self

import grpc

from clients.client import from_rpc, suggest_request
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc

CALLS_PER_SECOND = 4.0  # far below what the service can do: the machine has other work
DEADLINE_SECONDS = 10.0  # the command line's


class Answer(NamedTuple):
    """What came of a call."""

    at: float
    """When it was made, by the monotonic clock."""
    seconds: float
    model: str
    """Which spoke, as `name@version`; empty if the call failed."""
    error: str
    """Why it failed, refusals included; or empty."""


class Asker:
    """A context: from its beginning to its end a thread asks, one call after the other.

    It tries nothing twice, as `clients.client` would: a refusal is a failed call here.
    """

    def __init__(self, address: str, pictures: Sequence[bytes]) -> None:
        self._address = address
        self.pictures = pictures
        """What is asked about, in turn; may be changed while it asks."""
        self.answers: list[Answer] = []
        self._enough = threading.Event()

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, "asker")
        self._asking = self._thread.submit(self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks no more. Raises what kept it from asking; stopping twice is no error."""
        self._enough.set()
        self._thread.shutdown()
        self._asking.result()

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in list(self.answers) if answer.error]

    @property
    def models(self) -> list[str]:
        """Which models answered, in order: one that comes back is there twice."""
        return [model for model, _ in groupby(a.model for a in list(self.answers) if a.model)]

    def _ask(self) -> None:
        with grpc.insecure_channel(self._address, [("grpc.enable_http_proxy", 0)]) as channel:
            suggest = rpc.InferenceServiceStub(channel).Suggest
            for number in self._times():
                pictures = self.pictures
                request = suggest_request([pictures[number % len(pictures)]])
                began = time.monotonic()
                model, error = _outcome(suggest, request, self._address)
                self.answers.append(Answer(began, time.monotonic() - began, model, error))

    def _times(self) -> Iterator[int]:
        """A number whenever it is time to ask again."""
        number, due = 0, time.monotonic()
        while not self._enough.wait(max(0.0, due - time.monotonic())):
            yield number
            number, due = number + 1, max(due + 1 / CALLS_PER_SECOND, time.monotonic())


def _outcome(
    suggest: Callable[..., pb.SuggestResponse], request: pb.SuggestRequest, address: str
) -> tuple[str, str]:
    """The model that answered, or else what went wrong."""
    try:
        response = suggest(request, timeout=DEADLINE_SECONDS)
    except grpc.RpcError as failure:
        return "", str(from_rpc(failure, address))
    result = response.results[0]
    if result.WhichOneof("outcome") != "suggestions":
        return "", result.error.message or "an answer without suggestions"
    return f"{response.model.name}@{response.model.version}", ""
