"""Traces by OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where they go.

Where it does not, nothing of it is loaded, and each call costs a comparison more. All that is set
besides is OpenTelemetry's own, such as `OTEL_TRACES_SAMPLER` and `OTEL_RESOURCE_ATTRIBUTES`.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
END_SECONDS = 3.0  # for what has not been sent yet, when a program ends
Metadata = Iterable[tuple[str, str | bytes]]
PHASES = ("decode_wait", "decode", "queue_wait", "compute")  # of a picture, one after the other


def begin(service: str) -> None:
    """Traces this program from now on, if it is to be traced; ends it where it cannot be."""
    global _tracing
    if not os.environ.get(ENDPOINT):
        return
    try:
        _tracing = _Tracing(service)
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"error: {ENDPOINT} is set, and the package {missing.name} is missing: "
            "pip install 'emojinet[otel]', or unset it"
        ) from None


def end() -> None:
    """Sends what has not been sent, and gives up a collector that does not take it in time."""
    if _tracing is not None:
        sending = threading.Thread(target=_tracing.provider.shutdown, daemon=True)
        sending.start()
        sending.join(END_SECONDS)


def call(path: str, metadata: Callable[[], Metadata | None]) -> "Call | None":
    """A call that begins, in its caller's trace where there is one; None where none is traced.

    Args:
        metadata: gives what came with it; not asked where nothing is traced.
    """
    return None if _tracing is None else Call(_tracing, path, metadata() or ())


def picture(seconds: Mapping[str, float], batch_size: int) -> None:
    """Tells of a picture that was looked at just now, within the call that runs here."""
    if _tracing is not None:
        _tracing.picture(seconds, batch_size)


def tag(record: logging.LogRecord) -> bool:
    """Writes on a log's record in which trace it was made; to be a handler's filter."""
    if (
        _tracing is not None
        and (span := _tracing.trace.get_current_span().get_span_context()).is_valid
    ):
        record.trace_id, record.span_id = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return True


class Call:
    """One call's span, the current one until it ends."""

    def __init__(self, tracing: "_Tracing", path: str, metadata: Metadata) -> None:
        self._tracing = tracing
        service, _, method = path.strip("/").rpartition("/")
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        parent = tracing.extract({k: v for k, v in metadata if isinstance(v, str)})
        self._span = tracing.tracer.start_span(
            path.strip("/"), parent, tracing.trace.SpanKind.SERVER, facts
        )
        self._token = tracing.context.attach(tracing.trace.set_span_in_context(self._span))

    def end(self, code: grpc.StatusCode) -> None:
        """Tells how it ended."""
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        if code is not grpc.StatusCode.OK:
            self._span.set_status(self._tracing.trace.StatusCode.ERROR, code.name)
        self._tracing.context.detach(self._token)
        self._span.end()


class _Tracing:
    """OpenTelemetry, loaded."""

    def __init__(self, service: str) -> None:
        from opentelemetry import context, propagate, trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.context, self.trace, self.extract = context, trace, propagate.extract
        name = os.environ.get("OTEL_SERVICE_NAME") or f"emojinet-{service}"
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Any = self.provider.get_tracer("emojinet")

    def picture(self, seconds: Mapping[str, float], batch_size: int) -> None:
        """A span for each of its phases, which ended now."""
        phases = [(phase, int(seconds.get(phase, 0.0) * 1e9)) for phase in PHASES]
        began = time.time_ns() - sum(spent for _, spent in phases)
        for phase, spent in phases:
            if phase in seconds:
                facts = {"emojinet.batch_size": batch_size} if phase == "compute" else None
                span = self.tracer.start_span(phase, attributes=facts, start_time=began)
                span.end(began + spent)
            began += spent


_tracing: _Tracing | None = None
