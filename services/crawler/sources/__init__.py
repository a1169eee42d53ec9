"""Where posts come from: each source is one file that turns its protocol into typed posts.

A source parses tolerantly: it insists on the least that makes a post (its name, a picture), takes
what else is there, and tells of what is not a post as `Malformed` instead of failing.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Page

NAMES = {"imported": "import", "instagram": "instagram-v1", "bluesky": "bluesky"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a crawl wants of a source."""

    emoji: Sequence[str]
    """The emoji to collect; the whole inventory where the crawl ranks."""
    wanted: Callable[[str], bool]
    """Whether an emoji still lacks pictures: sources that list by emoji skip those that do not."""


class Source(Protocol):
    """Posts of one kind of place."""

    def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        """What comes after the cursor, "" being the start, in an order that never changes.

        What was handed out behind a cursor may come again: posts are known by their URI.

        Raises:
            BadSource: it does not speak its protocol, or has nothing where it should be.
            SourceRefused: it does not let us in.
            SourceUnavailable: it does not answer now.
        """
        ...


@runtime_checkable
class CountingSource(Source, Protocol):
    """A source that knows how often each emoji was used, without our reading every post."""

    async def count(self, emoji: str) -> int:
        """Posts tagged with the emoji. Raises as `pages`."""
        ...


def name_of(request: pb.StartCrawlRequest) -> str:
    """The name of the source that a request is about, as in metrics and manifests; "" for none."""
    return NAMES.get(request.WhichOneof("source") or "", "")
