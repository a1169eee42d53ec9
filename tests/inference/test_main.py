"""The program as operators run it: a process, its ports, its signals, its last words."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.demo import free_port
from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1 import inference_service_pb2_grpc as rpc
from inference import grpc_service_pb2_grpc as oip_rpc
from services.shared import registry
from services.shared.photographs import installed
from tests.inference.oip.requests import pictures

CAT = next(path for path in installed() if path.name == "chelsea.png").read_bytes()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# A server that has just begun to listen is found at once.
AT_ONCE = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
DECODING = (
    'emojinet_queue_wait_seconds_count{outcome="served",priority="interactive",stage="decode"}'
)
PROGRAM = [sys.executable, "-m", "services.inference"]


def run(*flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )


class Program:
    """A running server process and a channel to it."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, metrics_port: int) -> None:
        self.process, self.port, self.metrics_port = process, port, metrics_port
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", AT_ONCE)
        self.stub = rpc.InferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def status(self, name: str) -> int:
        asked = health_pb2.HealthCheckRequest(service=name)
        return int((await self.health.Check(asked, timeout=30, wait_for_ready=True)).status)

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while await self.status("ready") != SERVING:
                await asyncio.sleep(0.05)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            return str(page.read().decode())

    def suggest(
        self, timeout: float = 10
    ) -> "grpc.aio.UnaryUnaryCall[pb.SuggestRequest, pb.SuggestResponse]":
        ask = pb.SuggestRequest(images=[image_pb2.Image(content=CAT)])
        return self.stub.Suggest(ask, timeout=timeout)


