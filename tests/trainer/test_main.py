"""The trainer as a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.demo import free_port
from clients.trainer_client import TrainerClient
from emojinet.v1 import state_pb2 as states
from tests.trainer.running import Trainer, alive, train
from tests.trainer.standin import script, starts

pytestmark = pytest.mark.system

STATUS = health_pb2.HealthCheckResponse


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, which should end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "services.trainer", *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def serve(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("--port=0", f"--metrics-port={free_port()}", *flags, **environment)


def gone(pid: int) -> bool:
    """Waits until a process is, a second at most."""
    end = time.monotonic() + 1
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


@pytest.mark.parametrize(
    ("environment", "flags", "told"),
    [
        ({"EMOJINET_METRIC_PORT": "1"}, [], "did you mean EMOJINET_METRICS_PORT"),
        ({}, ["--data=/dev/null"], "/dev/null/runs cannot be used: Not a directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    environment: dict[str, str], flags: list[str], told: str
) -> None:
    ended = serve(*flags, **environment)
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_lives_from_ready_over_sigterm_and_kill_to_the_next_that_goes_on(
    tmp_path: Path,
) -> None:
    script(tmp_path, steps=400)
    with Trainer(tmp_path) as trainer:
        assert trainer.is_up()
        stub = health_pb2_grpc.HealthStub(trainer.channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == STATUS.SERVING
        name = trainer.stub.StartRun(train(), timeout=10).run.name
        waiting = trainer.stub.StartRun(train(), timeout=10).run.name
        first = trainer.reached(name, 5)
        second = serve(f"--data={tmp_path}")
        assert second.returncode == 1
        assert "Another trainer works on" in second.stderr
        assert "Traceback" not in second.stderr
        began = time.monotonic()
        trainer.process.terminate()
        assert trainer.process.wait(20) == 0
        assert time.monotonic() - began < 3
        assert gone(starts(first.uri)[0])
    for _ in range(2):
        with Trainer(tmp_path) as trainer:
            assert trainer.is_up()
            before = trainer.get(name).progress.step
            run = trainer.reached(name, before + 10)
            assert run.state == states.STATE_RUNNING
            assert trainer.get(waiting).state == states.STATE_PENDING
            os.kill(trainer.process.pid, signal.SIGKILL)
            assert gone(starts(first.uri)[-1])
    with Trainer(tmp_path) as trainer:
        assert trainer.is_up()
        script(tmp_path, steps=1)  # for the one that waits
        for each in (name, waiting):
            run = trainer.reached(each, 10_000)
            assert run.state == states.STATE_SUCCEEDED
        assert len(starts(first.uri)) == 4


def test_a_watcher_outlives_a_restart_of_the_service(tmp_path: Path) -> None:
    script(tmp_path, steps=200)
    with Trainer(tmp_path) as before, TrainerClient(f"127.0.0.1:{before.port}") as client:
        assert before.is_up()
        name = client.start_run(train()).name
        changes = client.watch_run(name)
        seen = [next(changes) for _ in range(2)]
        before.process.kill()
        before.process.wait()
        after = Trainer(tmp_path)
        after.port = before.port
        with after:
            assert after.is_up()
            seen += changes
    assert seen[-1].state == states.STATE_SUCCEEDED
    assert seen[-1].progress.step == 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["quik"], "did you mean quick"),
        (["quick", "--set=stpes=5"], "did you mean steps"),
        (["quick", "--dataset=nowhere"], "There is no data set nowhere"),
        (["quick", "--dataset=../no/such"], "a data set's name, or a folder's absolute path"),
        (["quick"], "Say --dataset"),
        (["quick", "--dataset=first", "--model-name=A"], "A model's name is made of"),
    ],
)
def test_a_run_by_hand_that_cannot_be_is_told_in_one_line(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "datasets" / "first").mkdir(parents=True)
    ended = run("run", *arguments, f"--data={tmp_path}")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "runs").exists()


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    data = tmp_path / "datasets" / "first"
    data.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        ended = run("run", "quick", f"--dataset={data}", f"--output={tmp_path / 'out'}")
        holder.kill()
    assert ended.returncode == os.EX_TEMPFAIL
    assert "Another training works on" in ended.stderr


HOLDS = """
import pathlib, sys, time
from services.shared import harness
harness.lock(pathlib.Path(sys.argv[1]), "training")
print(flush=True)
time.sleep(100)
"""
