"""What the crawler tells Prometheus; the README lists all."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.crawler.fetch import Outcome
from services.crawler.frontier import DUPLICATE, STORED
from services.crawler.keep import Verdict
from services.crawler.limits import Quota
from services.crawler.sources import NAMES
from services.shared.errors import ImageError, Internal, reason_name
from services.shared.queue import QueueMetrics

UNDECODED = {  # the outcomes of pictures that could be had, and not decoded
    kind: reason_name(kind).removeprefix("ERROR_REASON_").lower()
    for kind in (*ImageError.__subclasses__(), Internal)
}


class Metrics:
    """Made when the service is ready, so that there are no series before that."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queues = QueueMetrics(registry)
        self.posts = Counter(
            "emojinet_posts_total",
            "Posts read, by what became of them.",
            ["source", "outcome"],
            registry=registry,
        )
        self.images = Counter(
            "emojinet_images_total",
            "Pictures of kept posts, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.quota = Gauge(
            "emojinet_source_quota_remaining",
            "Calls that a source still allows now; there as soon as it says.",
            ["source"],
            registry=registry,
        )
        depth = Gauge(
            "emojinet_frontier_depth",
            "Pictures still to be fetched, those in hand included; and those in hand.",
            ["state"],
            registry=registry,
        )
        self._crawls = Gauge(
            "emojinet_crawls",
            "Crawls that have not ended: at work, or waiting to be tried again.",
            ["state"],
            registry=registry,
        )
        self.queued, self.in_hand = depth.labels("queued"), depth.labels("in_hand")
        for source in NAMES.values():
            for verdict in Verdict:
                self.posts.labels(source, verdict)
        for outcome in (STORED, DUPLICATE, Verdict.REMOVED, *Outcome, *UNDECODED.values()):
            self.images.labels(outcome)

    def show_crawls(self, running: Callable[[], int], paused: Callable[[], int]) -> None:
        """Tells from now on how many crawls are at work, and how many wait to be tried again."""
        self._crawls.labels("running").set_function(running)
        self._crawls.labels("paused").set_function(paused)

    def show(self, quotas: Mapping[str, Quota]) -> None:
        """Tells what sources still allow, by the names of their quotas."""
        for name, quota in quotas.items():
            source = name.partition(":")[0]
            if source in NAMES.values() and (left := quota.left) is not None:
                self.quota.labels(source).set(left)
