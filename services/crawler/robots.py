"""What the owners of a host allow: its robots.txt (RFC 9309), and the headers of its answers."""

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass, field

from multidict import CIMultiDictProxy
from protego import Protego
from yarl import URL

from services.crawler.web import NAME, Web, WebFailed, failures_named, shown
from services.shared.guarded import REDIRECTS, read

MAX_BYTES = 500 << 10  # as the RFC has it; what comes after is not read
KEEP_SECONDS = 86400.0
ASK_AGAIN_SECONDS = 300.0  # where a host could not say what it allows,
CALL_AGAIN_SECONDS = 30.0  # and where it was not there
ANSWER_SECONDS = 8.0
MAX_PACE_SECONDS = 10.0  # of the delays that hosts ask for
MAX_HOSTS = 10_000

REFUSALS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "noml", "none"))
# These directives have a colon, too, and are no crawler's name.
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_AGENT = re.compile(r"\*|[a-z][\w-]*")


@dataclass(slots=True)
class Rules:
    """What one origin allows, until it is asked again."""

    until: float = float("-inf")
    allows: Protego | None = None
    """None if it could not say: then nothing, for now."""
    failure: WebFailed | None = None
    """Why it could not."""
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
                    await self._ask(url.origin() / "robots.txt", rules)
        return rules

    async def _ask(self, url: URL, rules: Rules) -> None:
        rules.failure = rules.allows = None
        try:
            rules.allows = Protego.parse(await self._text(url))
        except WebFailed as failure:
            if failure.status in REDIRECTS:  # too many of them: as good as no file, says the RFC
                rules.allows = Protego.parse("")
            else:
                rules.failure = failure
        keep = KEEP_SECONDS
        if rules.failure:
            keep = ASK_AGAIN_SECONDS if rules.failure.status else CALL_AGAIN_SECONDS
        rules.until = self._web.clock.monotonic() + keep

    async def _text(self, url: URL) -> str:
        """The file; empty, which allows everything, if there is none."""
        async with (
            failures_named(url),
            asyncio.timeout(self._answer_seconds),
            self._web.opened(url, {"Accept-Encoding": "gzip"}) as response,
        ):
            if response.status >= 500:
                why = f"{shown(url)} answered {response.status}"
                raise WebFailed(response.status, why, retryable=True)
            content, _ = await read(response, MAX_BYTES) if response.status == 200 else (b"", True)
            return content.decode("utf-8-sig", "replace")


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
            name, colon, rest = (text.strip() for text in part.partition(":"))
            if colon and (name in VALUED or not _AGENT.fullmatch(name)):
                continue  # a directive with a value, or the rest of a date
            if colon:
                ours = name in ("*", NAME.lower())
            directive = rest if colon else name
            if ours and directive in REFUSALS:
                return directive
    return "tdm-reservation" if headers.get("TDM-Reservation", "").strip() == "1" else None
