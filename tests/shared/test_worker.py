import asyncio
import gc
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from services.shared.errors import Overloaded
from services.shared.worker import (
    ANSWER,
    DONE,
    SHARED_BYTES,
    Replies,
    Worker,
    WorkerDied,
    WorkerFailed,
)

PROGRAM = "tests.shared.jobs"
LIMIT_SECONDS = 20.0
MIB = 1 << 20


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    started = await Worker(PROGRAM, []).start()
    yield started
    await started.kill()


async def death(awaited: Awaitable[object]) -> WorkerDied:
    with pytest.raises(WorkerDied) as caught:
        await awaited
    return caught.value


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_worker_says_hello_and_answers_one_job_after_the_other(worker: Worker) -> None:
    assert worker.hello == b"hello"
    for number in range(100):
        assert await worker.do([b"echo ", b"%d" % number], LIMIT_SECONDS) == b"%d" % number


async def test_a_job_is_the_concatenation_of_its_parts(worker: Worker) -> None:
    assert await worker.do([b"ec", b"", b"ho a", b" b"], LIMIT_SECONDS) == b"a b"


async def test_an_empty_job_is_a_job(worker: Worker) -> None:
    assert await worker.do([], LIMIT_SECONDS) == b""
    assert await worker.do([b""], LIMIT_SECONDS) == b""


@pytest.fixture(scope="module")
def echo() -> Iterator[Callable[[list[bytes]], bytes]]:
    """One worker for all examples: what it is sent comes back."""
    with asyncio.Runner() as runner:
        worker = runner.run(Worker(PROGRAM, []).start())
        yield lambda parts: runner.run(worker.do([b"echo ", *parts], LIMIT_SECONDS))
        runner.run(worker.kill())


@given(st.lists(st.binary() | st.integers(0, 300_000).map(bytes), max_size=4))
def test_any_bytes_come_back_as_they_were(
    echo: Callable[[list[bytes]], bytes], parts: list[bytes]
) -> None:
    assert echo(parts) == b"".join(parts)


async def test_sixteen_mebibytes_travel_both_ways(worker: Worker) -> None:
    big = os.urandom(16 * MIB)
    assert await worker.do([b"echo ", big], LIMIT_SECONDS) == big
    assert await worker.do([b"length ", big], LIMIT_SECONDS) == b"%d" % (7 + len(big))
    assert await worker.do([b"bytes %d" % len(big)], LIMIT_SECONDS) == b"x" * len(big)


async def test_a_refusal_keeps_its_type_message_facts_and_delay(worker: Worker) -> None:
    with pytest.raises(Overloaded, match=r"^Not now\.$") as caught:
        await worker.do([b"refuse"], LIMIT_SECONDS)
    assert caught.value.metadata == {"waitMilliseconds": "7"}
    assert caught.value.retry_seconds == 1.5


async def test_what_nobody_foresaw_comes_as_a_traceback_and_the_worker_lives(
    worker: Worker,
) -> None:
    with pytest.raises(WorkerFailed, match=r"(?s)Traceback.*in handle.*RuntimeError: it broke"):
        await worker.do([b"raise it broke"], LIMIT_SECONDS)
    assert await worker.do([b"echo on"], LIMIT_SECONDS) == b"on"


async def test_a_failure_that_speaks_of_a_name_which_is_no_text_is_still_reported(
    worker: Worker,
) -> None:
    with pytest.raises(WorkerFailed, match="RuntimeError"):
        await worker.do([b"raise /tmp/\xff"], LIMIT_SECONDS)


@pytest.mark.parametrize(
    "reply", [b"?" + bytes(8), b"-\x03" + bytes(7) + b"\xff" * 3, b"+" + b"\xff" * 8]
)
async def test_a_worker_that_babbles_is_killed(worker: Worker, reply: bytes) -> None:
    died = await death(worker.do([b"babble ", reply], LIMIT_SECONDS))
    assert not died.over_limit  # at once, and not when its time was up
    assert is_gone(worker.pid)


async def test_what_a_library_prints_does_not_get_into_the_reply(worker: Worker) -> None:
    assert await worker.do([b"print nonsense"], LIMIT_SECONDS) == b"print"


async def test_a_worker_has_one_thread_and_keeps_its_memory(worker: Worker) -> None:
    assert await worker.do([b"environment OMP_NUM_THREADS"], LIMIT_SECONDS) == b"1"
    assert await worker.do([b"environment MALLOC_ARENA_MAX"], LIMIT_SECONDS) == b"1"


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (b"exit 3", 3),
        (b"exit 0", 0),
        (b"crash", -signal.SIGSEGV),
    ],
)
async def test_a_worker_that_ends_by_itself_is_not_the_fault_of_its_job(
    worker: Worker, job: bytes, code: int
) -> None:
    died = await death(worker.do([job], LIMIT_SECONDS))
    assert f"exit code {code}" in str(died)
    assert not died.over_limit


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGBUS])
async def test_a_worker_that_is_killed_in_mid_job_is_not_the_fault_of_its_job(
    worker: Worker, number: signal.Signals
) -> None:
    asyncio.get_running_loop().call_later(0.1, os.kill, worker.pid, number)
    died = await death(worker.do([b"sleep 30"], LIMIT_SECONDS))
    assert f"exit code {-number}" in str(died)
    assert not died.over_limit