@asynccontextmanager
async def program(*flags: str) -> AsyncIterator[Program]:
    port, metrics_port = free_port(), free_port()
    process = subprocess.Popen(
        [*PROGRAM, f"--port={port}", f"--metrics-port={metrics_port}", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    started = Program(process, port, metrics_port)
    try:
        yield started
    finally:
        process.kill()
        process.communicate()
        await started.channel.close(None)


async def test_sigterm_under_load_fails_no_admitted_call_and_health_tells_first(
    tiny: Path,
) -> None:
    async with program(f"--model={tiny}", "--backend=timed:100ms") as p:
        await p.ready()
        seen: list[tuple[str, int]] = []

        async def watch(name: str) -> None:
            request = health_pb2.HealthCheckRequest(service=name)
            try:
                async for response in p.health.Watch(request):
                    seen.append((name, int(response.status)))
            except grpc.aio.AioRpcError:
                pass

        watchers = [asyncio.create_task(watch(name)) for name in ("ready", "live")]
        admitted = [p.suggest() for _ in range(40)]
        async with asyncio.timeout(20):
            while f"{DECODING} 40.0" not in await asyncio.to_thread(p.metrics):
                await asyncio.sleep(0.05)
        p.process.send_signal(signal.SIGTERM)
        live = [await p.status("live")]
        while await p.status("ready") == SERVING:
            live.append(await p.status("live"))
        late = await asyncio.gather(p.suggest(), return_exceptions=True)
        answers = await asyncio.gather(*admitted, return_exceptions=True)
        assert [a for a in answers if not isinstance(a, pb.SuggestResponse)] == []
        assert isinstance(late[0], grpc.aio.AioRpcError)
        assert late[0].code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(p.process.wait, 20) == 0
        await asyncio.gather(*watchers)
        assert set(live) == {SERVING}
        assert ("ready", NOT_SERVING) in seen
        assert ("live", NOT_SERVING) not in seen


async def test_nothing_runs_on_after_the_end_not_even_after_a_kill(tiny: Path) -> None:
    async with program(f"--model={tiny}", "--backend=timed:20ms") as p:
        await p.ready()
        children = psutil.Process(p.process.pid).children(recursive=True)
        assert len(children) >= 2
        p.process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
        assert alive == []


async def test_while_loading_there_are_no_series_and_sigterm_ends_it_cleanly(
    tmp_path: Path,
) -> None:
    async with program(f"--data={tmp_path}") as p:
        assert await p.status("live") == SERVING
        assert "emojinet_" not in p.metrics()
        assert await p.status("ready") == NOT_SERVING  # still: building the starter takes long
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await p.suggest()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        p.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(p.process.wait, 20) == 0


async def test_every_series_is_there_at_zero_from_readiness_on(tiny: Path) -> None:
    async with program(f"--model={tiny}", "--backend=timed:20ms") as p:
        assert await p.status("live") == SERVING
        await p.ready()
        page = p.metrics()
        for stage in ("decode", "device"):
            for outcome in ("served", "expired", "cancelled", "shed", "error"):
                for priority in ("interactive", "bulk"):
                    labels = f'outcome="{outcome}",priority="{priority}",stage="{stage}"'
                    assert f"emojinet_queue_wait_seconds_count{{{labels}}} 0.0" in page
            assert f'emojinet_queue_depth{{stage="{stage}"}} 0.0' in page
            assert f'emojinet_queue_oldest_wait_seconds{{stage="{stage}"}} 0.0' in page
        assert 'emojinet_slots{stage="device"} 1.0' in page
        assert "emojinet_capacity_images_per_second 50.0" in page
        assert 'le="0.1"' in page  # the objective is a bucket edge
        assert 'backend="timed:20ms"' in page


async def test_health_has_its_own_port_where_asked_for(tiny: Path) -> None:
    port = free_port()
    async with program(f"--model={tiny}", "--backend=timed:20ms", f"--health-port={port}") as p:
        await p.ready()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            for name in ("", "emojinet.v1.InferenceService", "ready", "live"):
                asked = health_pb2.HealthCheckRequest(service=name)
                assert (await check(asked, timeout=2)).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.InferenceServiceStub(channel).Suggest(pb.SuggestRequest(), timeout=2)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_open_inference_protocol_is_spoken_on_the_same_port(tiny: Path) -> None:
    async with program(f"--model={tiny}", "--backend=timed:20ms") as p:
        await p.ready()
        assert 'emojinet_requests_total{code="OK",method="ModelInfer"} 0.0' in p.metrics()
        stub = oip_rpc.GRPCInferenceServiceStub(p.channel)
        assert (await stub.ModelInfer(pictures(CAT), timeout=5)).model_name == "tiny"


@pytest.mark.parametrize(("flags", "answers"), [((), False), (("--reflection",), True)])
async def test_reflection_is_there_only_where_asked_for(
    tiny: Path, flags: tuple[str, ...], answers: bool
) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with program(f"--model={tiny}", "--backend=timed:20ms", *flags) as p:
        await p.ready()
        stub = reflection_pb2_grpc.ServerReflectionStub(p.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        names = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in stub.ServerReflectionInfo(iter([asked]), timeout=5):
                names += [service.name for service in response.list_services_response.service]
        assert ("emojinet.v1.InferenceService" in names) == answers
        assert ("inference.GRPCInferenceService" in names) == answers


async def test_what_becomes_live_in_the_registry_is_served_and_what_is_broken_is_not(
    tiny: Path, tmp_path: Path
) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    shutil.copytree(tiny, root / "staged")
    first = registry.publish(root, root / "staged")
    registry.activate(root, first)
    async with program(f"--data={tmp_path}", "--backend=timed:5ms") as p:
        await p.ready()
        manifest = json.loads((tiny / "manifest.json").read_text())
        shutil.copytree(tiny, root / "staged")
        (root / "staged" / "manifest.json").write_text(json.dumps({**manifest, "name": "second"}))
        second = registry.publish(root, root / "staged")
        registry.activate(root, second)
        async with asyncio.timeout(60):
            while (await p.suggest()).model.name != "second":
                await asyncio.sleep(0.05)
        weights = registry.folder(root, first) / "vocabulary.json"
        weights.write_bytes(weights.read_bytes()[:-1])
        (root / "live.json").write_text(json.dumps(first._asdict()))
        await asyncio.sleep(2.5)
        assert (await p.suggest()).model.name == "second"
        (root / "live.json").write_text("not JSON")
        await asyncio.sleep(1.5)
        assert (await p.suggest()).model.name == "second"
        assert await p.status("ready") == SERVING


def test_a_port_in_use_ends_the_program_with_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flags in ([f"--port={port}", f"--metrics-port={free_port()}"],
                      [f"--port={free_port()}", f"--metrics-port={port}"]):  # fmt: skip
            ended = run(*flags)
            assert ended.returncode == 1
            last = ended.stderr.strip().splitlines()[-1]
            assert last.startswith("error: cannot")
            assert str(port) in last
            assert "Traceback" not in ended.stderr


def test_two_servers_never_share_a_port(tiny: Path) -> None:
    port = free_port()
    flags = [f"--model={tiny}", "--backend=timed:5ms", f"--port={port}"]
    with subprocess.Popen(
        [*PROGRAM, *flags, f"--metrics-port={free_port()}"], stderr=subprocess.DEVNULL
    ) as first:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        second = run(*flags, f"--metrics-port={free_port()}")
        first.kill()
    assert second.returncode == 1


def test_a_model_that_is_not_there_is_named() -> None:
    ended = run("--model=/no/such/model", f"--port={free_port()}", f"--metrics-port={free_port()}")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: There is no model folder /no/such/model."


@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent"])
def test_a_damaged_model_is_refused_with_one_line(tiny: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    victim = folder / "vocabulary.json"
    content = bytearray(victim.read_bytes())
    if damage == "absent":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(content[:-1])
    else:
        content[20] ^= 1
        victim.write_bytes(content)
    ended = run(
        f"--model={folder}", "--backend=timed:5ms",
        f"--port={free_port()}", f"--metrics-port={free_port()}",
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"error: The model {folder} is not usable: vocabulary.json")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "flags", [["--prot=1"], ["--backend=fpga"], ["--backend=timed:fast"], ["--port=many"],
              ["--precision=half"]]
)  # fmt: skip
def test_wrong_use_is_told_with_status_2(flags: list[str]) -> None:
    ended = run(*flags)
    assert ended.returncode == 2
    assert flags[0].split("=")[0] in ended.stderr or flags[0].split("=")[1] in ended.stderr


def test_an_environment_variable_that_no_program_knows_is_an_error() -> None:
    ended = run(EMOJINET_PROT="1")
    assert ended.returncode == 1
    assert "EMOJINET_PROT" in ended.stderr


async def test_logs_are_one_json_object_a_line(tiny: Path) -> None:
    async with program(f"--model={tiny}", "--backend=timed:5ms") as p:
        await p.ready()
        p.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.to_thread(p.process.communicate, None, 20)
        records = [json.loads(line) for line in log.splitlines()]
        assert {"time", "level", "logger", "message"} <= records[0].keys()
        assert any(record["message"].startswith("ready after") for record in records)
