import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.inference import streams

SECONDS = {"slow": 0.05, "quick": 0.0}


async def asks(*names: str) -> AsyncIterator[str]:
    for name in names:
        yield name


async def answer(name: str) -> str:
    await asyncio.sleep(SECONDS[name])
    return name


async def test_answers_come_as_they_are_ready_or_in_the_order_of_what_was_asked() -> None:
    ready = [a async for a in streams.answers(answer, asks("slow", "quick"), in_order=False)]
    ordered = [a async for a in streams.answers(answer, asks("slow", "quick"), in_order=True)]

    assert ready == ["quick", "slow"]
    assert ordered == ["slow", "quick"]


@pytest.mark.parametrize("in_order", [True, False])
async def test_no_more_is_read_than_may_be_under_way(in_order: bool) -> None:
    read = 0

    async def counted() -> AsyncIterator[str]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield "quick"

    answers = streams.answers(answer, counted(), in_order=in_order, limit=3)
    await anext(answers)
    await asyncio.sleep(0.02)
    assert read <= 3 + 1, "the one that waits for room has been read"
    assert len([a async for a in answers]) == 9


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_caller_who_reads_no_more_ends_what_is_under_way_without_a_complaint(
    in_order: bool,
) -> None:
    ended = asyncio.Event()

    async def hang(name: str) -> str:
        if name == "quick":
            return name
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return name

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    answers = streams.answers(hang, asks("quick", "slow"), in_order=in_order)
    assert await anext(answers) == "quick"
    await asyncio.sleep(0)

    await answers.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert ended.is_set()
    assert complaints == []


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_failure_ends_the_stream(in_order: bool) -> None:
    async def fail(name: str) -> str:
        raise ValueError(name)

    with pytest.raises(ExceptionGroup):
        async for _ in streams.answers(fail, asks("quick"), in_order=in_order):
            pass
