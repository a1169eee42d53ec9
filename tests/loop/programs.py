"""The programs of the loop: real processes with logs, of which none outlives the loop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clients.demo import free_port, is_ready
from services.shared.printable import printable

LINE = 300  # characters of a log's last line that are shown
STOP_SECONDS = 40.0  # inference finishes what it has admitted
LOOK_SECONDS = 0.05
# As the trainer's runs: only the process itself can say that it dies with its parent, and the
# parent may have died before it could. A group of its own, so that Ctrl-C reaches us alone.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def unheard() -> Iterator[None]:
    """Keeps Ctrl-C from processes that are started within, for good; from us, until it is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Ended(Exception):
    """A program ended that should not have; the message has the last that it said."""


@dataclass(frozen=True)
class Program:
    """A process that is to live as long as the loop."""

    name: str
    process: "subprocess.Popen[Any]"
    address: str = ""
    log: Path | None = None

    def check(self) -> None:
        """Raises Ended unless it is alive."""
        status = self.process.poll()
        if status is not None:
            raise Ended(f"{self.name} ended with {status}{self.said()}")

    def said(self) -> str:
        """The last line of its log, to go after a sentence."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log else []
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"; {self.log} ends with: {printable(last[:LINE])}" if last else ""


class Programs:
    """A context; leaving it ends all that was started, however it is left."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._all: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ours = [program.process for program in self._all if program.log]
        try:
            for process in ours:
                process.terminate()
            end = time.monotonic() + STOP_SECONDS
            while any(process.poll() is None for process in ours) and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
        finally:  # also when somebody presses Ctrl-C again
            for process in ours:
                process.kill()
                process.wait()

    def start(self, service: str, *flags: str) -> Program:
        """Starts a service on free ports, and does not wait for it."""
        address = f"127.0.0.1:{free_port()}"
        log = self._data / "logs" / f"{service}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", f"services.{service}", f"--port={address.split(':')[1]}",
                   f"--metrics-port={free_port()}", f"--data={self._data}", *flags]  # fmt: skip
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # What the user has set for services of their own is not meant for these.
                env={k: v for k, v in os.environ.items() if not k.startswith("EMOJINET_")},
                process_group=0,
            )
        program = Program(service, process, address, log)
        self._all.append(program)
        return program

    def watch(self, name: str, process: "subprocess.Popen[Any]") -> None:
        """Has an eye on a process that somebody else ends."""
        self._all.append(Program(name, process))

    def wait_until_ready(self) -> None:
        """Waits for all that were started. Raises Ended where one does not come up."""
        for program in self._all:
            if program.address and not is_ready(program.address, program.process):
                program.check()
                raise Ended(f"{program.name} does not become ready{program.said()}")

    def check(self, patience_seconds: float = 0.0) -> None:
        """Raises Ended if one has ended, or does so in this time."""
        end = time.monotonic() + patience_seconds
        while True:
            for program in self._all:
                program.check()
            if time.monotonic() >= end:
                return
            time.sleep(LOOK_SECONDS)
