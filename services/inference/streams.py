"""Many requests in, many answers out, so many of them under way at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

IN_FLIGHT = 32  # requests of one stream; the next is read when one is answered

A = TypeVar("A")
B = TypeVar("B")


class Gone(Exception):
    """Ends what is under way for a caller who reads no more; a group would wrap GeneratorExit."""


async def answers(
    answer: Callable[[A], Coroutine[Any, Any, B]],
    asks: AsyncIterator[A],
    *,
    in_order: bool,
    limit: int = IN_FLIGHT,
) -> AsyncIterator[B]:
    """The answers in the order of the asks, or else as they are ready."""
    ready: asyncio.Queue[asyncio.Task[B] | None] = asyncio.Queue()
    room = asyncio.Semaphore(limit)

    async def read() -> None:
        async with asyncio.TaskGroup() as group:
            async for ask in asks:
                await room.acquire()
                task = group.create_task(answer(ask))
                if in_order:
                    ready.put_nowait(task)
                else:
                    task.add_done_callback(ready.put_nowait)
        ready.put_nowait(None)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while (task := await ready.get()) is not None:
                response = await task
                try:
                    yield response
                except GeneratorExit:
                    raise Gone from None
                room.release()
    except* Gone:
        pass
