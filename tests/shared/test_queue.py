import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.shared import errors, queue
from services.shared.queue import Pace, Priority, Queue, QueueMetrics, Served, Work
from services.shared.worker import Worker, WorkerDied, WorkerFailed


class Bench:
    """Stands for the worker processes: does jobs in time of the test's choosing."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.ran: list[list[bytes]] = []
        self.running = self.peak = self.started = self.killed = 0
        self.troubles: list[Exception] = []
        self.absences: list[Exception] = []
        self.go = asyncio.Event()
        self.go.set()

    async def start(self) -> Worker:
        self.started += 1
        if self.absences:
            raise self.absences.pop()
        return cast(Worker, self)

    async def do(self, parts: Sequence[bytes], limit_seconds: float) -> bytes:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.ran.append(list(parts))
        try:
            await asyncio.sleep(self.seconds)
            await self.go.wait()
            if self.troubles:
                raise self.troubles.pop(0)
            return b"+".join(parts)
        finally:
            self.running -= 1

    async def kill(self) -> int:
        self.killed += 1
        return -9


class Room:
    """A queue with its bench and what it has counted."""

    def __init__(self, queue: Queue, bench: Bench, registry: CollectorRegistry) -> None:
        self.queue, self.bench, self.registry = queue, bench, registry

    def waits(self, outcome: str, priority: str = "interactive") -> float | None:
        labels = {"stage": "test", "outcome": outcome, "priority": priority}
        return self.registry.get_sample_value("emojinet_queue_wait_seconds_count", labels)

    def run(
        self,
        name: str,
        *,
        within: float = 10.0,
        cost: float = 0.001,
        priority: Priority = Priority.INTERACTIVE,
    ) -> "asyncio.Task[Served]":
        work = Work(
            parts=[name.encode()],
            cost_seconds=cost,
            deadline=time.monotonic() + within,
            priority=priority,
        )
        return asyncio.create_task(self.queue.run(work))


@asynccontextmanager
async def room(
    *, slots: int = 1, relative: Sequence[float] = (1.0,), seconds: float = 0.0
) -> AsyncIterator[Room]:
    registry, bench = CollectorRegistry(), Bench(seconds)
    queue = Queue(
        "test", bench.start, slots=slots, metrics=QueueMetrics(registry), relative=relative
    )
    queue.open([await bench.start() for _ in range(slots)])
    try:
        yield Room(queue, bench, registry)
    finally:
        bench.go.set()
        await queue.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_work_is_answered_with_its_wait_measured() -> None:
    async with room() as r:
        served = await r.run("a")
        assert served.reply == b"a"
        assert served.waited_seconds < 1
        assert r.waits("served") == 1


async def test_a_worker_does_one_job_at_a_time_in_order_of_arrival() -> None:
    async with room() as r:
        await asyncio.gather(*(r.run(name) for name in "abcdef"))
        assert r.bench.ran == [[name.encode()] for name in "abcdef"]
        assert r.bench.peak == 1


async def test_cancelled_work_that_has_not_started_never_runs_and_its_wait_is_counted() -> None:
    async with room() as r:
        r.bench.go.clear()
        first = r.run("first")
        await settle()
        others = [r.run(f"other {n}") for n in range(1000)]
        await settle()
        assert len(r.queue) == 1000
        for other in others:
            other.cancel()
        await settle()
        assert len(r.queue) == 0
        r.bench.go.set()
        await first
        await r.run("last")
        assert r.bench.ran == [[b"first"], [b"last"]]
        assert r.waits("cancelled") == 1000


async def test_a_cancelled_caller_never_lets_a_second_job_onto_the_worker() -> None:
    async with room() as r:
        r.bench.go.clear()
        first = r.run("first")
        await settle()
        first.cancel()
        second = r.run("second")
        await settle()
        assert r.bench.ran == [[b"first"]]  # still at work, and still alone
        r.bench.go.set()
        await second
        assert r.bench.peak == 1


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 0.02), st.booleans()), max_size=30), st.integers(1, 3))
def test_there_are_never_more_jobs_than_slots_whatever_callers_do(
    callers: list[tuple[float, bool]], slots: int
) -> None:
    async def trial() -> None:
        async with room(slots=slots, seconds=0.002) as r:
            tasks = []
            for delay, cancels in callers:
                task = r.run("x")
                tasks.append(task)
                if cancels:
                    asyncio.get_running_loop().call_later(delay, task.cancel)
            await asyncio.gather(*tasks, return_exceptions=True)
            assert r.bench.peak <= slots
            assert len(r.queue) == 0
            outcomes = [r.waits(o) or 0 for o in ("served", "cancelled", "expired", "error")]
            started = [task for task in tasks if not task.cancelled()]
            assert len(callers) >= sum(outcomes) >= len(started)

    asyncio.run(trial())


async def test_work_that_could_not_finish_in_time_is_refused_without_running() -> None:
    async with room() as r:
        r.bench.go.clear()
        first = r.run("first")
        await settle()
        late = r.run("late", within=0.05, cost=0.2)
        r.bench.go.set()
        with pytest.raises(errors.Overloaded) as caught:
            await late
        assert caught.value.retry_seconds
        await first
        assert r.bench.ran == [[b"first"]]
        assert r.waits("expired") == 1


async def test_interactive_work_goes_before_bulk() -> None:
    async with room() as r:
        r.bench.go.clear()
        tasks = [r.run("first")]
        await settle()
        tasks += [r.run("bulk", priority=Priority.BULK), r.run("interactive")]
        r.bench.go.set()
        await asyncio.gather(*tasks)
        assert r.bench.ran[1:] == [[b"interactive"], [b"bulk"]]


@pytest.mark.parametrize("waited", [True, False])
async def test_bulk_work_that_has_waited_is_not_starved(
    waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BULK_PATIENCE_SECONDS", 0.0 if waited else 60.0)
    async with room() as r:
        r.bench.go.clear()
        tasks = [r.run("bulk", priority=Priority.BULK)]
        tasks += [r.run("interactive") for _ in range(40)]
        tasks += [r.run("bulk", priority=Priority.BULK)]
        r.bench.go.set()
        await asyncio.gather(*tasks)
        assert ([b"bulk"] in r.bench.ran[1:30]) == waited


async def test_a_free_worker_takes_as_many_as_are_worth_it() -> None:
    async with room(relative=[1.0, 1.1, 1.2]) as r:
        r.bench.go.clear()
        tasks = [r.run("first")]
        await settle()
        tasks += [r.run(name) for name in "abcd"]
        r.bench.go.set()
        served = await asyncio.gather(*tasks)
        assert r.bench.ran == [[b"first"], [b"a", b"b", b"c"], [b"d"]]
        assert [(s.index, s.batch_size) for s in served] == [(0, 1), (0, 3), (1, 3), (2, 3), (0, 1)]


async def test_work_whose_worker_died_is_done_by_the_next_one() -> None:
    async with room() as r:
        r.bench.troubles = [WorkerDied("killed", over_limit=False)]
        assert (await r.run("a")).reply == b"a"
        assert r.bench.started == 2


async def test_work_that_kills_two_workers_is_given_up() -> None:
    async with room() as r:
        r.bench.troubles = [WorkerDied("killed", over_limit=False)] * 2
        with pytest.raises(WorkerDied):
            await r.run("a")
        assert (await r.run("b")).reply == b"b"
        assert r.waits("error") == 1


async def test_work_that_went_over_its_limit_is_not_tried_again() -> None:
    async with room() as r:
        r.bench.troubles = [WorkerDied("too long", over_limit=True)]
        with pytest.raises(WorkerDied):
            await r.run("a")
        assert r.bench.ran == [[b"a"]]


async def test_what_nobody_foresaw_reaches_the_caller_as_an_id_alone() -> None:
    async with room() as r:
        r.bench.troubles = [WorkerFailed("Traceback: the secret is 1234")]
        with pytest.raises(errors.Internal) as caught:
            await r.run("a")
        assert "1234" not in str(caught.value)
        assert caught.value.metadata["id"] in str(caught.value)


async def test_a_worker_that_cannot_be_started_again_at_once_is_tried_again() -> None:
    async with room() as r:
        r.bench.absences = [errors.BadModel("gone for a moment")]
        r.bench.troubles = [WorkerDied("killed", over_limit=False)]
        assert (await r.run("a")).reply == b"a"


async def test_closing_lets_running_work_finish_and_cancels_the_rest() -> None:
    async with room() as r:
        r.bench.go.clear()
        running, waiting = r.run("running"), r.run("waiting")
        await settle()
        closing = asyncio.create_task(r.queue.close())
        await settle()
        r.bench.go.set()
        await closing
        assert (await running).reply == b"running"
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert r.bench.killed == 1


async def test_the_wait_ahead_is_the_cost_of_what_waits_over_the_slots() -> None:
    async with room(slots=2) as r:
        assert r.queue.ahead_seconds(Priority.BULK) == 0
        r.bench.go.clear()
        tasks = [r.run(str(n), cost=1.0) for n in range(6)]
        tasks += [r.run("bulk", cost=10.0, priority=Priority.BULK)]
        await settle()
        assert r.queue.ahead_seconds(Priority.INTERACTIVE) == pytest.approx(3.0, abs=0.5)
        assert r.queue.ahead_seconds(Priority.BULK) == pytest.approx(8.0, abs=0.5)
        assert r.queue.count_ahead(Priority.INTERACTIVE) == 4
        for task in tasks:
            task.cancel()
        await settle()


async def test_the_oldest_wait_is_seen_while_it_lasts() -> None:
    async with room() as r:
        assert r.queue.oldest_seconds() == 0
        r.bench.go.clear()
        tasks = [r.run("first"), r.run("second")]
        await settle()  # both are there: from now on they wait
        await asyncio.sleep(0.02)
        seen = r.registry.get_sample_value("emojinet_queue_oldest_wait_seconds", {"stage": "test"})
        assert seen is not None
        assert seen >= 0.02
        r.bench.go.set()
        await asyncio.gather(*tasks)


def test_the_pace_learns_how_much_slower_work_runs_and_forgets() -> None:
    pace = Pace()
    for _ in range(200):
        pace.observe(0.01, 0.03)
    assert pace.factor == pytest.approx(3, rel=0.05)
    for _ in range(1000):
        pace.observe(0.01, 0.01)
    assert pace.factor == pytest.approx(1, rel=0.05)


async def test_work_that_is_done_by_all_cores_counts_as_on_one() -> None:
    async with room() as r:
        late = time.monotonic() + 10
        await r.queue.run(Work(parts=[b"wide"], cost_seconds=0.2, deadline=late, alone=True))
        labels = {"stage": "test", "priority": "interactive"}
        busy = r.registry.get_sample_value("emojinet_busy_seconds_total", labels)
        assert busy == pytest.approx(0.2)
        assert r.queue.pace.factor == pytest.approx(1)


async def test_while_interactive_work_comes_bulk_work_leaves_a_worker_free() -> None:
    async with room(slots=2) as r:
        await r.run("hurried")
        r.bench.go.clear()
        bulk = [r.run("bulk", priority=Priority.BULK) for _ in range(3)]
        await settle()
        assert r.queue.busy == 1
        hurried = r.run("hurried")
        await settle()
        assert r.queue.busy == 2
        r.bench.go.set()
        await asyncio.gather(hurried, *bulk)
        assert r.bench.ran[:3] == [[b"hurried"], [b"bulk"], [b"hurried"]]


async def test_bulk_work_takes_all_workers_where_nobody_is_in_a_hurry() -> None:
    async with room(slots=2) as r:
        r.bench.go.clear()
        bulk = [r.run("bulk", priority=Priority.BULK) for _ in range(3)]
        await settle()
        assert r.queue.busy == 2
        r.bench.go.set()
        await asyncio.gather(*bulk)


async def test_bulk_work_runs_when_all_interactive_work_has_come_too_late() -> None:
    async with room() as r:
        r.bench.go.clear()
        first = r.run("first")
        await settle()
        late = [r.run("late", within=0.01) for _ in range(3)]
        bulk = r.run("bulk", priority=Priority.BULK)
        await asyncio.sleep(0.02)
        r.bench.go.set()
        await asyncio.wait_for(asyncio.gather(first, bulk), 5)
        for work in late:
            with pytest.raises(errors.Overloaded):
                await work


async def test_a_batch_is_of_one_priority() -> None:
    async with room(relative=[1.0, 1.1, 1.2, 1.3]) as r:
        r.bench.go.clear()
        tasks = [r.run("first")]
        await settle()
        tasks += [r.run("bulk", priority=Priority.BULK) for _ in range(2)]
        tasks += [r.run("hurried") for _ in range(2)]
        r.bench.go.set()
        await asyncio.gather(*tasks)
        assert r.bench.ran[1:] == [[b"hurried", b"hurried"], [b"bulk", b"bulk"]]


async def test_work_is_dropped_whose_answer_a_busy_event_loop_would_bring_too_late() -> None:
    async def busy() -> None:
        while True:
            time.sleep(0.05)  # as a loop with too much to do
            await asyncio.sleep(0)

    async with room() as r:
        await r.run("a", within=0.15)
        loop = asyncio.create_task(busy())
        for _ in range(40):
            await r.run("b")
        with pytest.raises(errors.Overloaded):
            await r.run("c", within=0.15)
        loop.cancel()
        assert r.waits("expired") == 1
