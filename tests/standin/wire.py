"""Responses that break HTTP itself, written byte by byte past the server's own library."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

BUFFER_BYTES = 1 << 20
RESET = struct.pack("ii", 1, 0)  # linger for no time: the other side sees a reset


class Wire:
    """The way back to a client, as bytes."""

    def __init__(self, transport: asyncio.Transport, tempo: float) -> None:
        self._transport = transport
        self._tempo = tempo

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    async def write(self, content: bytes) -> None:
        """Writes, no faster than the client reads.

        Raises:
            ConnectionResetError: the client has gone.
        """
        while self.open and self._transport.get_write_buffer_size() > BUFFER_BYTES:
            await asyncio.sleep(0.005)
        if not self.open:
            raise ConnectionResetError
        self._transport.write(content)

    async def pause(self, seconds: float) -> None:
        """Waits, for as long as the stand-in's tempo makes of it, or until the client goes.

        Raises:
            ConnectionResetError: the client has gone.
        """
        end = asyncio.get_running_loop().time() + seconds * self._tempo
        while self.open and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.1))
        if not self.open:
            raise ConnectionResetError

    async def flush(self) -> None:
        """Until all is sent."""
        while self.open and self._transport.get_write_buffer_size():
            await asyncio.sleep(0.002)

    async def reset(self) -> None:
        """Breaks the connection, so that the client gets an error rather than an end."""
        await self.flush()
        await asyncio.sleep(0.01)  # or what was sent before may be lost with it
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()


Play = Callable[[Wire], Awaitable[None]]


class Raw(web.StreamResponse):
    """A response that is whatever `play` writes; then the connection ends."""

    def __init__(self, play: Play, tempo: float) -> None:
        super().__init__()
        self._play = play
        self._tempo = tempo
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if request.transport is not None:  # else the client has gone already
            wire = Wire(request.transport, self._tempo)
            await self._play(wire)
            await wire.flush()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: all has been written."""


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A response's head."""
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def jpeg_head(length: int, *more: bytes) -> bytes:
    return head(b"Content-Type: image/jpeg", b"Content-Length: %d" % length, *more)


def said(content: bytes) -> Play:
    """Writes this and ends."""

    async def play(wire: Wire) -> None:
        await wire.write(content)

    return play


def reset_after(content: bytes) -> Play:
    """Writes this and breaks."""

    async def play(wire: Wire) -> None:
        if content:
            await wire.write(content)
        await wire.reset()

    return play


def stalled_after(content: bytes, seconds: float = 3600) -> Play:
    """Writes this and then nothing for an hour."""

    async def play(wire: Wire) -> None:
        if content:
            await wire.write(content)
        await wire.pause(seconds)

    return play


def dripping(first: bytes, rest: bytes, seconds: float = 1.0) -> Play:
    """Writes the rest byte by byte, one in so many seconds."""

    async def play(wire: Wire) -> None:
        await wire.write(first)
        for position in range(len(rest)):
            await wire.write(rest[position : position + 1])
            await wire.pause(seconds)

    return play


def endless(first: bytes, block: bytes) -> Play:
    """Writes a block for ever, as fast as it is read."""

    async def play(wire: Wire) -> None:
        await wire.write(first)
        while True:
            await wire.write(block)
            await asyncio.sleep(0)

    return play


def chunked(content: bytes, *, size: bytes | None = None, end: bytes = b"0\r\n\r\n") -> Play:
    """A chunked body, perhaps with a wrong size or end."""
    length = size if size is not None else b"%x" % len(content)
    start = head(b"Content-Type: image/jpeg", b"Transfer-Encoding: chunked")
    return said(start + length + b"\r\n" + content + b"\r\n" + end)
