"""Calls the trainer from Python, typed by the contract.

    with TrainerClient("127.0.0.1:50053") as client:
        run = client.start_run(request)
        for run in client.watch_run(run.name):
            print(run.activity)

What goes wrong with a call is an `EmojinetError`. Watching outlives restarts of the server.
"""

from collections.abc import Iterator

from clients.calling import Calling, Note
from clients.credentials import Credentials
from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc

DEFAULT_SERVER = "127.0.0.1:50053"
CHECK_SECONDS = 300.0  # a model's checks load it, and look at its probes


class TrainerClient(Calling):
    """Calls a server and waits for it; threads may share one."""

    SERVICE = "trainer"

    def __init__(
        self, server: str = DEFAULT_SERVER, credentials: Credentials | None = None
    ) -> None:
        super().__init__(server, rpc.TrainerServiceStub, credentials)

    def start_run(self, request: pb.StartRunRequest) -> pb.Run:
        """The run, as accepted. Every method raises EmojinetError for what goes wrong."""
        return self._call(self._stub.StartRun, request).run

    def get_run(self, name: str) -> pb.Run:
        """A run."""
        return self._call(self._stub.GetRun, pb.GetRunRequest(name=name)).run

    def list_runs(self) -> list[pb.Run]:
        """All runs, the newest first."""
        return list(self._call(self._stub.ListRuns, pb.ListRunsRequest()).runs)

    def watch_run(self, name: str, note: Note = lambda line: None) -> Iterator[pb.Run]:
        """The run now, after each change, and as it ended; `note` is told of lost connections."""
        request = pb.WatchRunRequest(name=name)
        return self._watch(lambda: (r.run for r in self._stub.WatchRun(request)), note)

    def cancel_run(self, name: str) -> pb.Run:
        """The run as it ended."""
        return self._call(self._stub.CancelRun, pb.CancelRunRequest(name=name)).run

    def publish_model(self, run: str, *, activate: bool = False) -> pb.Model:
        """The model of a run, as it is in the registry now."""
        request = pb.PublishModelRequest(run=run, activate=activate)
        return self._call(self._stub.PublishModel, request, CHECK_SECONDS).model

    def list_models(self) -> list[pb.Model]:
        """All models of the registry, the newest first."""
        request = pb.ListModelsRequest()
        return list(self._call(self._stub.ListModels, request, CHECK_SECONDS).models)

    def activate_model(self, name: str, version: str) -> pb.Model:
        """The model, which is live now."""
        request = pb.ActivateModelRequest(name=name, version=version)
        return self._call(self._stub.ActivateModel, request, CHECK_SECONDS).model
