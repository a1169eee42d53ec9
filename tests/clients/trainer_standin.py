"""A trainer that speaks the contract and does what a test tells it to, on a port of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc
from services.shared import errors
from tests.clients.standin import Context, fail

BEGUN_SECONDS = 1_795_000_000
VERSION = "0123456789ab"
METRICS = (
    ("test", "top1", 0.42, 0.4, 0.44),
    ("test", "top1_head", 0.6, 0.5, 0.7),
    ("test", "prior_top1", 0.1, 0.09, 0.11),
    ("test", "chance_top1", 0.002, 0.001, 0.003),
    ("test", "macro_recall", 0.3, 0.25, float("nan")),
)


def run(
    state: states.State = states.STATE_RUNNING,
    name: str = "train-1",
    step: int = 120,
    judged: bool = False,
    error: errors.EmojinetError | None = None,
) -> pb.Run:
    """A run of 500 steps."""
    asked = pb.StartRunRequest(kind=pb.RUN_KIND_TRAIN, recipe="quick", dataset="first")
    asked.settings["steps"] = "500"
    made = pb.Run(name=name, state=state, request=asked, activity="learning", uri=f"/runs/{name}")
    if step:
        made.progress.step, made.progress.steps, made.progress.loss = step, 500, 2.5
        made.progress.images_per_second, made.progress.data_wait_share = 85.0, 0.03
        made.progress.remaining.FromSeconds(125)
    if judged:
        made.metrics.extend(
            pb.Metric(split=s, name=n, value=v, low=low, high=high)
            for s, n, v, low, high in METRICS
        )
    made.create_time.FromSeconds(BEGUN_SECONDS)
    if state not in (states.STATE_RUNNING, states.STATE_PAUSED):
        made.end_time.FromSeconds(BEGUN_SECONDS + 90)
    if error:
        made.error.CopyFrom(errors.to_proto(error))
    return made


def model(name: str = "quick", version: str = VERSION, live: bool = True) -> pb.Model:
    """A published model."""
    made = pb.Model(name=name, version=version, live=live, emoji=500, uri=f"/registry/{name}")
    made.card = "# What it knows\n\nPictures \x1b[31mof *cats*."
    made.create_time.FromSeconds(BEGUN_SECONDS)
    return made


class TrainerStandin(rpc.TrainerServiceServicer):
    """Answers with `runs`, the last of each name where one is asked for, and with `models`.

    Args:
        runs: the states that watchers are sent, in their order.
        between: called between two of them; may wait, or fail the call.
    """

    def __init__(
        self,
        *runs: pb.Run,
        models: tuple[pb.Model, ...] = (),
        between: Callable[[Context], Any] = lambda context: None,
        port: int = 0,
    ) -> None:
        self.requests: list[Message] = []
        self._runs, self._models, self._between, self._port = runs, models, between, port

    def _of(self, name: str, context: Context) -> list[pb.Run]:
        if found := [run for run in self._runs if run.name == name]:
            return found
        fail(context, errors.UnknownRun(f"There is no run {name}.", name=name))

    def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        self.requests.append(request)
        return pb.StartRunResponse(run=self._runs[0])

    def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=self._of(request.name, context)[-1])

    def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=self._runs)

    def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> Iterator[pb.WatchRunResponse]:
        for number, now in enumerate(self._of(request.name, context)):
            if number:
                self._between(context)
            yield pb.WatchRunResponse(run=now)

    def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        self.requests.append(request)
        return pb.CancelRunResponse(run=run(states.STATE_CANCELLED, request.name))

    def PublishModel(
        self, request: pb.PublishModelRequest, context: Context
    ) -> pb.PublishModelResponse:
        self.requests.append(request)
        return pb.PublishModelResponse(model=model(live=request.activate))

    def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self._models)

    def ActivateModel(
        self, request: pb.ActivateModelRequest, context: Context
    ) -> pb.ActivateModelResponse:
        self.requests.append(request)
        return pb.ActivateModelResponse(model=model(request.name, request.version))

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        rpc.add_TrainerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
