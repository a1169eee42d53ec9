"""A process that does one job at a time in its main thread, behind one pipe.

Decoders and device workers are both of this kind: what may crash, hang or hold the accelerator
lives in a process of its own, so that it can be killed, and so that its slot is free again only
when it has replied or died. A forward pass in the main thread of a process also keeps malloc
cheap: any other thread gets an arena of its own and pays for page faults at every operation.

A job is bytes, a reply is one tag byte and bytes; nothing is pickled:

    parent --length, job-->    child
    parent <--tag, length, reply-- child
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from services.shared import errors

LENGTH = struct.Struct("<Q")
ANSWER = struct.Struct("<cQ")
DONE, REFUSED, FAILED = b"+", b"-", b"!"
START_SECONDS = 180.0  # a cold torch import with a model to compile, on a busy machine
MAX_REPLY_BYTES = 64 << 20
ENDING_SECONDS = 1.0  # between closing its pipe and being gone, for a process that ends by itself
PR_SET_PDEATHSIG = 1
Handle = Callable[[memoryview], bytes]
# glibc gives large blocks back to the kernel after each operation; keeping them makes the same
# forward pass 1.7 to 2 times as fast. One thread per worker: several workers share the cores.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class WorkerDied(Exception):
    """The process ended, or was killed, before it replied."""

    def __init__(self, message: str, *, over_limit: bool) -> None:
        super().__init__(message)
        self.over_limit = over_limit
        """Whether the job itself was at fault: it ran past its limit of time or CPU."""


class WorkerFailed(Exception):
    """The job raised what nobody foresaw; the message is the child's traceback, for the log."""


class Worker:
    """The parent's end of one worker process. Await `start`, then `do` one job at a time."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        command = [sys.executable, "-m", module, *arguments, f"--pipe={theirs.fileno()}"]
        self._process = subprocess.Popen(
            command,
            env=os.environ | ENVIRONMENT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # whatever a library prints belongs to the log
            # The terminal's Ctrl-C is the server's to handle. No session of its own: Linux shares
            # CPUs out by session first, and niceness would count for nothing between workers.
            process_group=0,
        )
        theirs.close()
        self._socket = ours
        self._close = ours.close
        self.hello = b""
        """What the process said of itself when it was ready."""

    @property
    def pid(self) -> int:
        """The process, for whoever wants to look at it or kill it."""
        return self._process.pid

    async def start(self) -> "Worker":
        """Waits until the process is ready; raises WorkerDied, or what it refused with."""
        try:
            self._reader, self._writer = await asyncio.open_connection(
                sock=self._socket,
                limit=1 << 20,  # or a view would be read in three goes
            )
            self._close = self._writer.close
            self.hello = await self._reply(START_SECONDS)
        except BaseException:
            await self.kill()
            raise
        return self

    async def do(self, parts: Sequence[bytes], limit_seconds: float) -> bytes:
        """The reply to the job made of `parts`.

        Kills the process when `limit_seconds` have passed. Never cancel this: the process would
        still be at work.

        Raises:
            WorkerDied: it has to be replaced.
            WorkerFailed: the job failed; the process is as good as before.
            EmojinetError: the job was refused, with the reason.
        """
        self._writer.writelines([LENGTH.pack(sum(map(len, parts))), *parts])
        return await self._reply(limit_seconds)

    async def _reply(self, limit_seconds: float) -> bytes:
        try:
            async with asyncio.timeout(limit_seconds):
                tag, length = ANSWER.unpack(await self._reader.readexactly(ANSWER.size))
                if length > MAX_REPLY_BYTES:
                    raise DecodeError("longer than any reply")
                body = await self._reader.readexactly(length)
            return _result(tag, body)
        except TimeoutError:
            await self.kill()
            message = f"killed after {limit_seconds:.1f} s without a reply"
            raise WorkerDied(message, over_limit=True) from None
        except (asyncio.IncompleteReadError, OSError):
            code = await self.kill(after_seconds=ENDING_SECONDS)
            message = f"died with exit code {code}"
            raise WorkerDied(message, over_limit=code == -signal.SIGXCPU) from None
        except (DecodeError, KeyError):
            await self.kill()
            raise WorkerDied("killed: its reply made no sense", over_limit=False) from None

    async def kill(self, *, after_seconds: float = 0.0) -> int:
        """Ends the process, if it has not ended by itself by then, and returns its exit code."""
        # Off the loop: the kernel may need a while to take back gigabytes.
        try:
            return await asyncio.to_thread(self._end, after_seconds)
        finally:  # whoever waits may be cancelled
            self._close()

    def _end(self, after_seconds: float) -> int:
        try:
            return self._process.wait(after_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


async def start_all(starting: Iterable[Coroutine[Any, Any, Worker]]) -> list[Worker]:
    """Workers side by side: all of them or, where one cannot start, none that is left running."""
    tasks = [asyncio.create_task(one) for one in starting]
    try:
        return [await task for task in tasks]
    except BaseException:
        for task in tasks:
            task.cancel()
        for worker in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(worker, Worker):
                await worker.kill()
        raise


def _result(tag: bytes, body: bytes) -> bytes:
    """The body of a good answer; raises what another one says, KeyError for none of ours."""
    if tag == REFUSED:
        raise errors.from_proto(status_pb2.Status.FromString(body))
    if tag == FAILED:
        raise WorkerFailed(body.decode(errors="replace"))
    return {DONE: body}[tag]


def serve(pipe: int, prepare: Callable[[], tuple[bytes, Handle]]) -> None:
    """The child's end: prepares, says hello, and answers jobs until the parent goes away."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=pipe) as connection:
        handles: list[Handle] = []

        def hello() -> bytes:
            greeting, handle = prepare()
            handles.append(handle)
            return greeting

        _answer(connection, hello)
        while handles and (header := _receive(connection, LENGTH.size)):
            job = _receive(connection, LENGTH.unpack(header)[0])
            _answer(connection, lambda: handles[0](job))  # noqa: B023 - called at once


def _receive(connection: socket.socket, count: int) -> memoryview:
    """Exactly `count` bytes; none when the parent is gone."""
    buffer = memoryview(bytearray(count))
    filled = 0
    while filled < count:
        received = connection.recv_into(buffer[filled:])
        if not received:
            return memoryview(b"")
        filled += received
    return buffer


def _answer(connection: socket.socket, work: Callable[[], bytes]) -> None:
    try:
        tag, body = DONE, work()
    except errors.EmojinetError as error:
        tag, body = REFUSED, errors.to_proto(error).SerializeToString()
    except Exception:
        tag, body = FAILED, traceback.format_exc().encode(errors="backslashreplace")
    connection.sendall(ANSWER.pack(tag, len(body)) + body)  # in one piece: it wakes the reader once
