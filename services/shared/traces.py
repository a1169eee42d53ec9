"""Traces by OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where they go.

Where it does not, nothing of it is loaded. All the other settings are OpenTelemetry's own, such as
`OTEL_TRACES_SAMPLER`: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
END_SECONDS = 3.0  # for what has not been sent yet, when a program ends
PHASES = ("decode_wait", "decode", "queue_wait", "compute")  # of a picture, in their order


class Tracing:
    """What tells of calls; one for a program."""

    def __init__(self, service: str) -> None:
        from opentelemetry import context, propagate, trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._context, self._propagate, self._trace = context, propagate, trace
        # What OTEL_SERVICE_NAME says goes first.
        name = os.environ.get("OTEL_SERVICE_NAME") or f"emojinet-{service}"
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("emojinet")
