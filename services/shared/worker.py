"""A process that does one job at a time in its main thread, behind one pipe.

Decoders and device workers are both of this kind: what may crash, hang or hold the accelerator
lives in a process of its own, so that it can be killed, and so that its slot is free again only
when it has replied or died. A forward pass in the main thread of a process also keeps malloc
cheap: any other thread gets an arena of its own and pays for page faults at every operation.

A job is bytes, a reply is one tag byte and bytes; nothing is pickled:

    parent --length, job-->    child
    parent <--tag, length, reply-- child

What fits goes through memory that the two share, and only its length through the pipe: a picture of
150 KB would come through it in five pieces, each of which wakes its reader.
"""

import asyncio
import ctypes
import fcntl
import math
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from services.shared import errors

LENGTH = struct.Struct("<Q")
SHARED = 1 << 63  # set in a length: what it counts lies in the shared memory
SHARED_BYTES = 8 << 20  # 32 views and more; pages that are not used take no memory
ANSWER = struct.Struct("<cQ")
DONE, REFUSED, FAILED = b"+", b"-", b"!"
START_SECONDS = 180.0  # a cold torch import with a model to compile, on a busy machine
MAX_REPLY_BYTES = 64 << 20
ENDING_SECONDS = 1.0  # between closing its pipe and being gone, for a process that ends by itself
PR_SET_PDEATHSIG = 1
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
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


class Replies(asyncio.BufferedProtocol):
    """Cuts what a worker sends into replies, one for each `next`, and keeps an eye on the clock.

    Neither streams nor `asyncio.timeout`: with them a job cost the parent twice as much CPU.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._next: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._due = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._lost = False
        self._expect(ANSWER.size)

    def next(self, limit_seconds: float) -> "asyncio.Future[tuple[bytes, bytes]]":
        """The tag and the body of the reply to come; ask for it before it can come.

        Fails with TimeoutError after `limit_seconds`, with ConnectionError when the process has
        gone, and with DecodeError when it says what is no reply.
        """
        loop = asyncio.get_running_loop()
        self._next, self._due = loop.create_future(), loop.time() + limit_seconds
        if self._lost:
            self._next.set_exception(ConnectionResetError())
        elif self._alarm is None or self._alarm.when() > self._due:
            self._set_alarm(loop)
        return self._next

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(self._due, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """One alarm serves many replies: when it rings, the one it was set for has long come."""
        self._alarm = None
        if self._next is None or self._next.done():
            return
        if loop.time() < self._due:
            self._set_alarm(loop)
        else:
            self._next.set_exception(TimeoutError())

    def _expect(self, count: int, tag: bytes = b"") -> None:
        self._tag, self._filled, self._buffer = tag, 0, memoryview(bytearray(count))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes: never more than the present part of a reply."""
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Something has come."""
        self._filled += nbytes
        if self._filled < len(self._buffer):
            return
        if self._tag:
            self._arrive(self._tag, bytes(self._buffer))
            self._expect(ANSWER.size)
            return
        self._filled = 0
        tag, length = ANSWER.unpack(self._buffer)
        shared, length = length & SHARED, length & ~SHARED
        if length > (SHARED_BYTES if shared else MAX_REPLY_BYTES):
            self._fail(DecodeError("longer than any reply"))
        elif shared or not length:
            self._arrive(tag, self._memory[:length])
        else:
            self._expect(length, tag)

    def _arrive(self, tag: bytes, body: bytes) -> None:
        if self._next is None or self._next.done():  # nobody had asked
            self._lost = True
        else:
            self._next.set_result((tag, body))

    def _fail(self, error: Exception) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has gone, or we have closed the pipe."""
        self._lost = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._fail(ConnectionResetError())


class Worker:
    """The parent's end of one worker process. Await `start`, then `do` one job at a time."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        command = [sys.executable, "-m", module, *arguments, f"--pipe={theirs.fileno()}"]
        self._process = subprocess.Popen(
            command,
            env=os.environ | environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # whatever a library prints belongs to the log
            # The terminal's Ctrl-C is the server's to handle. No session of its own: Linux shares
            # CPUs out by session first, and niceness would count for nothing between workers.
            process_group=0,
        )
        theirs.close()
        self._socket = ours
        self._memory = _shared_with(ours)
        self._replies = Replies(self._memory)
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
            hello = self._replies.next(START_SECONDS)
            loop = asyncio.get_running_loop()
            self._pipe, _ = await loop.create_connection(lambda: self._replies, sock=self._socket)
            self._close = self._pipe.close
            self.hello = await self._reply(hello, START_SECONDS)
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
        reply = self._replies.next(limit_seconds)
        if not reply.done():  # else it is gone, and its memory with it
            self._send(parts)
        return await self._reply(reply, limit_seconds)

    def _send(self, parts: Sequence[bytes]) -> None:
        size = sum(map(len, parts))
        if size <= SHARED_BYTES:
            _put(self._memory, parts)
            self._pipe.write(LENGTH.pack(size | SHARED))
        else:
            self._pipe.writelines([LENGTH.pack(size), *parts])

    async def _reply(
        self, coming: "asyncio.Future[tuple[bytes, bytes]]", limit_seconds: float
    ) -> bytes:
        try:
            return _result(*await coming)
        except TimeoutError:
            await self.kill()
            message = f"killed after {limit_seconds:.1f} s without a reply"
            raise WorkerDied(message, over_limit=True) from None
        except OSError:
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
            self._memory.close()

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


def _shared_with(connection: socket.socket) -> mmap.mmap:
    """Memory that the process at the other end has, too; sealed, so that it cannot take it away."""
    descriptor = os.memfd_create("worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, SHARED_BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        socket.send_fds(connection, [b"m"], [descriptor])
        return mmap.mmap(descriptor, SHARED_BYTES)
    finally:
        os.close(descriptor)


def _shared_by(connection: socket.socket) -> mmap.mmap:
    """The child's end of the same memory."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    try:
        return mmap.mmap(descriptors[0], SHARED_BYTES)
    finally:
        os.close(descriptors[0])


def _put(memory: mmap.mmap, parts: Iterable[bytes]) -> None:
    memory.seek(0)
    for part in parts:
        memory.write(part)


def serve(pipe: int, prepare: Callable[[], tuple[bytes, Handle]]) -> None:
    """The child's end: prepares, says hello, and answers jobs until the parent goes away."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=pipe) as connection:
        memory = _shared_by(connection)
        handles: list[Handle] = []

        def hello() -> bytes:
            greeting, handle = prepare()
            handles.append(handle)
            return greeting

        _answer(connection, memory, hello)
        while handles and (header := _receive(connection, LENGTH.size)):
            (size,) = LENGTH.unpack(header)
            if size & SHARED:
                job = memoryview(memory)[: size & ~SHARED]
            else:
                job = _receive(connection, size)
            _answer(connection, memory, lambda: handles[0](job))  # noqa: B023 - called at once


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


def _answer(connection: socket.socket, memory: mmap.mmap, work: Callable[[], bytes]) -> None:
    try:
        tag, body = DONE, work()
    except errors.EmojinetError as error:
        tag, body = REFUSED, errors.to_proto(error).SerializeToString()
    except Exception:
        tag, body = FAILED, traceback.format_exc().encode(errors="backslashreplace")
    if len(body) <= SHARED_BYTES:
        _put(memory, [body])
        connection.sendall(ANSWER.pack(tag, len(body) | SHARED))
    else:
        connection.sendall(ANSWER.pack(tag, len(body)) + body)
