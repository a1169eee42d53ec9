"""The bounded line in front of a pool of workers: it orders, times, expires and retries work.

A worker that becomes free pulls its next batch from the line; there is no timer. Work whose caller
has gone, or which could not finish in time, never starts: dropping only what has already expired
keeps 3 % of capacity useful at 1.5 times the load, dropping what will be late keeps 99 %.
"""

import asyncio
import logging
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import count

import stamina
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared import errors
from services.shared.worker import Worker, WorkerDied, WorkerFailed

OBJECTIVE_SECONDS = 0.1  # the queue wait we promise; a bucket edge
BUCKETS_SECONDS = tuple(
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, OBJECTIVE_SECONDS, 0.25, 0.5, 1, 2.5, 5, 10]
)
MAX_WORK = 4096  # pieces in line; deadlines bound it long before, where callers set them
MAX_WAITING_BYTES = 512 << 20
BULK_EVERY = 10  # every tenth batch starts with bulk work that has waited so long: none is starved
BULK_PATIENCE_SECONDS = 1.0
HURRY_SECONDS = 0.5  # after an interactive call the next is expected
ANSWER_SECONDS = 0.005  # what an answer needs from here to its caller, where the loop is idle
ANSWER_TURNS = 4  # turns of the event loop between a worker's reply and the wire
TURN_WEIGHT = 1 / 16
MEMORY_SECONDS = 2.0  # how much past work the pace remembers

log = logging.getLogger(__name__)


class Priority(StrEnum):
    """Who goes first."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(slots=True, eq=False, kw_only=True)
class Work:
    """One piece of work in the line."""

    parts: Sequence[bytes]
    """The job, for `Worker.do`; a batch is the concatenation of its jobs."""
    cost_seconds: float
    """What it is expected to take, alone on an idle machine."""
    deadline: float
    """When its answer is worth nothing any more, on `time.monotonic`."""
    priority: Priority = Priority.INTERACTIVE
    alone: bool = False
    """It is done by all cores, in less time than expected; they have as much work with it."""
    arrived: float = 0.0
    delivered: float = 0.0
    retried: bool = False
    done: "asyncio.Future[Served]" = field(init=False)


@dataclass(frozen=True, slots=True)
class Served:
    """What became of work that ran."""

    reply: bytes
    """The worker's answer to the whole batch."""
    index: int
    """Which of the batch this was."""
    batch_size: int
    waited_seconds: float
    worked_seconds: float


