"""What somebody has posted in Slack, read from the event that tells of it."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any, NamedTuple

# Slack writes a link as <https://x.y/z.jpg|x.y/z.jpg>, with &, < and > as entities.
_LINK = re.compile(r"<(https?://[^|>\s]{1,8000})(?:\|[^>]*)?>")
_BARE = re.compile(r"https?://\S{1,8000}")
_NEW = ("", "file_share")  # all other kinds tell of changes, of deletions, or of who comes and goes


class Post(NamedTuple):
    """A message of a person."""

    channel: str
    ts: str
    """Which names it within its channel."""
    thread: str
    """The message that its thread begins with; itself where there is none yet."""
    mentions_me: bool
    files: tuple[Mapping[str, Any], ...]
    urls: tuple[str, ...]


def read(event: Mapping[str, Any], me: str) -> Post | None:
    """The post; None for what nobody answers: what was changed or deleted, and what bots say.

    Args:
        me: our own user in this workspace.
    """
    kind = event.get("subtype") or ""
    by_bot = any(event.get(mark) for mark in ("bot_id", "bot_profile")) or event.get("user") == me
    if kind not in _NEW or by_bot or event.get("edited") or event.get("hidden"):
        return None
    channel, ts, text = (str(event.get(name) or "") for name in ("channel", "ts", "text"))
    if not (channel and ts):
        return None
    files = event.get("files")
    return Post(
        channel=channel,
        ts=ts,
        thread=str(event.get("thread_ts") or ts),
        mentions_me=event.get("type") == "app_mention" or f"<@{me}>" in text,
        files=tuple(f for f in files if isinstance(f, dict)) if isinstance(files, list) else (),
        urls=tuple(links(text)),
    )


def links(text: str) -> list[str]:
    """The URLs in a message, as Slack or as a person writes them.

    >>> links("<@U1> <https://x.y/z.jpg?a=1&amp;b=2|x.y/z.jpg>"), links(" https://x.y ")
    (['https://x.y/z.jpg?a=1&b=2'], ['https://x.y'])
    """
    return [unescape(url) for url in _LINK.findall(text) or _BARE.findall(text)]
