"""The user's own posts: a table with one post a row, or a folder of pictures sorted by emoji.

A table is CSV or TSV with a header, JSONL, or Parquet; text is UTF-8. Of each row:

- `image` is an http(s) URL, or a path relative to the table's folder, or a JSON list of these;
- `labels` are emoji in any spelling, or their names apart by commas, or a JSON list of these;
- `time` is ISO 8601 (UTC where it names no zone), or seconds since 1970;
- `id` names the post; without one its name is a hash of picture, text and author.

In a folder each sub-folder is named by an emoji or its name ("🍕", "pizza", "slice-of-pizza"), at
whatever depth its pictures lie. Files of other kinds and hidden ones are no posts.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from reprlib import repr as excerpt
from urllib.parse import urlsplit

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.post import Event, Malformed, Page, Post, PostImage
from services.crawler.sources import Plan, rows
from services.crawler.sources.rows import MAX_ROW_BYTES, Fields, Row, plain
from services.shared import vocabulary
from services.shared.errors import BadSource

PAGE_ROWS = 500
PAGE_CHARACTERS = 4 << 20  # of captions, so that a page of giant ones fits in memory, too
MAX_URL = 4096

_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_SEPARATOR = re.compile(r"[\s'\"\[\]]*[,;|\n\[\]]['\"\s]*")  # Python's lists, too


class ImportedSource:
    """Posts from a file or folder of the user's own."""

    def __init__(self, settings: pb.ImportSource) -> None:
        if not settings.path:
            raise BadSource("`path` is empty, and should name a file or folder.")
        self._path = Path(settings.path)
        self._columns = dict(settings.columns)

    async def pages(self, cursor: str, plan: Plan) -> AsyncIterator[Page]:
        pages = self._pages(cursor)
        while page := await asyncio.to_thread(next, pages, None):
            yield page

    def _pages(self, cursor: str) -> Iterator[Page]:
        row, events, characters = None, list[Event](), 0
        try:
            for row in rows.read(self._path, self._columns, json.loads(cursor or "[]")):
                event = _event(row, self._path.parent)
                events.append(event)
                characters += len(event.text) if isinstance(event, Post) else 0
                if len(events) == PAGE_ROWS or characters > PAGE_CHARACTERS:
                    yield Page(events, json.dumps(row.position))
                    events, characters = [], 0
        except OSError as error:
            raise rows.bad(self._path, f"cannot be read: {error.strerror or error}") from None
        if events and row:
            yield Page(events, json.dumps(row.position))
        if not row and not cursor:
            raise rows.bad(self._path, "is empty: it should have at least one post")


def _event(row: Row, folder: Path) -> Event:
    if isinstance(row.fields, str):
        return Malformed(row.where, row.fields)
    try:
        return _post(row.fields, folder)
    except ValueError as error:
        return Malformed(row.where, str(error))


def _post(fields: Fields, folder: Path) -> Post:
    urls = [_url(image, folder) for image in _texts("image", fields.get("image"))]
    if not urls:
        raise ValueError("it has no image")
    text, author, segment, name = (
        _text(key, fields.get(key)) for key in ("text", "author", "segment", "id")
    )
    content = "\0".join([*urls, text, author]).encode()
    return Post(
        uri=name or hashlib.sha256(content).hexdigest()[:32],
        text=text,
        images=[PostImage(url) for url in urls],
        author=author,
        time_seconds=_seconds(_text("time", fields.get("time"))),
        segment=segment,
        labels=_labels(_texts("labels", fields.get("labels"))),
    )


def _text(key: str, value: object) -> str:
    if value is None or value != value:  # NaN stands for what is missing
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"its {key} is {excerpt(value)}, and should be text")
    text = str(value).strip()
    if len(text) > MAX_ROW_BYTES:
        raise ValueError(f"its {key} has more than {MAX_ROW_BYTES} characters")
    if "\0" in text:
        raise ValueError(f"its {key} has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"its {key} is not UTF-8, from character {error.start} on") from None
    return text


def _texts(key: str, value: object) -> list[str]:
    """The texts of a list, of a JSON list, or of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    found = value if isinstance(value, list) else [value]
    return [text for each in found if (text := _text(key, each))]


def _url(image: str, folder: Path) -> str:
    if len(image) > MAX_URL:
        raise ValueError(f"its image has an address of more than {MAX_URL} characters")
    if image.lower().startswith(("http://", "https://")):
        if not urlsplit(image).hostname:
            raise ValueError(f"its image {excerpt(image)} is on no host")
        return image
    if image.startswith("file:///"):
        return image
    if _OTHER_SCHEME.match(image):
        raise ValueError(f"its image {excerpt(image)} should be an http(s) URL or a path")
    return Path(os.path.abspath(folder / image)).as_uri()


def _seconds(time: str) -> float:
    """Since 1970.

    >>> _seconds("2015-09-05T01:59:03Z"), _seconds("20150905"), _seconds("1441418343.5")
    (1441418343.0, 1441411200.0, 1441418343.5)
    """
    if not time:
        return 0.0
    seconds = math.nan
    try:
        moment = datetime.fromisoformat(time)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        with contextlib.suppress(ValueError):
            seconds = float(time)
    if not 0 <= seconds < 2**32:
        raise ValueError(f"its time {excerpt(time)} should be ISO 8601, or seconds since 1970")
    return seconds


def _labels(texts: Iterable[str]) -> list[str]:
    """The emoji in labels. What is none matters only where nothing else is one."""
    parts = [part for text in texts for part in _SEPARATOR.split(text) if part]
    found = [emoji for part in parts for emoji in _emoji(part)]
    if parts and not found:
        raise ValueError(f"{excerpt(', '.join(parts))} is no emoji of the inventory, nor its name")
    return list(dict.fromkeys(found))


def _emoji(label: str) -> list[str]:
    called = _names().get(plain(label))
    return vocabulary.find(label, hashtag=True) or ([called] if called else [])


@cache
def _names() -> dict[str, str]:
    """Emoji by what CLDR calls them, or else by what Unicode calls their only character."""
    characters = {text.rstrip("\ufe0f"): text for text, *_ in vocabulary.inventory()}
    unicode = {plain(unicodedata.name(c)): text for c, text in characters.items() if len(c) == 1}
    return unicode | {plain(name): text for text, name, *_ in vocabulary.inventory()}
