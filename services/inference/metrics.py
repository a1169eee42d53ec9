"""What the inference server tells Prometheus beside what its queues do; the README lists all."""

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from emojinet.v1.model_pb2 import ServedModel
from services.shared.queue import BUCKETS_SECONDS, Priority, QueueMetrics

if TYPE_CHECKING:
    from services.inference.gate import Gate

STAGES = ("decode", "device", "total")
SHED_REASONS = ("overloaded", "deadline")


class Metrics:
    """Made when the server is ready, so that there are no series before that."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queues = QueueMetrics(registry)
        self.capacity = Gauge(
            "emojinet_capacity_images_per_second",
            "What the device workers could do together, from their measured service times.",
            registry=registry,
        )
        self.service_time = Gauge(
            "emojinet_service_time_seconds",
            "s(b): what a batch of so many images takes on one device worker, by what ran lately.",
            ["batch"],
            registry=registry,
        )
        self.batch_size = Histogram(
            "emojinet_batch_size",
            "Images that were computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        stage_seconds = Histogram(
            "emojinet_stage_seconds",
            "Where the time of answered images went; total is from arrival to answer.",
            ["stage"],
            buckets=BUCKETS_SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "emojinet_shed_total",
            "Images refused at once: others are ahead, or the deadline is hopeless.",
            ["reason", "priority"],
            registry=registry,
        )
        self.model = Gauge(
            "emojinet_model_info",
            "1 for the model that is served.",
            ["name", "version", "backend", "precision"],
            registry=registry,
        )
        self.stage_seconds = {stage: stage_seconds.labels(stage) for stage in STAGES}
        for reason in SHED_REASONS:
            for priority in Priority:
                self.shed.labels(reason, priority)

    def show_model(self, model: ServedModel, gate: "Gate") -> None:
        """Says which model is served now, and how fast; refined while it is."""
        self.capacity.set_function(lambda: gate.capacity)
        self.model.clear()
        self.model.labels(model.name, model.version, model.backend, model.precision).set(1)
        self.service_time.clear()
        for batch in list(gate.curve.seconds):
            seconds = partial(gate.curve.seconds.__getitem__, batch)
            self.service_time.labels(batch).set_function(seconds)