class QueueMetrics:
    """What the queues of one process tell Prometheus; `stage` is the label that parts them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.wait = Histogram(
            "emojinet_queue_wait_seconds",
            "Time that work was ready but not running, until it started or its caller gave up.",
            ["stage", "outcome", "priority"],
            buckets=BUCKETS_SECONDS,
            registry=registry,
        )
        self.busy = Counter(
            "emojinet_busy_seconds_total",
            "Time that workers were at work.",
            ["stage", "priority"],
            registry=registry,
        )
        gauges = {
            "queue_oldest_wait_seconds": "How long the oldest work in line has waited by now.",
            "queue_depth": "Work in line, not yet running.",
            "slots": "Workers, each of which does one job at a time.",
        }
        self.oldest, self.depth, self.slots = (
            Gauge(f"emojinet_{name}", text, ["stage"], registry=registry)
            for name, text in gauges.items()
        )

        self._queues: dict[str, list[Queue]] = {}
        # To find a series by its labels costs more than to count in it.
        self.wait_of, self.busy_of = cache(self.wait.labels), cache(self.busy.labels)

    def show(self, queue: "Queue") -> None:
        """Makes every series of the queue appear, at zero where nothing has happened yet.

        Several queues may share a stage: two lanes, or the old model's and the new one's.
        """
        for priority in Priority:
            self.busy_of(queue.stage, priority)
            for outcome in ("served", "expired", "cancelled", "shed", "error"):
                self.wait_of(queue.stage, outcome, priority)
        together = self._queues.setdefault(queue.stage, [])
        together.append(queue)
        self.oldest.labels(queue.stage).set_function(
            lambda: max((q.oldest_seconds() for q in together), default=0.0)
        )
        self.depth.labels(queue.stage).set_function(lambda: float(sum(map(len, together))))
        self.slots.labels(queue.stage).set_function(lambda: float(sum(q.slots for q in together)))

    def hide(self, queue: "Queue") -> None:
        """Leaves a queue out that has closed; twice is harmless."""
        together = self._queues[queue.stage]
        together[:] = [other for other in together if other is not queue]


class Pace:
    """How much slower than expected work runs now: 1 on an idle machine, more on a busy one."""

    def __init__(self) -> None:
        self._expected = self._actual = 0.1

    @property
    def factor(self) -> float:
        return self._actual / self._expected

    def observe(self, expected_seconds: float, actual_seconds: float) -> None:
        """Refines the factor by one piece of work; old work counts less and less."""
        keep = max(0.0, 1 - expected_seconds / MEMORY_SECONDS)
        self._expected = keep * self._expected + expected_seconds
        # One job that hung must not make everybody else look hopeless.
        self._actual = keep * self._actual + min(actual_seconds, 20 * expected_seconds)


class Queue:
    """Runs work on a few workers; see the module's docstring for its promises.

    Args:
        stage: its name in metrics.
        start: starts a worker; called again when one has died.
        slots: how many workers.
        metrics: shared by all queues of the process.
        relative: s(b)/s(1) for batches of 1, 2, …; as long as the largest batch worth taking.
        limit: the seconds after which a worker at a batch that should take so long is killed.
    """

    def __init__(
        self,
        stage: str,
        start: Callable[[], Awaitable[Worker]],
        *,
        slots: int,
        metrics: QueueMetrics,
        relative: Sequence[float] = (1.0,),
        limit: Callable[[float], float] = lambda expected: 10.0 + 20 * expected,
    ) -> None:
        self.stage, self.slots, self.pace = stage, slots, Pace()
        self.batches: dict[int, tuple[int, float]] = {}
        """By size: how many batches have run, and the seconds that they took in all."""
        self._start, self._metrics, self._relative, self._limit = start, metrics, relative, limit
        self._interactive, self._bulk = Line(), Line()
        self._lines = {Priority.INTERACTIVE: self._interactive, Priority.BULK: self._bulk}
        self._running: dict[int, float] = {}  # slot -> when its batch should be done
        self._bulk_batches = 0  # that are running
        self._hurried = -math.inf  # when interactive work came last
        self._turn_seconds = 0.0  # of the event loop, between an answer and whoever waits for it
        self._idle: list[asyncio.Future[None]] = []  # one for each worker that waits for work
        self._pulls = count(1)
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, workers: Sequence[Worker]) -> None:
        """Lets the workers, already started, begin to pull."""
        self._metrics.show(self)
        self._tasks = [asyncio.create_task(self._slot(n, w)) for n, w in enumerate(workers)]

    async def close(self) -> None:
        """Lets running work finish and ends the workers. What still waits is cancelled."""
        self._closing = True
        while self._idle:
            self._wake()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._metrics.hide(self)
        for work in [work for line in self._lines.values() for work in line.works]:
            work.done.cancel()

    def __len__(self) -> int:
        """How much work is in line."""
        return len(self._interactive.works) + len(self._bulk.works)

    @property
    def busy(self) -> int:
        """How many workers are at work."""
        return len(self._running)

    def oldest_seconds(self) -> float:
        """How long the oldest work in line has waited by now."""
        oldest = min((line.oldest() for line in self._lines.values()), default=math.inf)
        return max(0.0, time.monotonic() - oldest)

    def count_ahead(self, priority: Priority) -> int:
        """How much work goes before new work of this priority."""
        return len(self) if priority is Priority.BULK else len(self._interactive.works)

    def ahead_seconds(self, priority: Priority) -> float:
        """How long new work of this priority would wait, at the present pace."""
        best = self._relative[-1] / len(self._relative)
        waiting = self._interactive.cost_seconds
        if priority is Priority.BULK:
            waiting += self._bulk.cost_seconds
        waiting *= best * self.pace.factor
        now = time.monotonic()
        ends = sorted(max(0.0, end - now) for end in self._running.values())
        ends = [0.0] * (self.slots - len(ends)) + ends
        # What waits goes to whichever worker is free first: it fills them up like water.
        level = ends[0]
        for workers, end in enumerate(ends[1:], start=1):
            room = (end - level) * workers
            if waiting <= room:
                return level + waiting / workers
            waiting, level = waiting - room, end
        return level + waiting / self.slots

    async def run(self, work: Work) -> Served:
        """What a worker made of the work.

        Cancelling takes the work out of the line; once it runs, it runs to its end.

        Raises:
            Overloaded: the line is full, or the answer would come too late.
            WorkerDied: twice, or once where the work itself was at fault.
            Internal: the worker failed at it, for the log to say why.
            EmojinetError: the worker refused it.
        """
        if len(self) >= MAX_WORK or self._waiting_bytes() > MAX_WAITING_BYTES:
            wait_ms = f"{self.ahead_seconds(work.priority) * 1000:.0f}"
            raise errors.Overloaded(
                "The line is full. Try again later.", retry_seconds=1.0, waitMilliseconds=wait_ms
            )
        work.done, work.arrived = asyncio.get_running_loop().create_future(), time.monotonic()
        self._lines[work.priority].join(work)
        if work.priority is Priority.INTERACTIVE:
            self._hurried = work.arrived
        self._wake()
        try:
            served = await work.done
            turn = time.monotonic() - work.delivered
            self._turn_seconds += TURN_WEIGHT * (turn - self._turn_seconds)
            return served
        except asyncio.CancelledError:
            if self._lines[work.priority].leave(work):
                self._observe(work, "expired" if time.monotonic() > work.deadline else "cancelled")
            raise

    def observe_shed(self, priority: Priority) -> None:
        """Counts work that was refused before it could join the line."""
        self._metrics.wait_of(self.stage, "shed", priority).observe(0.0)

    def _waiting_bytes(self) -> int:
        return self._interactive.size_bytes + self._bulk.size_bytes

    def _observe(self, work: Work, outcome: str, until: float | None = None) -> float:
        waited = (until or time.monotonic()) - work.arrived
        self._metrics.wait_of(self.stage, outcome, work.priority).observe(waited)
        return waited

    async def _slot(self, slot: int, worker: Worker) -> None:
        """One worker's life: pull, run, deliver, and be replaced after death."""
        while batch := await self._take():
            expected = self._expect(batch)
            started = time.monotonic()
            self._running[slot] = started + expected * self.pace.factor
            is_bulk = batch[0].priority is Priority.BULK
            self._bulk_batches += is_bulk
            died = False
            try:
                parts = [part for work in batch for part in work.parts]
                reply = await worker.do(parts, self._limit(expected))
            except WorkerDied as death:
                log.warning("%s worker %s", self.stage, death)
                self._mourn(batch, death, started)
                died = True
            except WorkerFailed as failure:
                self._fail(batch, internal(failure), started)
            except errors.EmojinetError as refusal:
                self._fail(batch, refusal, started)
            else:
                self._deliver(batch, reply, started)
            finally:
                del self._running[slot]
                self._bulk_batches -= is_bulk
                worked = time.monotonic() - started
                if batch[0].alone:
                    worked = max(worked, expected)
                self._account(batch, expected, worked)
            if died:
                worker = await self._replace()
        await worker.kill()

    async def _take(self) -> list[Work]:
        """The next batch, as soon as there is one; none when the queue closes."""
        while not self._closing:
            if batch := self._pull():
                return batch
            turn = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            await turn
        return []

    def _wake(self) -> None:
        """Has the worker that was busy last, whose caches are warmest, look at the line."""
        if self._idle:
            self._idle.pop().set_result(None)

    def _pull(self) -> list[Work]:
        """Takes the next batch out of a line; none where nothing may run now."""
        while (line := self._next_line()).works:
            if batch := self._batch_of(line):
                return batch
        return []

    def _batch_of(self, line: "Line") -> list[Work]:
        """Drops what could not finish. Of one line: who is in a hurry waits for no bulk work."""
        size = self._size(len(line.works))
        answer = ANSWER_SECONDS + ANSWER_TURNS * self._turn_seconds
        batch: list[Work] = []
        while line.works and len(batch) < size:
            work = line.pop()
            takes = work.cost_seconds * self._relative[size - 1] * self.pace.factor
            if time.monotonic() + takes + answer > work.deadline:
                self._drop(work)
            else:
                batch.append(work)
        return batch

    def _next_line(self) -> "Line":
        """The interactive one, mostly; one without work where no more bulk work may run now."""
        now, turn = time.monotonic(), next(self._pulls)
        if turn % BULK_EVERY == 0 and now - self._bulk.oldest() > BULK_PATIENCE_SECONDS:
            return self._bulk
        if self._interactive.works:
            return self._interactive
        # While interactive calls come, the next of them finds a worker free.
        reserved = 1 if self.slots > 1 and now - self._hurried < HURRY_SECONDS else 0
        return self._bulk if self._bulk_batches < self.slots - reserved else self._interactive

    def _size(self, count: int) -> int:
        """How many to take of so many: such that they wait least, on average.

        In batches of b, n of them are done after s(b), 2 s(b) … n/b s(b). A larger batch makes the
        first wait for the last of it, and is worth that when many stand behind: on a CPU, where it
        saves little, when the line is long; on an accelerator nearly always. Of several workers
        that are free, each has its share.
        """
        waiting = math.ceil(count / (self.slots - len(self._running)))
        sizes = range(1, min(waiting, len(self._relative)) + 1)
        return min(sizes, key=lambda size: self._relative[size - 1] * (waiting / size + 1))

    def _drop(self, work: Work) -> None:
        waited = self._observe(work, "expired")
        if not work.done.done():
            work.done.set_exception(late(waited))

    def _expect(self, batch: Sequence[Work]) -> float:
        mean = sum(work.cost_seconds for work in batch) / len(batch)
        return mean * self._relative[len(batch) - 1]

    def _account(self, batch: Sequence[Work], expected: float, worked: float) -> None:
        self.pace.observe(expected, worked)
        for work in batch:
            self._metrics.busy_of(self.stage, work.priority).inc(worked / len(batch))

    def _deliver(self, batch: Sequence[Work], reply: bytes, started: float) -> None:
        now = time.monotonic()
        worked, size = now - started, len(batch)
        ran, seconds = self.batches.get(size, (0, 0.0))
        self.batches[size] = ran + 1, seconds + worked
        for index, work in enumerate(batch):
            waited = self._observe(work, "served", started)
            work.delivered = now
            if not work.done.done():
                work.done.set_result(Served(reply, index, size, waited, worked))

    def _fail(self, batch: Sequence[Work], error: Exception, started: float) -> None:
        for work in batch:
            self._observe(work, "error", started)
            if not work.done.done():
                work.done.set_exception(error)

    def _mourn(self, batch: Sequence[Work], death: WorkerDied, started: float) -> None:
        """Gives work that was not at fault a second chance, at the head of the line."""
        for work in reversed(batch):
            if death.over_limit or work.retried or work.done.done():
                self._fail([work], death, started)
            else:
                work.retried = True
                self._lines[work.priority].join(work, at_head=True)
                self._wake()

    async def _replace(self) -> Worker:
        def again(error: Exception) -> bool:
            return not self._closing and isinstance(
                error, WorkerDied | WorkerFailed | OSError | errors.EmojinetError
            )

        async for attempt in stamina.retry_context(
            on=again, attempts=None, timeout=None, wait_initial=0.05, wait_max=5
        ):
            with attempt:
                return await self._start()
        raise AssertionError("unreachable: attempts are unlimited")


