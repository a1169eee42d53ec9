"""What the trainer tells Prometheus; the README lists all."""

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from emojinet.v1 import state_pb2 as states
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
        self._runs = Gauge(
            "emojinet_runs", "Runs that the data folder holds.", ["state"], registry=registry
        )
        for account in ACCOUNTS:
            self._seconds.labels(account)

    def show_runs(self, count: Callable[[int], int]) -> None:
        """Tells from now on how many runs `count` finds in each state."""
        for state in states.State.values():
            if state != states.STATE_UNSPECIFIED:
                name = states.State.Name(state).removeprefix("STATE_").lower()
                self._runs.labels(name).set_function(partial(count, state))

    def count(self, images: float, seconds: Mapping[str, float], loss: float) -> None:
        """So much more was done, and this is the loss now."""
        self._images.inc(images)
        for account in ACCOUNTS:
            self._seconds.labels(account).inc(seconds.get(account, 0.0))
        self._loss.set(loss)
