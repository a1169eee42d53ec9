"""Whether a live service is what its source takes it for: `python -m services.crawler check`.

The project's tests talk to a stand-in. This runs a source against the service itself for a while,
and tells of each assumption how often it held, or broke, with an example without names.
"""

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as excerpt
from typing import Any, cast

from services.crawler.keep import mentioned
from services.crawler.post import Event, Malformed, Page, Post
from services.crawler.recording import Recorder, Seen, Tapped
from services.crawler.sources import Plan, Source, bluesky, frames
from services.crawler.web import Web, WebFailed
from services.shared import header, pixels, vocabulary
from services.shared.errors import EmojinetError

SAMPLE = 10  # pictures that are fetched
MAX_LAG_SECONDS = 60.0
TOLERATED = 0.01  # the share in which an assumption may break: strangers write records by hand
KINDS = ("commit", "account", "identity", "sync", "info")
EMBEDS = frozenset(
    f"app.bsky.embed.{name}"
    for name in ("images", "gallery", "video", "external", "record", "recordWithMedia")
)

EXPECTED = (
    "frames are JSON objects of kinds that we know",
    "events are recent",
    "posts have a text and a time",
    "embeds are of types that we know",
    "pictures have CIDs of their bytes",
    "events are well-formed",
    "posts have an author",
    "some posts have pictures and emoji",
    "pictures are where they should be",
    "replies announce a limit",
)


@dataclass
class Assumption:
    """One thing that a source takes for granted."""

    held: int = 0
    broken: int = 0
    examples: Counter[str] = field(default_factory=Counter)
    """Of how it was broken, and how often; a few."""

    @property
    def verdict(self) -> str:
        if not self.held + self.broken:
            return "not seen"
        return "held" if self.broken <= TOLERATED * (self.held + self.broken) else "broken"


class Report:
    """What a check found."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.assumptions = defaultdict[str, Assumption](Assumption)
        self.counts: Counter[str] = Counter()
        """Of events by kind, records' fields, and replies."""
        self.failure = ""
        """Why the source gave up, if it did."""
        for name in EXPECTED:  # also what nothing is seen of
            self.assumptions[name]

    @property
    def passed(self) -> bool:
        """Whether the source worked, and nothing that it assumes is broken."""
        return not self.failure and all(a.verdict != "broken" for a in self.assumptions.values())

    def note(self, name: str, holds: object, example: object = "") -> None:
        """Counts that an assumption holds or not."""
        assumption = self.assumptions[name]
        if holds:
            assumption.held += 1
            return
        assumption.broken += 1
        shown = excerpt(example)
        if shown in assumption.examples or len(assumption.examples) < 5:
            assumption.examples[shown] += 1

    def lines(self) -> list[str]:
        """For people."""
        found = [f"{self.source}: {'fit to crawl' if self.passed else 'NOT as expected'}"]
        found += [f"  it gave up: {self.failure}"] if self.failure else []
        for name, a in self.assumptions.items():
            found.append(f"  {a.verdict:8}  {name}: {a.held} held, {a.broken} broken")
            found += [f"            {n} x {what}" for what, n in a.examples.most_common()]
        return found + [f"  {n:8}  {what}" for what, n in sorted(self.counts.items())]


async def check(
    name: str,
    make: Callable[[Web], Source],
    seconds: float,
    record: Path | None = None,
    **web_options: Any,
) -> Report:
    """Runs a source for so long and looks at all that it gets.

    Args:
        make: the source, by its way to the network.
        record: where to write what came, without names; see `recording.py`.
        web_options: of `Web`.
    """
    report, recorder = Report(name), Recorder(record) if record else None
    pictures: list[str] = []

    def show(seen: Seen) -> None:
        if recorder:
            recorder.show(seen)
        (_see_reply if seen.status else _see_frame)(seen, report)

    async with Web(**web_options) as plain, Tapped(show, **web_options) as web:
        plan = Plan(emoji=[e.text for e in vocabulary.inventory()], wanted=lambda _: True)
        try:
            with suppress(TimeoutError):
                found = cast(AsyncGenerator[Page, None], make(web).pages("", plan))
                async with asyncio.timeout(seconds), aclosing(found) as pages:
                    async for page in pages:
                        for event in page.events:
                            _see_event(event, report, pictures)
        except (EmojinetError, WebFailed) as error:
            report.failure = str(error)
        finally:
            if recorder:
                recorder.close()
        for url in pictures[:SAMPLE]:
            await _see_picture(plain, url, report)
    return report


def _see_reply(seen: Seen, report: Report) -> None:
    report.counts[f"replies with status {seen.status}"] += 1
    limits = [key for key in seen.headers if "ratelimit" in key.lower().replace("-", "")]
    report.note("replies announce a limit", limits)


def _see_frame(seen: Seen, report: Report) -> None:
    report.counts["frames"] += 1
    try:
        frame = json.loads(seen.body)
        envelope = frame["payload"] if "$type" in frame else frame
        kind = envelope.get("kind") or envelope["$type"].partition("#")[2]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        report.note("frames are JSON objects of kinds that we know", False, "no such object")
        return
    report.note("frames are JSON objects of kinds that we know", kind in KINDS, kind)
    seen_us = envelope.get("time_us") or frames.microseconds(envelope.get("time"))
    if type(seen_us) is int and 0 < seen_us < 10 * frames.OLDEST_US:
        lag = time.time() - seen_us / 1e6
        report.note("events are recent", lag < MAX_LAG_SECONDS, f"{lag / 60:.0f} minutes late")
    commit = envelope.get("commit", envelope)
    record = commit.get("record") if isinstance(commit, dict) else None
    if isinstance(record, dict) and commit.get("collection") == bluesky.POST:
        _see_record(record, report)


def _see_record(record: dict[str, Any], report: Report) -> None:
    report.counts["records of posts"] += 1
    for key in ("text", "createdAt", "langs", "facets", "embed", "labels", "reply", "tags"):
        report.counts[f"records with {key}"] += key in record
    report.note(
        "posts have a text and a time",
        isinstance(record.get("text"), str) and frames.microseconds(record.get("createdAt")),
        sorted(set(record) & {"text", "createdAt"}),
    )
    embed = record.get("embed")
    if not isinstance(embed, dict):
        return
    kind = embed.get("$type")
    known = isinstance(kind, str) and kind in EMBEDS
    report.note("embeds are of types that we know", known, kind)
    for picture in bluesky.pictures(embed):
        report.note("pictures have CIDs of their bytes", bluesky.cid_of(picture), type(picture))


def _see_event(event: Event, report: Report, pictures: list[str]) -> None:
    report.counts[f"events: {type(event).__name__}"] += 1
    why = re.sub(r"'[^']*'|\"[^\"]*\"", "…", event.why) if isinstance(event, Malformed) else ""
    report.note("events are well-formed", not why, why)
    if not isinstance(event, Post):
        return
    report.note("posts have an author", event.author)
    emoji = mentioned(event)
    report.counts["posts with emoji"] += bool(emoji)
    report.counts["posts with pictures"] += bool(event.images)
    if emoji and event.images:
        report.note("some posts have pictures and emoji", True)
        if len(pictures) < SAMPLE and not event.flags:
            pictures.append(event.images[0].url)


async def _see_picture(web: Web, url: str, report: Report) -> None:
    try:
        reply = await web.get(url, max_bytes=pixels.MAX_BYTES)
    except WebFailed as error:
        report.note("pictures are where they should be", False, f"no answer: {error.status}")
        return
    read = header.read(reply.body)
    report.note("pictures are where they should be", read, f"status {reply.status}, no picture")
