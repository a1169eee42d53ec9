import asyncio
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.crawler.limits import Clock, Quota, announced

pytestmark = pytest.mark.system

HOUR = 3600.0
START = 1_440_000_000.0  # September 2015
simulations = settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
T = TypeVar("T")


class SimulatedTime(asyncio.SelectorEventLoop):
    """A loop that does not wait: where others would sleep, its clock jumps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        selector = selectors.SelectSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            assert timeout is not None, "all wait for each other, for ever"
            # Past the moment, as real time is: else it would be asked for again without end.
            self.seconds += timeout and timeout + 1e-6
            return select(0)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds


class LoopClock(Clock):
    """The loop's time, and a wall clock that somebody may set."""

    def __init__(self) -> None:
        self.offset = START

    def now(self) -> float:
        return self.offset + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def simulate(scene: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(scene)


class Server(Protocol):
    """Counts calls, in its own way."""

    accepted: list[float]
    refused: int

    def call(self, now: float) -> tuple[int, Mapping[str, str]]: ...


class SlidingWindow:
    """Instagram: so many calls in any hour, those that were refused included or not."""

    def __init__(self, limit: int, *, window: float = HOUR, refusals_count: bool = True) -> None:
        self.limit, self.window, self.refusals_count = limit, window, refusals_count
        self.accepted: list[float] = []
        self.refused = 0
        self._calls: deque[float] = deque()

    def call(self, now: float) -> tuple[int, Mapping[str, str]]:
        while self._calls and self._calls[0] <= now - self.window:
            self._calls.popleft()
        welcome = len(self._calls) < self.limit
        if welcome or self.refusals_count:
            self._calls.append(now)
        if welcome:
            self.accepted.append(now)
        self.refused += not welcome
        left = max(0, self.limit - len(self._calls))
        headers = {"X-Ratelimit-Limit": str(self.limit), "X-Ratelimit-Remaining": str(left)}
        return (200 if welcome else 429), headers


Form = Callable[[float, float], Mapping[str, str]]


def _in_seconds(now: float, reset: float) -> Mapping[str, str]:
    return {"RateLimit-Reset": str(int(reset - now) + 1)}


def _epoch(now: float, reset: float) -> Mapping[str, str]:
    date = formatdate(START + now, usegmt=True)
    return {"X-RateLimit-Reset": str(int(START + reset)), "Date": date}


def _epoch_of_a_server_with_a_clock_of_its_own(now: float, reset: float) -> Mapping[str, str]:
    date = formatdate(START + now - 500, usegmt=True)
    return {"X-RateLimit-Reset": str(int(START + reset - 500)), "Date": date}


def _iso(now: float, reset: float) -> Mapping[str, str]:
    moment = datetime.fromtimestamp(START + reset, UTC).isoformat(timespec="microseconds")
    return {"X-RateLimit-Reset": moment.replace("+00:00", "Z")}


class FixedWindow:
    """Mastodon, Bluesky: so many calls until the next reset."""

    def __init__(self, limit: int, form: Form, *, window: float = 300.0) -> None:
        self.limit, self.window, self.form = limit, window, form
        self.accepted: list[float] = []
        self.refused = 0
        self._index, self._used = -1, 0

    def call(self, now: float) -> tuple[int, Mapping[str, str]]:
        index = int(now // self.window)
        if index != self._index:
            self._index, self._used = index, 0
        welcome = self._used < self.limit
        self._used += 1
        if welcome:
            self.accepted.append(now)
        self.refused += not welcome
        left = str(max(0, self.limit - self._used))
        form = self.form(now, (index + 1) * self.window)
        names = ("RateLimit", "X-RateLimit")
        said = {f"{name}-Limit": str(self.limit) for name in names}
        said |= {f"{name}-Remaining": left for name in names}
        return (200 if welcome else 429), {**said, **form}


class SlidingWindowWithReset(SlidingWindow):
    """Tells when the oldest call will be forgotten, which makes room for one."""

    def call(self, now: float) -> tuple[int, Mapping[str, str]]:
        status, headers = super().call(now)
        return status, {**headers, **_in_seconds(now, self._calls[0] + self.window)}


async def crawl(
    server: Server,
    quota: Quota,
    *,
    in_flight: int,
    latencies: Iterator[tuple[float, float, bool]],
    seconds: float,
) -> None:
    """Calls as fast as it may, with so many at once; a latency says whether the answer is lost."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    async def caller() -> None:
        while loop.time() < end:
            async with quota:
                there, back, lost = next(latencies)
                await asyncio.sleep(there)
                status, headers = server.call(loop.time())
                await asyncio.sleep(back)
                if not lost:
                    quota.observe(status, headers)

    callers = [asyncio.create_task(caller()) for _ in range(in_flight)]
    await asyncio.wait(callers, timeout=seconds)
    for task in callers:
        task.cancel()
    for outcome in await asyncio.gather(*callers, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)


def cycle(
    *ways: tuple[float, float], losses: frozenset[int] = frozenset()
) -> Iterator[tuple[float, float, bool]]:
    return (
        (*way, n % 50 in losses) for n, way in enumerate(itertools.cycle(ways or ((0.1, 0.1),)))
    )


ways = st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.001, 5.0)), min_size=1, max_size=7)


@simulations
@given(limit=st.integers(1, 120), in_flight=st.integers(1, 30), ways=ways)
@example(limit=1, in_flight=30, ways=[(5.0, 5.0)])
@example(limit=7, in_flight=8, ways=[(0.001, 5.0), (5.0, 0.001)])
def test_a_limit_per_hour_is_never_exceeded_and_nearly_used_up(
    limit: int, in_flight: int, ways: list[tuple[float, float]]
) -> None:
    server = SlidingWindow(limit)

    async def scene() -> None:
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=in_flight, latencies=cycle(*ways), seconds=8 * HOUR)

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= 0.97 * 8 * min(limit, in_flight * HOUR / 10)


def test_the_limit_that_the_article_had_is_used_to_97_percent_in_every_hour() -> None:
    server = SlidingWindow(5000)

    async def scene() -> None:
        await crawl(
            server,
            Quota(clock=LoopClock()),
            in_flight=8,
            latencies=cycle((0.2, 0.3), (0.1, 0.1), (0.05, 1.5)),
            seconds=6 * HOUR,
        )

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= 0.97 * 6 * 5000
    for hour in range(5):  # whichever hour one looks at, from any of its starts
        start = hour * HOUR * 1.01
        assert sum(start <= at < start + HOUR * 1.01 for at in server.accepted) >= 0.97 * 5000


@simulations
@given(
    limit=st.integers(2, 400),
    in_flight=st.integers(1, 30),
    ways=st.lists(st.tuples(st.floats(0.001, 1.5), st.floats(0.001, 1.5)), min_size=1, max_size=7),
    window=st.sampled_from([300.0, 900.0, HOUR]),
    form=st.sampled_from([_in_seconds, _epoch, _epoch_of_a_server_with_a_clock_of_its_own, _iso]),
)
def test_a_limit_with_a_reset_is_never_exceeded_and_nearly_used_up(
    limit: int, in_flight: int, ways: list[tuple[float, float]], window: float, form: Form
) -> None:
    server = FixedWindow(limit, form, window=window)

    async def scene() -> None:
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=in_flight, latencies=cycle(*ways), seconds=10 * window)

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= 0.97 * 10 * min(limit, in_flight * (window - 10) / 3)


@simulations
@given(
    limit=st.integers(1, 200),
    in_flight=st.integers(1, 20),
    window=st.sampled_from([60.0, 300.0, HOUR]),
)
def test_a_window_that_slides_may_tell_its_reset_too(
    limit: int, in_flight: int, window: float
) -> None:
    server = SlidingWindowWithReset(limit, window=window)

    async def scene() -> None:
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=in_flight, latencies=cycle(), seconds=10 * window)

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= 0.85 * 10 * min(limit, in_flight * window / 0.25)


@simulations
@given(
    limit=st.integers(5, 80),
    in_flight=st.integers(1, 10),
    losses=st.frozensets(st.integers(0, 49), max_size=10),
    sliding=st.booleans(),
)
def test_calls_whose_answer_is_lost_may_have_been_counted(
    limit: int, in_flight: int, losses: frozenset[int], sliding: bool
) -> None:
    server: Server = SlidingWindow(limit) if sliding else FixedWindow(limit, _in_seconds)

    async def scene() -> None:
        latencies = cycle((0.2, 0.3), losses=losses)
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=in_flight, latencies=latencies, seconds=3 * HOUR)

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= limit


@simulations
@given(
    limit=st.integers(10, 100),
    lives=st.lists(st.floats(5.0, HOUR), min_size=2, max_size=6),
    kept=st.booleans(),
    jump=st.sampled_from([0.0, HOUR, -HOUR, 10 * 365 * 86400.0, -10 * 365 * 86400.0]),
)
def test_a_restart_does_not_reset_the_budget(
    limit: int, lives: list[float], kept: bool, jump: float
) -> None:
    """Even where nothing was kept, or the clock was set: the first answer tells what is left."""
    server = SlidingWindow(limit)

    async def scene() -> None:
        clock, state = LoopClock(), ""
        for life in lives:
            quota = Quota(clock=clock, state=state)
            await crawl(server, quota, in_flight=6, latencies=cycle(), seconds=life)
            await asyncio.sleep(1.0)  # what was under way has arrived
            state = quota.state() if kept else ""
            clock.offset += jump

    simulate(scene())
    # A process that knows nothing has to ask to find out that nothing is left.
    assert server.refused <= (0 if kept and jump <= 0 else len(lives))


def test_a_restart_continues_where_it_was_and_uses_the_quota_to_the_full() -> None:
    server = SlidingWindow(500)

    async def scene() -> None:
        clock, state = LoopClock(), ""
        for _ in range(48):
            quota = Quota(clock=clock, state=state)
            assert len(state) < 20_000
            await crawl(server, quota, in_flight=4, latencies=cycle(), seconds=600.0)
            state = quota.state()

    simulate(scene())
    assert server.refused == 0
    assert len(server.accepted) >= 0.97 * 8 * 500


@pytest.mark.parametrize("window", [300.0, HOUR])
@pytest.mark.parametrize("refusals_count", [True, False])
def test_a_reset_may_make_room_for_one_call_only(window: float, refusals_count: bool) -> None:
    server = SlidingWindowWithReset(60, window=window, refusals_count=refusals_count)

    async def scene() -> None:
        for n in range(60):  # somebody's, evenly spread
            server.call(n * window / 60)
        await asyncio.sleep(window - 5)
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=10, latencies=cycle(), seconds=4 * window)

    simulate(scene())
    # The first finds out. Where it counts as well, it takes the room that was to become free.
    assert server.refused <= (5 if refusals_count else 1)
    assert len(server.accepted) >= 0.8 * 5 * 60


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_was_set_between_two_lives_costs_an_hour_at_most(years: int) -> None:
    async def scene(server: Server) -> None:
        clock = LoopClock()
        quota = Quota(clock=clock)
        await crawl(server, quota, in_flight=3, latencies=cycle(), seconds=60)
        state = quota.state()
        clock.offset += years * 365 * 86400.0
        quota = Quota(clock=clock, state=state)
        began = clock.monotonic()
        await crawl(server, quota, in_flight=3, latencies=cycle(), seconds=1.05 * HOUR)
        assert clock.monotonic() - began <= 1.1 * HOUR
        assert len(server.accepted) == 20

    simulate(scene(SlidingWindow(10)))
    simulate(scene(FixedWindow(10, _in_seconds, window=HOUR)))


def test_a_token_that_somebody_else_uses_too_is_shared() -> None:
    server, others = SlidingWindow(600, refusals_count=False), []

    async def scene() -> None:
        async def other() -> None:
            while True:
                await asyncio.sleep(12.0)
                others.append(server.call(asyncio.get_running_loop().time())[0])

        task = asyncio.create_task(other())
        quota = Quota(clock=LoopClock())
        await crawl(server, quota, in_flight=4, latencies=cycle(), seconds=5 * HOUR)
        task.cancel()

    simulate(scene())
    assert len(server.accepted) >= 0.97 * 5 * 600
    assert server.refused - others.count(429) <= 5


def test_clocks_that_jump_change_nothing_that_is_measured_in_seconds() -> None:
    for jump in (HOUR, -HOUR, 10 * 365 * 86400.0, -10 * 365 * 86400.0):
        server = SlidingWindow(50)

        async def scene(server: Server = server, jump: float = jump) -> None:
            clock = LoopClock()
            quota = Quota(clock=clock)
            for _ in range(6):
                await crawl(server, quota, in_flight=3, latencies=cycle(), seconds=HOUR)
                clock.offset += jump

        simulate(scene())
        assert server.refused == 0
        assert len(server.accepted) >= 0.97 * 6 * 50


def test_before_the_first_answer_there_is_one_call_at_a_time() -> None:
    async def scene() -> None:
        quota, running = Quota(clock=LoopClock()), []

        async def call() -> None:
            async with quota:
                running.append(1)
                assert sum(running) == 1 or quota.delay() == 0.0
                await asyncio.sleep(1.0)
                running.pop()
                quota.observe(200, {})

        calls = [asyncio.create_task(call()) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert len(running) == 1
        await asyncio.sleep(1.0)
        assert len(running) == 4  # nothing was announced
        await asyncio.gather(*calls)

    simulate(scene())


def test_a_call_that_is_cancelled_gives_its_turn_back() -> None:
    async def scene() -> None:
        quota = Quota(clock=LoopClock())

        async def call(seconds: float) -> None:
            async with quota:
                await asyncio.sleep(seconds)
                quota.observe(200, {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "2"})

        first = asyncio.create_task(call(1e9))
        waiting = asyncio.create_task(call(1.0))
        await asyncio.sleep(1.0)
        waiting_too = asyncio.create_task(call(1.0))
        await asyncio.sleep(1.0)
        waiting.cancel()
        first.cancel()
        await waiting_too
        await asyncio.wait_for(call(1.0), 10.0)

    simulate(scene())


async def refused(status: int, headers: Mapping[str, str]) -> float:
    """How long it waits after such an answer."""
    quota, loop = Quota(clock=LoopClock()), asyncio.get_running_loop()
    async with quota:
        quota.observe(status, headers)
    began = loop.time()
    async with quota:
        return loop.time() - began


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        (formatdate(START + 90, usegmt=True), 90),
        ("0", 1),
        ("-5", 60),
        ("soon, maybe", 60),
        ("", 60),
        (formatdate(START - 90, usegmt=True), 60),
        ("Thu, 99 Foo 2015 99:99:99 GMT", 60),
        ("1e9", 60),
        ("1000000000", 3600),
        ("9" * 400, 3600),
        (formatdate(START + 1e9, usegmt=True), 3600),
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
def test_after_a_429_it_waits_as_long_as_was_asked(name: str, value: str, seconds: int) -> None:
    assert simulate(refused(429, {name: value})) == pytest.approx(seconds, rel=0.01, abs=0.1)


def test_a_503_is_waited_for_only_if_it_says_how_long() -> None:
    assert simulate(refused(503, {"Retry-After": "30"})) == pytest.approx(30, abs=0.1)
    assert simulate(refused(503, {"Retry-After": "soon"})) == pytest.approx(0, abs=0.1)
    assert simulate(refused(503, {})) == pytest.approx(0, abs=0.1)
    assert simulate(refused(200, {"Retry-After": "30"})) == pytest.approx(0, abs=0.1)


def test_the_date_of_a_retry_is_read_by_the_clock_of_its_server() -> None:
    headers = {"Retry-After": formatdate(90, usegmt=True), "Date": formatdate(30, usegmt=True)}
    assert simulate(refused(429, headers)) == pytest.approx(60, abs=0.1)


def test_refusals_without_a_reason_are_waited_for_ever_longer() -> None:
    async def scene() -> list[int]:
        quota, loop, waits = Quota(clock=LoopClock()), asyncio.get_running_loop(), []
        for _ in range(9):
            began = loop.time()
            async with quota:
                waits.append(round(loop.time() - began))
                quota.observe(429, {})
        return waits

    assert simulate(scene()) == [0, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_server_that_does_not_answer_is_left_alone_for_a_while() -> None:
    async def scene() -> list[int]:
        quota, loop, waits = Quota(clock=LoopClock()), asyncio.get_running_loop(), []
        for _ in range(8):
            began = loop.time()
            async with quota:
                waits.append(round(loop.time() - began))
        return waits

    assert simulate(scene()) == [0, 0, 0, 1, 2, 4, 8, 16]


def test_who_stops_waiting_for_an_answer_does_not_make_a_server_silent() -> None:
    async def scene() -> None:
        quota = Quota(clock=LoopClock())
        for _ in range(9):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), quota:
                    await asyncio.sleep(9)
        assert quota.delay() == 0

    simulate(scene())


def test_a_pace_is_kept_between_calls() -> None:
    async def scene() -> float:
        quota, loop = Quota(clock=LoopClock()), asyncio.get_running_loop()
        quota.pace_seconds = 2.0
        for _ in range(5):
            async with quota:
                quota.observe(200, {})
        return loop.time()

    assert simulate(scene()) == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Ratelimit-Limit": "5000", "X-Ratelimit-Remaining": "4999"}, (5000, 4999, None)),
        ({"ratelimit-limit": "10", "ratelimit-remaining": "0", "ratelimit-reset": "7"}, (10, 0, 7)),
        (
            {
                "RateLimit-Limit": "3000, 3000;w=300",
                "RateLimit-Remaining": "2999",
                "RateLimit-Reset": f"{START + 200:.0f}",
                "RateLimit-Policy": "3000;w=300",
            },
            (3000, 2999, 200),
        ),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, (100, 50, 5)),
        ({"RateLimit": '"x";r=50;t=30', "RateLimit-Policy": '"x";q=9;w=60'}, (9, 50, 30)),
        (
            {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": f"{START * 1000 + 9000:.0f}"},
            (None, 3, 9),
        ),
        (
            {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "2015-08-19T16:00:10.000000Z"},
            (None, 3, 10),
        ),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": f"{START - 50:.0f}"}, (None, 3, 0)),
        ({"X-RateLimit-Limit": "0", "X-RateLimit-Remaining": "-1"}, (None, None, None)),
        ({"X-RateLimit-Limit": "lots", "X-RateLimit-Reset": "never"}, (None, None, None)),
        ({"Content-Type": "image/jpeg", "X-Frame-Rate": "3"}, (None, None, None)),
    ],
)
def test_headers_are_read_in_all_their_forms(
    headers: Mapping[str, str], said: tuple[int | None, int | None, float | None]
) -> None:
    assert announced(headers, START)[:3] == said


names = st.sampled_from(
    [f"{x}RateLimit-{name}" for x in ("", "X-") for name in ("Limit", "Remaining", "Reset")]
    + ["RateLimit", "RateLimit-Policy", "Retry-After", "Date"]
)
values = st.text(max_size=30) | st.integers(-(10**30), 10**30).map(str)


@given(answers=st.lists(st.tuples(st.integers(100, 599), st.dictionaries(names, values))))
def test_no_headers_whatever_stop_it_for_more_than_a_day(
    answers: list[tuple[int, dict[str, str]]],
) -> None:
    async def scene() -> None:
        quota, loop = Quota(clock=LoopClock()), asyncio.get_running_loop()
        for status, headers in answers:
            began = loop.time()
            async with quota:
                assert loop.time() - began <= 86_500
                quota.observe(status, headers)
            quota = Quota(clock=LoopClock(), state=quota.state())

    simulate(scene())


WRONG = '{"limit":-5,"left":null,"longest":0,"blocked":0,"reset":0,"log":[]}'


@given(
    state=st.text()
    | st.sampled_from(["{}", "[]", "null", '{"log":[[1e999,1]]}', '{"log":3}', WRONG])
)
def test_a_state_that_cannot_be_read_is_no_state(state: str) -> None:
    async def scene() -> None:
        async with asyncio.timeout(1), Quota(clock=LoopClock(), state=state):
            pass

    simulate(scene())
