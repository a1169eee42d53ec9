"""The hosts of pictures: many addresses, each with its own robots.txt, limit and pace."""

import asyncio
from collections import deque
from hashlib import blake2b

from aiohttp import web

from tests.standin.clock import Clock
from tests.standin.pictures import Pictures
from tests.standin.tally import KIND, Tally
from tests.standin.world import Image, World

EDGES_PX = {"5": 150, "6": 320, "7": 0}
NOAI = {
    "noai": {"X-Robots-Tag": "noai"},
    "noimageai": {"X-Robots-Tag": "nofollow, noimageai"},
    "noindex": {"X-Robots-Tag": "noindex, noarchive"},
    "tdm": {"TDM-Reservation": "1", "TDM-Policy": "https://policy.example/tdm"},
}
"""The headers of an image that is not to be learned from."""


class Limit:
    """So many requests in so many seconds for each host; what comes beyond is refused."""

    def __init__(self, requests: int, seconds: float, clock: Clock, tally: Tally) -> None:
        self._requests = requests
        self._seconds = seconds
        self._clock = clock
        self._tally = tally
        self._taken: dict[str, deque[float]] = {}

    def take(self, host: str) -> tuple[dict[str, str], bool]:
        """The headers that say what is left, and whether this request may pass."""
        now = self._clock.now()
        taken = self._taken.setdefault(host, deque())
        while taken and taken[0] <= now - self._seconds:
            taken.popleft()
        passes = len(taken) < self._requests
        if passes:
            taken.append(now)
        reset = max(1, int(taken[0] + self._seconds - now + 0.999)) if taken else 1
        headers = {
            "RateLimit-Limit": str(self._requests),
            "RateLimit-Remaining": str(self._requests - len(taken)),
            "RateLimit-Reset": str(reset),
            "RateLimit-Policy": f"{self._requests};w={self._seconds:g}",
        }
        if not passes:
            headers["Retry-After"] = str(reset)
            self._tally.hosts[host].refused += 1
        return headers, passes


class Cdn:
    """`/p/{image}_{size}.jpg` at every host. Attributes may be changed while it runs."""

    def __init__(
        self,
        world: World,
        pictures: Pictures,
        *,
        tally: Tally,
        latency: float = 0.0,
        limit: Limit | None = None,
    ) -> None:
        self._world = world
        self._pictures = pictures
        self._tally = tally
        self.latency = latency
        """Seconds before any picture's response begins."""
        self.limit = limit
        self.removed: set[int] = set()
        """Numbers of images that tests took down: 410."""

    def routes(self) -> list[web.RouteDef]:
        return [web.get(r"/p/{number:\d+}_{size:[567]}.jpg", self.picture)]

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """An image of a post."""
        number = int(request.match_info["number"])
        if number // 4 >= self._world.posts:
            return web.Response(status=404, text="no such picture")
        image = self._world.image(number)
        gone = number in self.removed or self._world.post(image.post).deleted
        if gone:
            return web.Response(status=410 if number in self.removed else 404, text="gone")
        return await self.send(request, image, EDGES_PX[request.match_info["size"]])

    async def send(
        self, request: web.Request, image: Image, edge_px: int = 0, kind: str = "image"
    ) -> web.StreamResponse:
        """An image's bytes, or the reason why not now."""
        request[KIND] = kind
        headers = dict(NOAI.get(image.noai, {}))
        if self.limit:
            told, passes = self.limit.take(request.host)
            headers |= told
            if not passes:
                return web.Response(status=429, headers=headers, text="Too many requests")
        if self.latency:
            await asyncio.sleep(self.latency)
        key = f"{image.root}/{image.variant}/{image.amount}/{edge_px}"
        tag = f'"{blake2b(key.encode(), digest_size=8).hexdigest()}"'
        headers |= {"ETag": tag, "Cache-Control": "max-age=1209600"}
        headers["Last-Modified"] = "Sat, 04 Jul 2026 14:38:08 GMT"
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        content = await asyncio.to_thread(self._pictures.of, image, edge_px)
        self._tally.fetched(image.number)
        return web.Response(body=content, headers=headers, content_type="image/jpeg")
