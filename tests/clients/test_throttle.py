"""A client that is refused most of what it asks sends less, and all again when it is not."""

import asyncio
import random

import pytest

from clients.client import AsyncClient
from clients.throttle import Throttle
from services.shared import errors
from tests.clients.standin import Standin, fail

JPEG = b"\xff\xd8"
BUSY = errors.Overloaded("Others are ahead.", retry_seconds=0.3)


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def throttle(clock: Clock) -> Throttle:
    return Throttle(clock, random.Random(1).random)


def ask(throttle: Throttle, clock: Clock, calls: int, each: float, accepted: float) -> float:
    """The share of calls that were sent to a server which accepts so many a second."""
    draw, sent, room = random.Random(2), 0, 0.0
    for _ in range(calls):
        clock.now += each * draw.expovariate(1)
        room = min(20.0, room + accepted * each)  # it has a line
        if throttle.refusal() is None:
            sent += 1
            throttle.observe(None if room >= 1 else BUSY)
            room -= room >= 1
    return sent / calls


def test_a_server_that_accepts_is_asked_everything() -> None:
    clock = Clock()
    assert ask(throttle(clock), clock, 5_000, 0.001, accepted=10_000) == 1


@pytest.mark.parametrize("times", [3, 10, 30])
def test_of_an_overload_about_twice_what_is_accepted_is_sent(times: int) -> None:
    clock = Clock()
    asking = throttle(clock)
    ask(asking, clock, 5_000, 0.001, accepted=1_000 / times)
    assert ask(asking, clock, 10_000, 0.001, accepted=1_000 / times) == pytest.approx(
        2 / times, rel=0.3
    )


def test_when_it_is_no_longer_refused_it_sends_everything_within_a_second() -> None:
    clock = Clock()
    asking = throttle(clock)
    ask(asking, clock, 10_000, 0.001, accepted=100)
    ask(asking, clock, 100, 0.01, accepted=10_000)
    assert ask(asking, clock, 1_000, 0.001, accepted=10_000) == 1


def test_the_few_calls_of_a_small_client_are_all_sent() -> None:
    clock = Clock()
    assert ask(throttle(clock), clock, 100, 0.5, accepted=0) == 1


def test_a_refusal_that_was_never_sent_says_so_and_when_to_come_again() -> None:
    clock = Clock()
    asking = Throttle(clock, lambda: 0.0)
    for _ in range(50):
        asking.refusal()
        asking.observe(BUSY)
    refusal = asking.refusal()
    assert isinstance(refusal, errors.Overloaded)
    assert refusal.retry_seconds == pytest.approx(0.3)
    assert "Not sent" in str(refusal)


def test_what_is_no_refusal_for_load_does_not_throttle() -> None:
    clock = Clock()
    asking = throttle(clock)
    for _ in range(1_000):
        assert asking.refusal() is None
        asking.observe(errors.ServerUnreachable("No server answers."))


async def test_a_client_keeps_most_calls_from_a_server_that_refuses_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Longer than its calls may take, so that it asks none of them again.
    monkeypatch.setattr("clients.throttle.LONGEST_SECONDS", 60.0)
    busy = errors.Overloaded("Others are ahead.", retry_seconds=60)
    with Standin(before=lambda number, context: fail(context, busy)) as server:
        async with AsyncClient(server.address) as client:
            for _ in range(20):
                calls = (client.suggest([JPEG], timeout=10) for _ in range(20))
                done = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(error, errors.Overloaded) for error in done)
    assert 10 < len(server.requests) < 200  # of 400