@pytest.mark.parametrize("size", [1, SHARED_BYTES + 1])
async def test_a_worker_that_was_killed_between_jobs_is_found_dead_at_the_next(
    worker: Worker, size: int
) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    while not is_gone(worker.pid):
        await asyncio.sleep(0.01)
    for _ in range(2):
        assert not (await death(worker.do([b"echo ", bytes(size)], LIMIT_SECONDS))).over_limit


async def test_a_reply_that_nobody_asked_for_is_taken_for_no_other() -> None:
    with mmap.mmap(-1, 16) as memory:
        replies = Replies(memory)
        answer = ANSWER.pack(DONE, 0)
        replies.get_buffer(-1)[:] = answer
        replies.buffer_updated(len(answer))

        with pytest.raises(ConnectionError):
            await replies.next(1.0)


async def test_a_job_beyond_its_time_is_killed_and_at_fault(worker: Worker) -> None:
    began = time.monotonic()
    died = await death(worker.do([b"sleep 30"], 0.3))
    assert died.over_limit
    assert "killed after 0.3 s" in str(died)
    assert 0.3 <= time.monotonic() - began < 2
    assert is_gone(worker.pid)


async def test_a_job_beyond_its_cpu_is_killed_by_the_kernel_and_at_fault(worker: Worker) -> None:
    died = await death(worker.do([b"burn"], LIMIT_SECONDS))
    assert died.over_limit
    assert f"exit code {-signal.SIGXCPU}" in str(died)


async def test_a_stopped_worker_does_not_stop_its_parent(worker: Worker) -> None:
    """Not even with more in the pipe than it holds."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    os.kill(worker.pid, signal.SIGSTOP)
    ticker = asyncio.create_task(tick())
    died = await death(worker.do([b"length ", bytes(16 * MIB)], 3.0))
    ticker.cancel()

    assert died.over_limit
    assert is_gone(worker.pid)
    assert len(ticks) > 90
    assert max(after - before for before, after in pairwise(ticks)) < 0.9


async def test_killing_twice_tells_the_same_exit_code(worker: Worker) -> None:
    assert await worker.kill() == await worker.kill() == -signal.SIGKILL


async def test_a_worker_that_refuses_to_start_says_why() -> None:
    refused = Worker(PROGRAM, ["--start=refuse"])
    with pytest.raises(Overloaded, match=r"^Cannot start\.$"):
        await refused.start()
    assert is_gone(refused.pid)


async def test_a_worker_that_fails_to_start_says_how() -> None:
    failed = Worker(PROGRAM, ["--start=fail"])
    with pytest.raises(WorkerFailed, match="RuntimeError: cannot start"):
        await failed.start()
    assert is_gone(failed.pid)


@pytest.mark.parametrize(
    ("module", "start", "code"),
    [(PROGRAM, "leave", 3), ("tests.shared.no_such", "", 1)],
)
async def test_a_worker_that_ends_before_it_is_ready_has_died(
    module: str, start: str, code: int
) -> None:
    died = await death(Worker(module, [f"--start={start}"]).start())
    assert f"exit code {code}" in str(died)


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    worker = Worker(PROGRAM, ["--start=hang"])
    starting = asyncio.create_task(worker.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert is_gone(worker.pid)


async def test_nothing_is_left_behind() -> None:
    def held() -> tuple[list[str], list[int]]:
        gc.collect()
        children = psutil.Process().children(recursive=True)
        return sorted(os.listdir("/proc/self/fd")), sorted(child.pid for child in children)

    await (await Worker(PROGRAM, []).start()).kill()
    await asyncio.sleep(0.05)  # until the loop has closed what was given to it
    before = held()
    for end in (b"exit 1", b"sleep 9", b"crash"):
        worker = await Worker(PROGRAM, []).start()
        await death(worker.do([end], 0.2))
    await asyncio.sleep(0.05)
    assert held() == before


async def test_workers_do_not_hear_the_terminals_signals(worker: Worker) -> None:
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)


async def test_the_niceness_of_a_worker_counts_against_its_parents(worker: Worker) -> None:
    assert os.getsid(worker.pid) == os.getsid(0)  # Linux shares CPUs out by session first


@pytest.mark.parametrize("job", ["sleep 60", ""])
def test_a_worker_ends_with_its_parent_however_that_ends(job: str, tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from services.shared.worker import Worker\n"
        "async def main():\n"
        f"    worker = await Worker({PROGRAM!r}, []).start()\n"
        "    print(worker.pid, flush=True)\n"
        f"    await (worker.do([{job.encode()!r}], 60) if {job!r} else asyncio.sleep(60))\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.1)
        assert child.is_running()
        parent.kill()
    child.wait(timeout=2)


async def test_a_worker_that_was_never_started_can_be_killed() -> None:
    worker = Worker(PROGRAM, [])
    assert await worker.kill() == -signal.SIGKILL
    assert is_gone(worker.pid)
