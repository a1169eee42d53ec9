"""Instagram's API v1 as the article used it: tags, pages of posts, and a window of calls an hour.

It was shut in 2018; the bodies, errors and headers here are the ones its documentation showed.
"""

from collections import deque
from json.encoder import encode_basestring
from urllib.parse import quote, urlencode

from aiohttp import web

from tests.standin.clock import Clock
from tests.standin.tally import KIND, WINDOW_SECONDS, Quota, Tally
from tests.standin.world import Image, Post, Tag, World

PAGE, MOST = 20, 33
REMAINING = web.RequestKey("remaining", int)
SIZES_PX = {"low_resolution": (320, 6), "thumbnail": (150, 5), "standard_resolution": (0, 7)}
EMPTY_TAIL = 3  # every third tag ends with an empty page
WARNING = (
    "next_max_id and min_id are deprecated for this endpoint; use min_tag_id and max_tag_id instead"
)


class Windows:
    """A sliding window of one hour for each token."""

    def __init__(self, limit: int, clock: Clock, tally: Tally) -> None:
        self._limit = limit
        self._clock = clock
        self._tally = tally
        self._calls: dict[str, deque[float]] = {}

    def call(self, token: str) -> int:
        """Counts a call; how many the token has left, or -1 if this one is refused."""
        now = self._clock.now()
        calls = self._calls.setdefault(token, deque())
        while calls and calls[0] <= now - WINDOW_SECONDS:
            calls.popleft()
        quota = self._tally.quotas.setdefault(token, Quota(self._limit, first=now))
        if len(calls) >= self._limit:
            quota.refused += 1
            return -1
        calls.append(now)
        quota.calls += 1
        quota.last = now
        quota.peak = max(quota.peak, len(calls))
        return self._limit - len(calls)


