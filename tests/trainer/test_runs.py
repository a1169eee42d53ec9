"""The life of runs, done by a real process that learns nothing: see `standin.py`."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors
from services.trainer import child, runs
from services.trainer.events import NAME, Events, Tail
from tests.trainer import standin
from tests.trainer.running import alive, brisk, is_in, trainer, until  # noqa: F401
from tests.trainer.standin import script, starts

pytestmark = pytest.mark.system

RUNNING, SUCCEEDED = states.STATE_RUNNING, states.STATE_SUCCEEDED
FAILED, CANCELLED = states.STATE_FAILED, states.STATE_CANCELLED
PENDING, PAUSED = states.STATE_PENDING, states.STATE_PAUSED


# -- to the end -----------------------------------------------------------------------------------


async def test_a_watcher_sees_the_state_of_now_then_changes_then_the_end(tmp_path: Path) -> None:
    script(tmp_path, steps=40)
    async with trainer(tmp_path) as running:
        name = await running.start(settings={"steps": "40"}, model_name="mine")
        seen = await running.seen(name)
        assert len(seen) > 3
        assert [run.progress.step for run in seen] == sorted(run.progress.step for run in seen)
        assert {run.state for run in seen} <= {PENDING, RUNNING, SUCCEEDED}
        last = seen[-1]
        assert (last.state, last.progress.step, last.progress.steps) == (SUCCEEDED, 40, 40)
        assert last.progress.loss == 1 / 40
        assert [(m.split, m.name, m.value, m.low, m.high) for m in last.metrics] == [
            ("test", "top1", 0.5, 0.4, 0.6),
            ("test", "prior_top1", 0.1, 0.1, 0.1),
        ]
        assert last.end_time.ToNanoseconds() > last.create_time.ToNanoseconds()
        assert not last.HasField("error")
        assert last.request.model_name == "mine"
        assert Path(last.uri) == tmp_path / "runs" / name
        assert await running.seen(name) == [last]
        assert running.sample("emojinet_train_images_total") == 40 * standin.BATCH
        assert running.sample("emojinet_train_seconds_total", activity="compute") == 20
        assert running.sample("emojinet_train_loss") == 1 / 40
    async with trainer(tmp_path) as running:  # what is told of it outlives the service
        assert await running.get(name) == last
        assert running.sample("emojinet_train_images_total") == 0
        assert running.sample("emojinet_runs", state="succeeded") == 1
        assert running.sample("emojinet_runs", state="failed") == 0


async def test_one_run_is_at_work_and_the_others_wait_in_their_order(tmp_path: Path) -> None:
    script(tmp_path, steps=50)
    async with trainer(tmp_path) as running:
        names = [await running.start() for _ in range(3)]
        await running.reached(names[0], is_in(RUNNING))
        listed = (await running.stub.ListRuns(pb.ListRunsRequest())).runs
        assert [run.name for run in listed] == names[::-1]
        assert [run.state for run in listed] == [PENDING, PENDING, RUNNING]
        assert listed[0].activity == "waits for its turn"
        ended = [(await running.seen(name))[-1] for name in names]
    first = [Tail(Path(run.uri) / NAME).new()[0] for run in ended]
    began = [event["time"] for event in first]
    for before, after in zip(ended, began[1:], strict=False):
        assert before.end_time.ToMilliseconds() / 1e3 <= after + 0.1


async def test_a_run_that_fails_says_why_and_the_next_begins(tmp_path: Path) -> None:
    script(tmp_path, "bad", steps=2, fails="BadDataset")
    script(tmp_path, steps=2)
    async with trainer(tmp_path) as running:
        bad, good = await running.start("bad"), await running.start()
        failed = (await running.seen(bad))[-1]
        assert failed.state == FAILED
        assert isinstance(told := errors.from_proto(failed.error), errors.BadDataset)
        assert (str(told), told.metadata) == ("So it is.", {"path": "/x"})
        assert len(starts(failed.uri)) == 1
        assert (await running.seen(good))[-1].state == SUCCEEDED


@pytest.mark.parametrize("status", [0, 3])
async def test_a_process_that_ends_without_a_word_is_a_failure(tmp_path: Path, status: int) -> None:
    script(tmp_path, steps=1, exits=status)
    async with trainer(tmp_path) as running:
        failed = (await running.seen(await running.start()))[-1]
        assert failed.state == FAILED
        assert f"ended with exit status {status}" in failed.error.message


async def test_a_program_that_cannot_be_started_fails_its_run(tmp_path: Path) -> None:
    script(tmp_path, steps=1)
    async with trainer(tmp_path, lambda *_: ["/no/such/program"]) as running:
        assert (await running.seen(await running.start()))[-1].state == FAILED


async def test_a_process_that_lingers_when_it_is_done_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "END_SECONDS", 0.3)
    script(tmp_path, steps=1, lingers=100)
    async with trainer(tmp_path) as running:
        run = (await running.seen(await running.start()))[-1]
        assert run.state == SUCCEEDED
        assert not alive(starts(run.uri)[0])


# -- killed ---------------------------------------------------------------------------------------


async def test_a_process_that_is_killed_is_started_again_and_goes_on(tmp_path: Path) -> None:
    script(tmp_path, steps=200)
    async with trainer(tmp_path) as running:
        name = await running.start()
        run = await running.reached(name, lambda run: run.progress.step > 5)
        os.kill(starts(run.uri)[-1], signal.SIGKILL)
        run = (await running.seen(name))[-1]
        assert (run.state, run.progress.step) == (SUCCEEDED, 200)
        assert len(starts(run.uri)) == 2
        # Steps that were made twice were learned from twice, and none is counted below zero.
        counted = running.sample("emojinet_train_images_total")
        assert counted is not None
        assert counted >= 200 * standin.BATCH


async def test_a_process_that_dies_often_and_gets_further_comes_to_its_end(tmp_path: Path) -> None:
    script(tmp_path, steps=9, mortal=True)
    async with trainer(tmp_path) as running:
        run = (await running.seen(await running.start()))[-1]
        assert run.state == SUCCEEDED
        assert len(starts(run.uri)) == 10


async def test_a_process_that_dies_at_the_same_step_is_given_up(tmp_path: Path) -> None:
    script(tmp_path, steps=9, stuck=4)
    async with trainer(tmp_path) as running:
        run = (await running.seen(await running.start()))[-1]
        assert run.state == FAILED
        assert isinstance(told := errors.from_proto(run.error), errors.TrainingFailed)
        assert "killed 6 times without getting further" in str(told)
        assert len(starts(run.uri)) == 1 + runs.MAX_DEATHS


async def test_an_exit_status_that_tells_of_a_signal_is_one(tmp_path: Path) -> None:
    script(tmp_path, steps=1, exits=137)
    async with trainer(tmp_path) as running:
        run = (await running.seen(await running.start()))[-1]
        assert "Killed" in run.error.message
        assert len(starts(run.uri)) == 6


# -- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [{"fails": "StorageFailed"}, {"exits": os.EX_TEMPFAIL}])
async def test_a_full_disk_pauses_a_run_until_there_is_room(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    script(tmp_path, steps=2, **said)
    async with trainer(tmp_path) as running:
        name = await running.start()
        paused = await running.reached(name, is_in(PAUSED))
        assert paused.state == PAUSED
        assert isinstance(errors.from_proto(paused.error), errors.StorageFailed)
        script(tmp_path, steps=2)
        run = (await running.seen(name))[-1]
        assert run.state == SUCCEEDED
        assert not run.HasField("error")
        assert len(starts(run.uri)) > 1


async def test_a_run_that_cannot_be_written_down_is_not_begun(tmp_path: Path) -> None:
    script(tmp_path, steps=2)
    (tmp_path / "runs").touch()
    async with trainer(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be written"):
            await running.start()
        assert not (await running.stub.ListRuns(pb.ListRunsRequest())).runs


# -- cancelling -----------------------------------------------------------------------------------


async def test_cancelling_ends_the_process_and_cancelling_again_changes_nothing(
    tmp_path: Path,
) -> None:
    script(tmp_path, steps=10_000)
    async with trainer(tmp_path) as running:
        name, next_one = await running.start(), await running.start()
        run = await running.reached(name, lambda run: run.progress.step > 3)
        cancelled = await running.cancel(name)
        assert cancelled.state == CANCELLED
        assert not alive(starts(run.uri)[0])
        assert (Path(run.uri) / "step").exists()
        assert await running.cancel(name) == cancelled
        await running.reached(next_one, is_in(RUNNING))
        assert (await running.cancel(next_one)).state == CANCELLED
        assert await running.get(name) == cancelled
    async with trainer(tmp_path) as running:
        await asyncio.sleep(0.2)
        assert await running.get(name) == cancelled
        assert len(starts(run.uri)) == 1


async def test_a_process_that_is_deaf_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "END_SECONDS", 0.3)
    script(tmp_path, steps=10_000, deaf=True)
    async with trainer(tmp_path) as running:
        name = await running.start()
        run = await running.reached(name, lambda run: run.progress.step > 1)
        assert (await running.cancel(name)).state == CANCELLED
        assert not alive(starts(run.uri)[0])


async def test_a_run_that_waits_or_is_paused_or_has_ended_can_be_cancelled(tmp_path: Path) -> None:
    script(tmp_path, steps=2, fails="StorageFailed")
    async with trainer(tmp_path) as running:
        paused, pending = await running.start(), await running.start()
        await running.reached(paused, is_in(PAUSED))
        assert (await running.cancel(pending)).state == CANCELLED
        cancelled = await running.cancel(paused)
        assert cancelled.state == CANCELLED
        assert not cancelled.HasField("error")
        script(tmp_path, steps=1)
        done = (await running.seen(await running.start()))[-1]
        assert await running.cancel(done.name) == done


async def test_a_run_is_cancelled_even_if_who_asked_has_gone(tmp_path: Path) -> None:
    script(tmp_path, steps=10_000)
    async with trainer(tmp_path) as running:
        name = await running.start()
        run = await running.reached(name, lambda run: run.progress.step > 1)
        call = running.stub.CancelRun(pb.CancelRunRequest(name=name))
        path = Path(run.uri) / runs.RUN
        await until(lambda: "STATE_CANCELLED" in path.read_text())
        call.cancel()
        await until(lambda: not alive(starts(run.uri)[0]))
        assert (await running.get(name)).state == CANCELLED


async def test_who_stops_watching_harms_nothing(tmp_path: Path) -> None:
    script(tmp_path, steps=30)
    async with trainer(tmp_path) as running:
        name = await running.start()
        watching = running.stub.WatchRun(pb.WatchRunRequest(name=name))
        await watching.read()
        watching.cancel()
        assert (await running.seen(name))[-1].state == SUCCEEDED


# -- going on -------------------------------------------------------------------------------------


async def test_runs_go_on_after_a_restart(tmp_path: Path) -> None:
    script(tmp_path, steps=200)
    async with trainer(tmp_path) as running:
        first, second = await running.start(), await running.start()
        run = await running.reached(first, lambda run: run.progress.step > 5)
    assert not alive(starts(run.uri)[0])
    async with trainer(tmp_path) as running:
        again = await running.reached(first, is_in(RUNNING))
        assert again.progress.step >= run.progress.step
        assert (await running.get(second)).state == PENDING
        for name in (first, second):
            assert (await running.seen(name))[-1].state == SUCCEEDED
        counted = running.sample("emojinet_train_images_total")
        assert counted is not None
        assert 200 * standin.BATCH < counted < 2 * 200 * standin.BATCH
    assert len(starts(run.uri)) == 2


async def test_a_run_that_was_done_when_the_service_died_is_not_begun_again(tmp_path: Path) -> None:
    script(tmp_path, steps=2)
    async with trainer(tmp_path) as running:
        done = (await running.seen(await running.start()))[-1]
    path = Path(done.uri) / "run.json"
    path.write_text(path.read_text().replace("STATE_SUCCEEDED", "STATE_RUNNING"))
    async with trainer(tmp_path) as running:
        assert (await running.seen(done.name))[-1].state == SUCCEEDED
    assert len(starts(done.uri)) == 1


async def test_what_is_no_run_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path, steps=2)
    async with trainer(tmp_path) as running:
        done = (await running.seen(await running.start()))[-1]
    text = (Path(done.uri) / "run.json").read_text()
    broken = (
        "",
        "[" * 100_000,
        "null",
        "{}",
        text,
        '{"name": "../x"}',
        '{"state": "NO"}',
        "\udcff",
    )
    for number, content in enumerate(broken):
        folder = tmp_path / "runs" / f"train-20261122-000000-{number:04x}"
        folder.mkdir()
        (folder / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    (tmp_path / "runs" / "by-a-job").mkdir()
    (folder / "run.json").unlink()
    (folder / "run.json").symlink_to(Path(done.uri) / "run.json")
    async with trainer(tmp_path) as running:
        assert (await running.stub.ListRuns(pb.ListRunsRequest())).runs == [done]


async def test_events_that_no_contract_can_hold_are_passed_over(tmp_path: Path) -> None:
    script(tmp_path, steps=1)
    async with trainer(tmp_path) as running:
        name = await running.start()
        events = Events(tmp_path / "runs" / name)
        events.activity("\ud800")
        huge = {"step": 2**70, "steps": 1, "images": 1, "loss": 1.0, "images_per_second": 1.0}
        events.progress(data_wait_share=0.0, remaining_seconds=1e300, seconds={"x": 1}, **huge)  # type: ignore[arg-type]
        events.metrics("\ud800", {"a": [1, 1, 1]})
        events.close()
        run = (await running.seen(name))[-1]
        assert (run.state, run.progress.step) == (SUCCEEDED, 1)
        assert len(run.metrics) == 2


# -- models ---------------------------------------------------------------------------------------


async def test_only_a_run_that_has_succeeded_is_published(tmp_path: Path) -> None:
    script(tmp_path, steps=10_000)
    async with trainer(tmp_path) as running:
        name = await running.start()
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError, match="has no model") as raised:
                await running.stub.PublishModel(pb.PublishModelRequest(run=name))
            assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            await running.cancel(name)


async def test_a_run_that_left_no_model_is_not_published(tmp_path: Path) -> None:
    script(tmp_path, steps=1)
    async with trainer(tmp_path) as running:
        run = (await running.seen(await running.start()))[-1]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.stub.PublishModel(pb.PublishModelRequest(run=run.name))
        assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
