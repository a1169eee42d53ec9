"""What the owners of a host allow: its robots.txt (RFC 9309), and the headers of its answers."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from multidict import CIMultiDictProxy
from protego import Protego
from yarl import URL

from services.crawler.web import NAME, Web, WebFailed, failures_named, read

MAX_BYTES = 500 << 10  # as the RFC has it; what comes after is not read
KEEP_SECONDS = 86400.0
ASK_AGAIN_SECONDS = 300.0  # where a host could not say what it allows
ANSWER_SECONDS = 8.0
MAX_PACE_SECONDS = 10.0  # of the delays that hosts ask for
MAX_HOSTS = 10_000

REFUSALS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "noml", "none"))
# These directives have a colon, too, and are no crawler's name.
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


@dataclass(slots=True)
class Rules:
    """What one origin allows, until it is asked again."""

    until: float = float("-inf")
    allows: Protego | None = None
    """None if it could not say: then nothing, for now."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def pace_seconds(self) -> float:
        """The least time between two requests."""
        asked = self.allows.crawl_delay(NAME) if self.allows else None
        return min(max(asked or 0.0, 0.0), MAX_PACE_SECONDS)


class Robots:
    """The robots.txt of the hosts that were asked lately."""

    def __init__(self, web: Web, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._web, self._answer_seconds = web, answer_seconds
        self._origins: OrderedDict[tuple[str, str | None, int | None], Rules] = OrderedDict()

    async def allowed(self, url: str | URL) -> bool:
        """Whether we may fetch the URL."""
        rules = await self.rules(URL(url))
        return rules.allows is not None and rules.allows.can_fetch(str(url), NAME)

    async def rules(self, url: URL) -> Rules:
        """What the origin of the URL allows; asked for once, by whoever comes first."""
        key = (url.scheme, url.raw_host, url.port)
        rules = self._origins.get(key)
        if rules is None:
            rules = self._origins[key] = Rules()
            if len(self._origins) > MAX_HOSTS:
                self._origins.popitem(last=False)
        if self._web.clock.monotonic() >= rules.until:
            async with rules.asking:
                if self._web.clock.monotonic() >= rules.until:
                    rules.allows = await self._ask(url.origin() / "robots.txt")
                    keep = KEEP_SECONDS if rules.allows else ASK_AGAIN_SECONDS
                    rules.until = self._web.clock.monotonic() + keep
        return rules

    async def _ask(self, url: URL) -> Protego | None:
        headers = {"Accept-Encoding": "gzip"}
        try:
            async with (
                failures_named(url),
                asyncio.timeout(self._answer_seconds),
                self._web.opened(url, headers) as response,
            ):
                if response.status >= 500:
                    return None
                if response.status != 200:
                    return Protego.parse("")
                content, _ = await read(response, MAX_BYTES)
                return Protego.parse(content.decode("utf-8-sig", "replace"))
        except WebFailed as failure:
            # Too many redirects are no answer at all, which allows everything; an outage is not.
            return Protego.parse("") if failure.status else None


def opted_out(headers: "CIMultiDictProxy[str]") -> str | None:
    """Which header of an answer forbids to learn from what it carries, if any does.

    >>> from multidict import CIMultiDict
    >>> opted_out(CIMultiDictProxy(CIMultiDict({"X-Robots-Tag": "otherbot: noai, noindex"})))
    >>> opted_out(CIMultiDictProxy(CIMultiDict({"X-Robots-Tag": "max-snippet: 5, NoAI"})))
    'noai'
    """
    for value in headers.getall("X-Robots-Tag", ()):
        ours = True
        for part in value.lower().split(","):
            agent, colon, directive = part.rpartition(":")
            if colon and agent.strip() not in VALUED:
                ours = agent.strip() in ("*", NAME.lower())
            if ours and directive.strip() in REFUSALS:
                return directive.strip()
    return "tdm-reservation" if headers.get("TDM-Reservation", "").strip() == "1" else None
