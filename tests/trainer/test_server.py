"""What the service says at once, without any training."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from emojinet.v1 import trainer_service_pb2 as pb
from emojinet.v1 import trainer_service_pb2_grpc as rpc
from services.shared import errors, harness
from services.shared.errors import EmojinetError, MalformedRequest, UnknownDataset
from services.trainer.ledger import ACCOUNTS
from services.trainer.metrics import Metrics
from services.trainer.runs import Runs, dataset_folder
from services.trainer.server import TrainerService
from tests.trainer.running import brisk, train, trainer  # noqa: F401


def error(raised: "pytest.ExceptionInfo[grpc.aio.AioRpcError]") -> EmojinetError:
    """What a caller was told."""
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status
    return errors.from_proto(status)


async def test_all_series_are_there_at_zero_from_the_start(tmp_path: Path) -> None:
    async with trainer(tmp_path) as running:
        assert running.sample("emojinet_train_images_total") == 0
        assert running.sample("emojinet_train_loss") == 0
        for account in ACCOUNTS:
            assert running.sample("emojinet_train_seconds_total", activity=account) == 0


async def test_a_service_that_is_still_starting_says_so(tmp_path: Path) -> None:
    server = harness.new_server(harness.Boundary())
    rpc.add_TrainerServiceServicer_to_server(TrainerService(tmp_path), server)
    port = harness.bind(server, "127.0.0.1", 0)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="starting or shutting down") as raised:
            await rpc.TrainerServiceStub(channel).ListRuns(pb.ListRunsRequest())
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


async def test_nothing_is_listed_before_there_is_anything(tmp_path: Path) -> None:
    async with trainer(tmp_path) as running:
        assert not (await running.stub.ListRuns(pb.ListRunsRequest())).runs
        assert not (await running.stub.ListModels(pb.ListModelsRequest())).models


async def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    async with trainer(tmp_path) as running:
        stub, name = running.stub, "../../etc/passwd"
        for call in (
            lambda: stub.GetRun(pb.GetRunRequest(name=name)),
            lambda: stub.CancelRun(pb.CancelRunRequest(name=name)),
            lambda: stub.PublishModel(pb.PublishModelRequest(run=name)),
            lambda: stub.WatchRun(pb.WatchRunRequest(name=name)).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call()  # type: ignore[no-untyped-call]
            assert isinstance(told := error(raised), errors.UnknownRun)
            assert told.metadata == {"name": name}
        for which in ((name, "0" * 12), ("", ""), ("starter", name)):
            request = pb.ActivateModelRequest(name=which[0], version=which[1])
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ActivateModel(request)
            assert isinstance(error(raised), errors.UnknownModel)
        assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"kind": pb.RUN_KIND_UNSPECIFIED}, "kind"),
        ({"kind": pb.RUN_KIND_ATLAS}, "recipe"),
        ({"kind": pb.RUN_KIND_ATLAS, "recipe": "", "model_name": "x"}, "model_name"),
        ({"kind": pb.RUN_KIND_ATLAS, "recipe": "", "dataset": ""}, "dataset"),
        ({"kind": pb.RUN_KIND_ATLAS, "settings": {"steps": "5"}}, "settings.steps"),
        ({"kind": pb.RUN_KIND_ATLAS, "settings": {"model": "5"}}, "settings.model"),
        ({"kind": pb.RUN_KIND_ATLAS, "settings": {"faces": '"melt"'}}, "settings.faces"),
        ({"kind": pb.RUN_KIND_ATLAS, "settings": {"compare": '"a,b"'}}, "settings.compare"),
        ({"kind": 77}, "kind"),
        ({"recipe": ""}, "recipe"),
        ({"recipe": "../quick"}, "recipe"),
        ({"recipe": "quik"}, "recipe"),
        ({"settings": {"stpes": "5"}}, "settings.stpes"),
        ({"settings": {"steps": "-1"}}, "settings.steps"),
        ({"settings": {"steps": "NaN"}}, "settings.steps"),
        ({"settings": {"steps": "[" * 4000}}, "settings.steps"),
        ({"settings": {"weights": '"' + "x" * 5000 + '"'}}, "settings.weights"),
        ({"settings": {"weights": '"\\u0000"'}}, "settings.weights"),
        ({"settings": {"name": '"x"'}}, "settings.name"),
        ({"model_name": "../up"}, "model_name"),
        ({"model_name": "A"}, "model_name"),
        ({"dataset": ""}, "dataset"),
        ({"dataset": "."}, "dataset"),
        ({"dataset": "../first"}, "dataset"),
        ({"dataset": "first/.."}, "dataset"),
        ({"dataset": "--output=x"}, "dataset"),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named_and_nothing_is_begun(
    wrong: dict[str, Any], field: str, tmp_path: Path
) -> None:
    (tmp_path / "datasets" / "first").mkdir(parents=True)
    runs = Runs(tmp_path, Metrics(CollectorRegistry()))
    with pytest.raises(MalformedRequest) as raised:
        runs.start(train(**({"dataset": "first"} | wrong)))
    assert raised.value.metadata["field"] == field
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700
    assert not (tmp_path / "runs").exists()


@given(named=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_name_leads_out_of_the_folder_of_data_sets(tmp_path: Path, named: str) -> None:
    (tmp_path / "datasets").mkdir(exist_ok=True)
    if named.startswith("/"):
        return  # a path: its own test is the next
    with pytest.raises((MalformedRequest, UnknownDataset)):
        dataset_folder(tmp_path, named)


def test_a_data_set_is_found_by_its_name_or_by_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "first"
    folder.mkdir(parents=True)
    (folder / "dataset.json").touch()
    assert dataset_folder(tmp_path, "first") == folder
    assert dataset_folder(tmp_path / "other", str(folder)) == folder
    for path in ("second", "/no/such\0folder", "/" + "x" * 5000, str(folder / "dataset.json")):
        with pytest.raises(UnknownDataset, match="there are first"):
            dataset_folder(tmp_path, path)
    with pytest.raises(UnknownDataset, match="there is none yet"):
        dataset_folder(tmp_path / "other", "first")
