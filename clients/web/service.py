"""`GET /api/service`: how the inference service lives, read from the metrics it has for Prometheus.

The totals are those of the scaling signal: a queue wait is of both lines, of every outcome, and a
refused picture counts as one that waited a second.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from services.shared.errors import NoModel, ServerUnreachable
from services.shared.queue import OBJECTIVE_SECONDS

FRESH_SECONDS = 1.0  # so long an answer serves all who look
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 4 << 20
REFUSED_SECONDS = 1.0
STAGES = ("decode", "device")
Labels = frozenset[tuple[str, str]]


class Service:
    """What is known of one inference service; looked at when somebody asks."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self._looking = asyncio.Lock()
        self._seen: dict[str, Any] = {}
        self._until = 0.0

    async def look(self) -> dict[str, Any]:
        """The service's totals, at most a second old.

        Raises:
            ServerUnreachable: nobody answers there, or not with metrics.
            NoModel: the service is not ready yet.
        """
        async with self._looking:
            if time.monotonic() >= self._until:
                self._seen = figures(await self._samples(), time.monotonic())
                self._until = time.monotonic() + FRESH_SECONDS
            return self._seen

    async def _samples(self) -> "Samples":
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            async with self._session.get(self._url, timeout=timeout) as response:
                response.raise_for_status()
                return Samples((await response.content.read(MAX_BYTES)).decode())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise ServerUnreachable(
                f"No metrics answer at {self._url}: is the inference service running? Start it "
                "with `python -m services.inference`, or name its page with --metrics-url."
            ) from None


class Samples:
    """A page of metrics. Raises ValueError for a text that is none."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = self._values.setdefault(sample.name, {})
                series[frozenset(sample.labels.items())] = sample.value

    def series(self, name: str, **wanted: str) -> Mapping[Labels, float]:
        """The values of all series of that name that have these labels."""
        asked = wanted.items()
        return {
            labels: value
            for labels, value in self._values.get(f"emojinet_{name}", {}).items()
            if asked <= labels
        }

    def total(self, name: str, **wanted: str) -> float:
        """Their sum; 0 where there are none."""
        return sum(self.series(name, **wanted).values())


def figures(samples: Samples, now: float) -> dict[str, Any]:
    """The totals, as `openapi.json` describes them. Raises NoModel where there are none yet."""
    models = samples.series("model_info")
    if not models:
        raise NoModel("The inference service is not ready yet: it loads its model.")
    refused = samples.total("shed_total", priority="interactive")
    waited = sum(
        samples.total("queue_wait_seconds_sum", outcome=outcome, priority="interactive")
        for outcome in ("served", "expired", "cancelled", "error")
    )
    return {
        "seconds": now,
        "objective_seconds": OBJECTIVE_SECONDS,
        "model": dict(next(iter(models))),
        "capacity_images_per_second": samples.total("capacity_images_per_second"),
        "stages": {stage: _stage(samples, stage) for stage in STAGES},
        "wait_seconds": waited + refused * REFUSED_SECONDS,
        "waits": round(_left(samples) + refused),
        "images": round(samples.total("batch_size_sum")),
        "refused": round(samples.total("shed_total")),
        "calls": _calls(samples),
    }


def _left(samples: Samples) -> float:
    """The pictures that left for good: at the device, or in the first line without a decoder."""
    counts = "queue_wait_seconds_count"
    at_device = samples.total(counts, stage="device", priority="interactive")
    return at_device + sum(
        samples.total(counts, stage="decode", outcome=outcome, priority="interactive")
        for outcome in ("expired", "cancelled", "error")
    )


def _stage(samples: Samples, stage: str) -> dict[str, float]:
    return {
        "slots": round(samples.total("slots", stage=stage)),
        "depth": round(samples.total("queue_depth", stage=stage)),
        "oldest_wait_seconds": samples.total("queue_oldest_wait_seconds", stage=stage),
        "busy_seconds": samples.total("busy_seconds_total", stage=stage, priority="interactive"),
    }


def _calls(samples: Samples) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for labels, value in samples.series("requests_total", method="Suggest").items():
        counted[dict(labels)["code"]] += round(value)
    return dict(counted)