class Instagram:
    """The handlers below `/v1`.

    A token may be any text but one that begins with `expired`. Attributes may be changed while it
    runs.
    """

    def __init__(
        self,
        world: World,
        *,
        base: str,
        image_hosts: list[str],
        clock: Clock,
        tally: Tally,
        limit: int = 5000,
        overlap: int = 2,
        hidden: float = 0.0,
        carousels: bool = False,
    ) -> None:
        """The API of a world.

        Args:
            base: What its `next_url` begins with.
            limit: Calls in an hour for each token.
            overlap: How many posts at most the next page repeats.
            hidden: The share of each tag's posts that are not there until `reveal`.
            carousels: Whether a post shows all of its images (`carousel_media`, as from 2017 on)
                or the first alone.
        """
        self._world = world
        self._base = base
        self._hosts = image_hosts
        self._limit = limit
        self._windows = Windows(limit, clock, tally)
        self.overlap = overlap
        self.hidden = hidden
        self.carousels = carousels
        self.loop_tag = ""
        """A tag whose `next_url` leads back to its first page, for ever."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/tags/search", self.search),
            web.get("/v1/tags/{tag}", self.count),
            web.get("/v1/tags/{tag}/media/recent", self.recent),
        ]

    def reveal(self) -> None:
        """Shows the posts that were hidden, as if they had just been tagged."""
        self.hidden = 0.0

    async def count(self, request: web.Request) -> web.Response:
        """`GET /v1/tags/{tag}`."""
        request[KIND] = "tag"
        if refusal := self._refusal(request):
            return refusal
        name = request.match_info["tag"]
        return self._reply(
            request,
            f'{{"meta":{{"code":200}},"data":{{"media_count":{self._visible_count(name)},'
            f'"name":{encode_basestring(name)}}}}}',
        )

    async def search(self, request: web.Request) -> web.Response:
        """`GET /v1/tags/search?q=`."""
        request[KIND] = "tag"
        if refusal := self._refusal(request):
            return refusal
        query = request.query.get("q", "")
        found = [query] if self._visible_count(query) else []
        data = ",".join(
            f'{{"media_count":{self._visible_count(name)},"name":{encode_basestring(name)}}}'
            for name in found
        )
        return self._reply(request, f'{{"meta":{{"code":200}},"data":[{data}]}}')

    async def recent(self, request: web.Request) -> web.Response:
        """`GET /v1/tags/{tag}/media/recent`."""
        request[KIND] = "media"
        if refusal := self._refusal(request):
            return refusal
        query = request.query
        try:
            count = int(query.get("count", PAGE))
            least = int(query.get("min_tag_id", query.get("min_id", 0)))
            most = int(query.get("max_tag_id", query.get("max_id", 0)))
        except ValueError:
            return self._error(request, "APIInvalidParametersError", "ids and count are numbers")
        name = request.match_info["tag"]
        tag = self._world.tag(name)
        body = self._page(request, name, tag, min(max(count, 1), MOST), least, most)
        return self._reply(request, body)

    def _visible_count(self, name: str) -> int:
        tag = self._world.tag(name)
        return len(tag) - self._hidden(tag) if tag else 0

    def _hidden(self, tag: Tag) -> int:
        return int(len(tag) * self.hidden)

    def _page(
        self, request: web.Request, name: str, tag: Tag | None, count: int, least: int, most: int
    ) -> str:
        if tag is None:
            return '{"pagination":{},"meta":{"code":200},"data":[]}'
        first = self._hidden(tag)
        start = max(tag.place_after(most), first) if most else first
        stop = min(start + count, len(tag))
        end = stop
        if least:  # only what was tagged later
            end = min(stop, tag.place_after(least + 1))
        data = ",".join(
            self._media(self._world.post(tag.post_number(p))) for p in range(start, end)
        )
        more = stop < len(tag) or (tag.rank % EMPTY_TAIL == 0 and start < stop)
        if least and end < stop:
            more = False
        pagination = self._pagination(request, name, tag, start, stop, more) if end > start else ""
        return f'{{"pagination":{{{pagination}}},"meta":{{"code":200}},"data":[{data}]}}'

    def _pagination(
        self, request: web.Request, name: str, tag: Tag, start: int, stop: int, more: bool
    ) -> str:
        newest = tag.tag_id(start)
        least = (
            f'"deprecation_warning":"{WARNING}","next_min_id":"{newest}","min_tag_id":"{newest}"'
        )
        if not more:
            return "" if request.query.get("max_tag_id") else least
        repeated = self.overlap and (start // PAGE + tag.rank) % 4 == 0 and stop < len(tag)
        last = stop - 1 - (min(self.overlap, stop - start - 1) if repeated else 0)
        oldest = tag.tag_id(last) if name != self.loop_tag else tag.tag_id(0) + 1
        keep = {
            k: request.query[k]
            for k in ("access_token", "client_id", "count", "min_tag_id")
            if k in request.query
        }
        path = f"/v1/tags/{quote(name)}/media/recent?{urlencode(keep | {'max_tag_id': oldest})}"
        return (
            f'"next_max_tag_id":"{oldest}","next_max_id":"{oldest}",{least},'
            f'"next_url":{encode_basestring(self._base + path)}'
        )

    def _media(self, post: Post) -> str:
        """One element of a page's `data`."""
        author = post.author.number
        when = int(post.time)
        user = _user(author)
        tags = ",".join(map(encode_basestring, post.tags))
        caption = "null"
        if post.caption is not None:
            caption = (
                f'{{"created_time":"{when + 10}","text":{encode_basestring(post.caption.text)},'
                f'"from":{user},"id":"{471425773832908504 + post.number}"}}'
            )
        comments = '{"count":0,"data":[]}'
        if post.comment:
            comments = (
                f'{{"count":1,"data":[{{"created_time":"{when + 60}",'
                f'"text":{encode_basestring(post.comment)},"from":{user},'
                f'"id":"{471425773832908505 + post.number}"}}]}}'
            )
        return (
            f'{{"attribution":null,"type":"{self._type(post)}","filter":"Normal","tags":[{tags}],'
            f'"location":null,"comments":{comments},"created_time":"{when}",'
            f'"link":"https://instagram.com/p/{post.number:x}/","likes":{{"count":1,"data":'
            f'[{_user(author + 1)}]}},"images":{self._images(post.images[0])},{self._more(post)}'
            f'"users_in_photo":[],"caption":{caption},"user_has_liked":false,'
            f'"id":"{media_id(post)}","user":{user}}}'
        )

    def _type(self, post: Post) -> str:
        return "carousel" if self.carousels and len(post.images) > 1 else post.kind

    def _more(self, post: Post) -> str:
        if self._type(post) == "video":
            url = f"{self._hosts[0]}/video/{post.number}.mp4"
            form = f'{{"url":"{url}","width":480,"height":480}}'
            return f'"videos":{{"low_resolution":{form},"standard_resolution":{form}}},'
        if self._type(post) == "carousel":
            every = ",".join(
                f'{{"images":{self._images(image)},"users_in_photo":[],"type":"image"}}'
                for image in post.images
            )
            return f'"carousel_media":[{every}],'
        return ""

    def _images(self, image: Image) -> str:
        forms = []
        for name, (edge, suffix) in SIZES_PX.items():
            scale = min(1.0, edge / max(image.width, image.height)) if edge else 1.0
            width, height = round(image.width * scale), round(image.height * scale)
            forms.append(
                f'"{name}":{{"url":"{self.image_url(image, suffix)}",'
                f'"width":{width},"height":{height}}}'
            )
        return "{" + ",".join(forms) + "}"

    def image_url(self, image: Image, suffix: int = 7) -> str:
        """Where an image is; 5 and 6 are its smaller sizes."""
        host = self._hosts[image.number % len(self._hosts)]
        if image.misbehaviour:
            return f"{host}/bad/{image.misbehaviour}/{image.number}_{suffix}.jpg"
        return f"{host}/p/{image.number}_{suffix}.jpg"

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The error that a call gets before it is looked at; it counts all the same."""
        token = request.query.get("access_token") or request.query.get("client_id", "")
        request[REMAINING] = remaining = self._windows.call(token)
        if remaining < 0:
            message = "The maximum number of requests per hour has been exceeded."
            return self._error(request, "OAuthRateLimitException", message, 429)
        if not token:
            return self._error(
                request, "OAuthParameterException", "Missing client_id or access_token."
            )
        if token.startswith("expired"):
            message = "The access_token provided is invalid."
            return self._error(request, "OAuthAccessTokenException", message)
        return None

    def _error(
        self, request: web.Request, kind: str, message: str, code: int = 400
    ) -> web.Response:
        body = f'{{"meta":{{"error_type":"{kind}","code":{code},"error_message":"{message}"}}}}'
        return self._reply(request, body, code)

    def _reply(self, request: web.Request, body: str, status: int = 200) -> web.Response:
        headers = {
            "X-Ratelimit-Limit": str(self._limit),
            "X-Ratelimit-Remaining": str(max(request[REMAINING], 0)),
            "Content-Type": "application/json; charset=utf-8",
        }
        return web.Response(body=body.encode(), status=status, headers=headers)


def media_id(post: Post) -> str:
    """A post's name on Instagram."""
    return f"{471425689728724453 + post.number}_{post.author.number}"


def _user(number: int) -> str:
    return (
        f'{{"username":"user{number}","profile_picture":"https://pictures.example/{number}.jpg",'
        f'"id":"{number}","full_name":"User {number}"}}'
    )
