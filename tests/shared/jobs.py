"""A worker program for tests: does whatever a job asks for, `python -m tests.shared.jobs`."""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from typing import Annotated

import typer

from services.shared.errors import Overloaded
from services.shared.worker import Handle, serve


def handle(pipe: int, job: memoryview) -> bytes:
    """The first word says what to do, the rest with what."""
    verb, _, rest = bytes(job).partition(b" ")
    match verb:
        case b"echo":
            return rest
        case b"length":
            return str(len(job)).encode()
        case b"bytes":
            return b"x" * int(rest)
        case b"sleep":
            time.sleep(float(rest))
        case b"print":
            print(rest.decode())
        case b"refuse":
            raise Overloaded("Not now.", retry_seconds=1.5, waitMilliseconds="7")
        case b"raise":
            raise RuntimeError(rest.decode(errors="surrogateescape"))
        case b"exit":
            sys.exit(int(rest))
        case b"crash":
            ctypes.string_at(0)
        case b"burn":
            resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
            while True:
                pass
        case b"babble":
            with socket.socket(fileno=os.dup(pipe)) as connection:
                connection.sendall(rest)
        case b"environment":
            return os.environ[rest.decode()].encode()
    return verb


def prepare(pipe: int) -> tuple[bytes, Handle]:
    return b"hello", partial(handle, pipe)


def refuse(pipe: int) -> tuple[bytes, Handle]:
    raise Overloaded("Cannot start.")


def fail(pipe: int) -> tuple[bytes, Handle]:
    raise RuntimeError("cannot start")


def leave(pipe: int) -> tuple[bytes, Handle]:
    sys.exit(3)


def hang(pipe: int) -> tuple[bytes, Handle]:
    time.sleep(60)
    return prepare(pipe)


STARTS = {"prepare": prepare, "refuse": refuse, "fail": fail, "leave": leave, "hang": hang}


def main(pipe: Annotated[int, typer.Option()], start: str = "prepare") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(pipe, lambda: STARTS[start](pipe))


if __name__ == "__main__":
    typer.run(main)