class Line:
    """Waiting work of one priority, first come first served, with what it will cost in all."""

    def __init__(self) -> None:
        self.works: OrderedDict[Work, None] = OrderedDict()
        self.cost_seconds = 0.0
        self.size_bytes = 0

    def join(self, work: Work, *, at_head: bool = False) -> None:
        self.works[work] = None
        if at_head:
            self.works.move_to_end(work, last=False)
        self._add(work, 1)

    def leave(self, work: Work) -> bool:
        """Whether the work was still in line."""
        if work not in self.works:
            return False
        del self.works[work]
        self._add(work, -1)
        return True

    def pop(self) -> Work:
        """The work that has waited longest."""
        work, _ = self.works.popitem(last=False)
        self._add(work, -1)
        return work

    def oldest(self) -> float:
        """When the first in line arrived; infinity when nobody waits."""
        try:
            return next(iter(self.works)).arrived
        except (StopIteration, RuntimeError):  # emptied or changed while the scrape looks
            return math.inf

    def _add(self, work: Work, sign: int) -> None:
        self.size_bytes += sign * sum(map(len, work.parts))
        # Exactly zero when empty, whatever floats have added up to.
        self.cost_seconds = self.cost_seconds + sign * work.cost_seconds if self.works else 0.0


def late(waited_seconds: float) -> errors.Overloaded:
    """The refusal of work that has come to the head of the line too late to finish."""
    return errors.Overloaded(
        f"Waited {waited_seconds * 1000:.0f} ms behind others and could not finish before the "
        "deadline. Try again later, or with a longer deadline.",
        retry_seconds=max(0.1, waited_seconds),
        waitMilliseconds=f"{waited_seconds * 1000:.0f}",
    )


def internal(failure: BaseException) -> errors.Internal:
    """An error that says nothing but the id under which the log has the details."""
    id_ = uuid.uuid4().hex[:12]
    log.error("unforeseen, id %s", id_, exc_info=failure, extra={"error_id": id_})
    return errors.Internal(f"Something went wrong here; its id in the log is {id_}.", id=id_)
