"""What the trainer tells Prometheus; the README lists all."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.trainer.ledger import ACCOUNTS


class Metrics:
    """Made when the service is ready, so that there are no series before that."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Counter(
            "emojinet_train_images_total",
            "Images learned from, each time that they are.",
            registry=registry,
        )
        self._seconds = Counter(
            "emojinet_train_seconds_total",
            "Where the time of runs went.",
            ["activity"],
            registry=registry,
        )
        self._loss = Gauge(
            "emojinet_train_loss",
            "Mean loss of the last steps; 0 before the first.",
            registry=registry,
        )
        for account in ACCOUNTS:
            self._seconds.labels(account)

    def count(self, images: float, seconds: Mapping[str, float], loss: float) -> None:
        """So much more was done, and this is the loss now."""
        self._images.inc(images)
        for account in ACCOUNTS:
            self._seconds.labels(account).inc(seconds.get(account, 0.0))
        self._loss.set(loss)
