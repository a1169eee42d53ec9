"""The article's source: Instagram's API v1 as of 2015, which lists the posts of an emoji's tag.

Instagram shut it in 2018. Whoever speaks its protocol, such as an archive of their own posts, can
still be crawled as the article crawled. A post's `tags` hold what its author's comments say, too;
so what a post is about is read from its caption.
"""

import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from reprlib import repr as excerpt
from typing import Any
from urllib.parse import quote

from yarl import URL

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Event, Malformed, Page, Post, PostImage
from services.crawler.sources import Plan
from services.crawler.web import Reply, Web, WebFailed
from services.shared import vocabulary
from services.shared.errors import BadSource, SourceRefused, SourceUnavailable

# What the API says of a tag that nobody used, and of one that it hides, as it did 🍆.
NO_TAG = ("APINotFoundError", "APINotAllowedError")
STALE_PAGES = 10  # after so many in a row without a new post a tag has ended
REMEMBERED = 100_000  # of a tag's posts and pages
MAX_URL = 4096
MAX_TOKEN = 4096

_TOKEN = re.compile(r"(?<=[?&]access_token=)[^&#]*")

log = logging.getLogger(__name__)


class InstagramSource:
    """Posts, and counts of posts, by emoji."""

    def __init__(self, settings: pb.InstagramSource, web: Web) -> None:
        self._web, self._token_file = web, Path(settings.token_file)
        self._base = settings.base_url.rstrip("/")
        self._origin = _origin(self._base)
        if not self._origin:
            raise BadSource(
                f"`base_url` is {excerpt(self._base)}, and should be like "
                "https://api.instagram.com/v1."
            )

    async def count(self, emoji: str) -> int:
        body = await self._ask(self._tag(emoji))
        count = _object(body.get("data")).get("media_count", 0 if not body else None)
        if type(count) is not int or not 0 <= count <= vocabulary.MAX_COUNT:
            raise self._bad(f"has the `media_count` {excerpt(count)} for {emoji}, not a number")
        return count

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        reached, url = json.loads(cursor or '["", ""]')
        ahead = list(plan.emoji)
        if reached in ahead:
            ahead = ahead[ahead.index(reached) + (not url) :]
        for emoji in ahead:
            seen, stale = set[str](), 0
            url = url or f"{self._tag(emoji)}/media/recent"
            while url and plan.wanted(emoji):
                seen.add(url)
                body = await self._ask(url)
                events, url = self._events(emoji, body), self._next(body)
                new = {event.uri for event in events if isinstance(event, Post)} - seen
                stale = 0 if new else stale + 1
                if url in seen or stale == STALE_PAGES:
                    log.warning("%s: the pages of %s lead nowhere, it ends", self._base, emoji)
                    url = ""
                seen = new if len(seen) > REMEMBERED else seen | new
                yield Page(events, json.dumps([emoji, url]))
            url = ""

    def _tag(self, emoji: str) -> str:
        return f"{self._base}/tags/{quote(emoji, safe='')}"

    async def _ask(self, url: str) -> dict[str, Any]:
        """The body of an answer; {} for a tag that there is not."""
        token = self._token()
        name = hashlib.sha256(token.encode()).hexdigest()[:16]
        try:
            quota = self._web.quota(f"instagram-v1:{name}")
            reply = await self._web.get(_signed(url, token), quota=quota)
        except WebFailed as failure:
            if failure.retryable:  # then the crawl pauses, and tries again by and by
                raise SourceUnavailable(f"{self._base} gives no answer: {failure.why}.") from None
            raise self._bad(f"cannot be asked: {failure.why}") from None
        body = _body(reply)
        meta = _object(body.get("meta"))
        error, message = meta.get("error_type"), meta.get("error_message")
        if error in NO_TAG:
            return {}
        if error or reply.status in (400, 401, 403):
            why = f"{_text(error) or reply.status}: {_text(message)[:200]}".replace(token, "…")
            raise SourceRefused(
                f"{self._base} does not let us in ({why}); "
                f"put a valid access token into {self._token_file}."
            )
        if reply.status != 200 or "data" not in body:
            raise self._bad(
                f"answered {reply.status} with {excerpt(reply.body)}, "
                'and should with a JSON object that has "data"'
            )
        return body

    def _token(self) -> str:
        try:
            with self._token_file.open(encoding="utf-8") as file:
                token = file.read(MAX_TOKEN).strip()
            why = "" if token else "is empty"
        except (OSError, ValueError) as error:
            why = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        if why:
            raise SourceRefused(
                f"`token_file` {self._token_file} {why}: "
                f"it should hold the access token for {self._base}."
            )
        return token

    def _events(self, emoji: str, body: dict[str, Any]) -> list[Event]:
        data = body.get("data", [])
        if not isinstance(data, list):
            raise self._bad(f"has {excerpt(data)} where a page's `data` should be, a list of posts")
        return [_event(f"{emoji}, {number} of a page", item) for number, item in enumerate(data, 1)]

    def _next(self, body: dict[str, Any]) -> str:
        """Where the next page is, without the token; empty after the last."""
        pagination = body.get("pagination") or {}
        if not isinstance(pagination, dict):
            raise self._bad(f"has {excerpt(pagination)} where a page's `pagination` should be")
        url = pagination.get("next_url")
        if not url:
            return ""
        if not isinstance(url, str) or len(url) > MAX_URL or _origin(url) != self._origin:
            raise self._bad(f"has the `next_url` {excerpt(url)}, which is not on the same server")
        return _TOKEN.sub("", url)

    def _bad(self, what: str) -> BadSource:
        return BadSource(f"{self._base} {what}.", base_url=self._base)


def _origin(url: str) -> URL | None:
    try:
        origin = URL(url).origin()
    except ValueError:
        return None
    return origin if origin.scheme in ("http", "https") else None


def _signed(url: str, token: str) -> str:
    """The URL with the token where the server had it, or else at the end."""
    token = quote(token, safe="")
    signed, times = _TOKEN.subn(token, url)
    return signed if times else f"{url}{'&' if '?' in url else '?'}access_token={token}"


def _body(reply: Reply) -> dict[str, Any]:
    try:
        return _object(reply.json())
    except (WebFailed, RecursionError):
        return {}


def _event(where: str, item: Any) -> Event:
    try:
        return _post(item)
    except ValueError as error:
        return Malformed(where, str(error))


def _post(item: Any) -> Post:
    if not isinstance(item, dict):
        raise ValueError(f"it is {excerpt(item)}, and should be an object")
    uri = _text(item.get("link")) or _text(item.get("id"))
    if not uri:
        raise ValueError("it has neither a `link` nor an `id`")
    return Post(
        uri=uri,
        text=_text(_object(item.get("caption")).get("text")),
        images=_images(item),
        author=_text(_object(item.get("user")).get("id")),
        time_seconds=_seconds(item.get("created_time")),
    )


def _images(item: dict[str, Any]) -> list[PostImage]:
    album = item.get("carousel_media")
    parts = album if isinstance(album, list) and album else [item]
    pictures = [_object(part) for part in parts if _object(part).get("type") != "video"]
    urls = [
        _object(_object(p.get("images")).get("standard_resolution")).get("url") for p in pictures
    ]
    found = [url for url in map(_text, urls) if url.startswith(("http://", "https://"))]
    if pictures and not found:
        raise ValueError("it has no `images.standard_resolution.url` of http(s)")
    return [PostImage(url) for url in dict.fromkeys(found)]


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return seconds if 0 <= seconds < 2**32 else 0.0


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """A text, or a number as one; no halves of characters, which JSON can hold but UTF-8 cannot."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).encode(errors="replace").decode()
