"""What the crawler tells Prometheus; the README lists all."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.crawler.keep import Verdict
from services.shared.queue import QueueMetrics

SOURCES = ("import", "instagram-v1", "bluesky")


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
            "Calls that a source still allows now, as far as it says.",
            ["source"],
            registry=registry,
        )
        self.frontier = Gauge(
            "emojinet_frontier_depth",
            "Pictures known to the frontier.",
            ["state"],
            registry=registry,
        )
        for source in SOURCES:
            for verdict in Verdict:
                self.posts.labels(source, verdict)
        for state in ("queued", "in_hand"):
            self.frontier.labels(state)
