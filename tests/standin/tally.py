"""What was asked of the stand-in, for tests of how politely and thriftily a crawler asks."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WINDOW_SECONDS = 3600.0
KIND = web.RequestKey("kind", str)
"""Under which name a request is counted."""


@dataclass(slots=True)
class Host:
    """One address, as a crawler that limits itself by host sees it."""

    requests: int = 0
    bytes: int = 0
    in_flight: int = 0
    peak: int = 0
    refused: int = 0
    """Answered 429."""
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Quota:
    """How a token's calls used the windows that they were allowed in."""

    limit: int
    calls: int = 0
    refused: int = 0
    peak: int = 0
    """Most calls in any window."""
    first: float = 0.0
    last: float = 0.0

    @property
    def used_share(self) -> float:
        """Calls over what the windows from the first to the last call would have allowed."""
        windows = (self.last - self.first) / WINDOW_SECONDS
        return self.calls / (self.limit * (windows + 1)) if self.calls else 0.0


class Tally:
    """Counts of everything; `report()` is what `GET /_stats` answers."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        """Requests by kind: tag, media, image, blob, plc, robots, subscribe, bad …"""
        self.bad: Counter[str] = Counter()
        """Requests by the name of the misbehaviour."""
        self.statuses: Counter[int] = Counter()
        self.hosts: defaultdict[str, Host] = defaultdict(Host)
        self.quotas: dict[str, Quota] = {}
        self.early = 0
        """Requests that came before the time of a misbehaviour's `Retry-After`."""
        self.lateness: list[float] = []
        """How much later than that time others came, as a share of the wait."""
        self.events = 0
        """Sent to subscribers."""
        self.canary = 0
        """Connections to the address that nobody may connect to."""
        self.agents: Counter[str] = Counter()
        self.cookies = 0
        """Requests that brought a cookie or credentials of another host back."""
        self._fetched: dict[int, int] = {}

    @contextmanager
    def request(self, host: str) -> Iterator[Host]:
        """Counts a request to a host for as long as it lasts."""
        entry = self.hosts[host]
        entry.requests += 1
        entry.in_flight += 1
        entry.peak = max(entry.peak, entry.in_flight)
        try:
            yield entry
        finally:
            entry.in_flight -= 1

    def fetched(self, image: int) -> None:
        self._fetched[image] = self._fetched.get(image, 0) + 1

    def fetches(self, image: int) -> int:
        """How often an image's bytes were sent in full."""
        return self._fetched.get(image, 0)

    def report(self) -> dict[str, Any]:
        """All counts, fit for JSON."""
        return {
            "kinds": dict(self.kinds),
            "bad": dict(self.bad),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "hosts": {
                name: {
                    "requests": host.requests,
                    "bytes": host.bytes,
                    "peak": host.peak,
                    "refused": host.refused,
                    "kinds": dict(host.kinds),
                }
                for name, host in self.hosts.items()
            },
            "quotas": {
                token: {
                    "limit": quota.limit,
                    "calls": quota.calls,
                    "refused": quota.refused,
                    "peak": quota.peak,
                    "used_share": quota.used_share,
                }
                for token, quota in self.quotas.items()
            },
            "early": self.early,
            "lateness": self.lateness,
            "events": self.events,
            "canary": self.canary,
            "cookies": self.cookies,
            "agents": dict(self.agents),
            "images_fetched": len(self._fetched),
            "images_fetched_again": sum(self._fetched.values()) - len(self._fetched),
        }
