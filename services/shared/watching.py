"""Long work as whoever watches it is told: the state of now, then changes, then the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from emojinet.v1 import state_pb2 as states

LIVE = (states.STATE_PENDING, states.STATE_RUNNING, states.STATE_PAUSED)
WATCH_SECONDS = 0.25  # how often a watcher's work is looked at

T = TypeVar("T", bound=Any)


async def changes(look: Callable[[], T]) -> AsyncIterator[T]:
    """What `look` shows: now, whenever it has changed, and when it has ended."""
    last = None
    while True:
        now = look()
        if now != last:
            yield now
        if now.state not in LIVE:
            return
        last = now
        await asyncio.sleep(WATCH_SECONDS)
