"""Traces reach a collector: each call, its phases, and the log's lines that belong to it."""

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Condition
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collected
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collecting
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from clients.crawler_client import CrawlerClient
from clients.demo import free_port
from clients.trainer_client import TrainerClient
from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import harness, traces
from services.shared.photographs import installed
from tests.clients.commandline import clean
from tests.inference.running import inference

CAT = next(path for path in installed() if path.name == "chelsea.png").read_bytes()
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASK = pb.SuggestRequest(images=[image_pb2.Image(content=CAT)])


class Collector(collecting.TraceServiceServicer):
    """A stand-in that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self._came = Condition()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        collecting.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(
        self, request: collected.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> collected.ExportTraceServiceResponse:
        with self._came:
            for each in request.resource_spans:
                names = {a.key: a.value.string_value for a in each.resource.attributes}
                self.services.add(names["service.name"])
                self.spans += [span for scope in each.scope_spans for span in scope.spans]
            self._came.notify_all()
        return collected.ExportTraceServiceResponse()

    def until(self, holds: Callable[[], object]) -> None:
        with self._came:
            assert self._came.wait_for(holds, 20), [span.name for span in self.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """This process is."""
    monkeypatch.setenv(traces.ENDPOINT, collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    traces.begin("inference")
    yield collector
    traces.end()
    monkeypatch.setattr(traces, "_tracing", None)


def facts(span: Span) -> dict[str, Any]:
    return {a.key: a.value.int_value or a.value.string_value for a in span.attributes}


async def test_a_call_has_its_phases_in_its_callers_trace(traced: Collector, tiny: Path) -> None:
    async with inference(tiny, "timed:20ms") as running:
        told = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
        response = await running.stub.Suggest(ASK, timeout=10, metadata=told)
    traced.until(lambda: traced.named("emojinet.v1.InferenceService/Suggest"))
    (call,) = traced.named("emojinet.v1.InferenceService/Suggest")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    assert call.kind == Span.SPAN_KIND_SERVER
    assert facts(call) == {
        "rpc.system": "grpc",
        "rpc.service": "emojinet.v1.InferenceService",
        "rpc.method": "Suggest",
        "rpc.grpc.status_code": "",  # 0, which is OK
    }
    timing = response.results[0].timing
    for phase in traces.PHASES:
        (span,) = traced.named(phase)
        assert span.parent_span_id == call.span_id
        spent = span.end_time_unix_nano - span.start_time_unix_nano
        assert spent == pytest.approx(getattr(timing, phase).ToNanoseconds(), abs=1000)
        assert span.start_time_unix_nano > call.start_time_unix_nano - 50_000_000
    assert facts(traced.named("compute")[0]) == {"emojinet.batch_size": 1}
    assert traced.services == {"emojinet-inference"}


async def test_a_refused_call_is_an_error(traced: Collector, tiny: Path) -> None:
    async with inference(tiny) as running:
        with pytest.raises(grpc.RpcError):
            await running.stub.Suggest(pb.SuggestRequest(), timeout=10)
    traced.until(lambda: traced.spans)
    (call,) = traced.spans
    assert facts(call)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert call.status.message == "INVALID_ARGUMENT"
    assert not call.parent_span_id


async def test_what_the_log_says_of_a_call_has_its_trace(traced: Collector, tiny: Path) -> None:
    said = io.StringIO()
    harness.log_as_json()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(said)
    try:
        async with inference(tiny) as running:
            serving = running.service.serving
            running.service.serving = "broken"  # type: ignore[assignment]
            with pytest.raises(grpc.RpcError):
                await running.stub.Suggest(ASK, timeout=10)
            running.service.serving = serving
        logging.getLogger("outside").info("of no call")
    finally:
        logging.getLogger().removeHandler(handler)
    lines = {line["logger"]: line for line in map(json.loads, said.getvalue().splitlines())}
    traced.until(lambda: traced.named("emojinet.v1.InferenceService/Suggest"))
    (call,) = traced.named("emojinet.v1.InferenceService/Suggest")
    assert lines["services.shared.queue"]["trace_id"] == call.trace_id.hex()
    assert lines["services.shared.queue"]["span_id"] == call.span_id.hex()
    assert "trace_id" not in lines["outside"]


@pytest.mark.parametrize("header", ["", "00-zz-zz-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_callers_nonsense_begins_a_trace_of_its_own(
    traced: Collector, tiny: Path, header: str
) -> None:
    async with inference(tiny) as running:
        await running.stub.Suggest(ASK, timeout=10, metadata=(("traceparent", header),))
    traced.until(lambda: traced.named("compute"))
    assert len({span.trace_id for span in traced.spans}) == 1
    assert set(traced.spans[0].trace_id) != {0}


@pytest.mark.system
@pytest.mark.parametrize(
    ("service", "client", "ask"),
    [("crawler", CrawlerClient, "list_crawls"), ("trainer", TrainerClient, "list_runs")],
)
def test_each_service_sends_what_it_has_before_it_ends(
    collector: Collector, tmp_path: Path, service: str, client: Any, ask: str
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{service}", f"--port={port}",
         f"--metrics-port={free_port()}", f"--data={tmp_path}"],
        env={**clean(**{traces.ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}),
             "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with client(f"127.0.0.1:{port}") as calling:
            end = time.monotonic() + 30
            while True:
                try:
                    getattr(calling, ask)()
                    break
                except Exception:
                    assert time.monotonic() < end
                    time.sleep(0.1)
        process.terminate()
        process.wait(20)
    finally:
        process.kill()
        process.wait()
    collector.until(lambda: collector.spans)
    assert collector.services == {f"emojinet-{service}"}


def test_a_collector_that_is_away_delays_the_end_for_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(traces.ENDPOINT, "http://127.0.0.1:9")
    traces.begin("inference")
    call = traces.call("/a.B/C", tuple)
    assert call is not None
    call.end(grpc.StatusCode.OK)
    began = time.monotonic()
    traces.end()
    assert time.monotonic() - began < traces.END_SECONDS + 1
    monkeypatch.setattr(traces, "_tracing", None)


def test_without_the_setting_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, services.inference.__main__\n"
        "from services.shared import traces\n"
        "traces.begin('inference'); traces.end()\n"
        "assert traces.call('/a.B/C', tuple) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    own = {**clean(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    own.pop(traces.ENDPOINT, None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=own, check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_one_line() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from services.shared import traces; traces.begin('inference')"
    )
    own = clean(**{traces.ENDPOINT: "http://127.0.0.1:9"})
    own["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [sys.executable, "-c", program], env=own, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "pip install 'emojinet[otel]'" in done.stderr
    assert "Traceback" not in done.stderr
