"""An atlas as a run of the service: real processes, watched from afar."""

import json
import shutil
from pathlib import Path

import grpc
import pytest

from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from services.trainer import runs
from tests.trainer.atlas.making import EMOJI, find, frozen
from tests.trainer.running import brisk, is_in, trainer  # noqa: F401

pytestmark = pytest.mark.system  # they take a minute together


def asked(**settings: str) -> pb.StartRunRequest:
    said = {field: json.dumps(value) for field, value in settings.items()}
    return pb.StartRunRequest(kind=pb.RUN_KIND_ATLAS, dataset="set", settings=said)


@pytest.fixture
def data(tmp_path: Path, starter: Path) -> Path:
    finds = [
        find(tmp_path / "jpeg", n, [EMOJI[n % 4]], author=f"author {n % 30}") for n in range(40)
    ]
    (tmp_path / "data" / "datasets").mkdir(parents=True)
    frozen(tmp_path / "data" / "datasets", finds)
    shutil.copytree(starter.parents[1], tmp_path / "data" / "registry")
    return tmp_path / "data"


async def test_a_run_makes_an_atlas_and_tells_how_far_it_is(data: Path) -> None:
    async with trainer(data, runs.command) as running:
        name = (await running.stub.StartRun(asked())).run.name
        assert name.startswith("atlas-")
        seen = await running.seen(name)
        assert seen[-1].state == states.STATE_SUCCEEDED, seen[-1]
        assert (Path(seen[-1].uri) / "atlas.html").exists()
        assert seen[-1].progress.step == seen[-1].progress.steps > 0
        with pytest.raises(grpc.aio.AioRpcError, match="has no model"):
            await running.stub.PublishModel(pb.PublishModelRequest(run=name))


async def test_a_run_that_cannot_be_made_says_why(data: Path) -> None:
    async with trainer(data, runs.command) as running:
        name = (await running.stub.StartRun(asked(model="unheard-of"))).run.name
        ended = (await running.seen(name))[-1]
        assert ended.state == states.STATE_FAILED
        assert "There is no model 'unheard-of'" in ended.error.message


async def test_an_atlas_is_cancelled_like_any_run(data: Path) -> None:
    async with trainer(data, runs.command) as running:
        name = (await running.stub.StartRun(asked())).run.name
        await running.reached(name, is_in(states.STATE_RUNNING))
        await running.stub.CancelRun(pb.CancelRunRequest(name=name))
        assert (await running.seen(name))[-1].state == states.STATE_CANCELLED
