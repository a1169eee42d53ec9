"""The process of a run: it lives no longer than the service, and is ended with all of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

NICE = 10  # training gives way to whatever answers people on the same machine
END_SECONDS = 5.0  # between being asked to end, and being ended
# Says of itself what only it can, before it becomes the program: that it dies with its parent. The
# parent may have died before it could say so.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.nice(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""


class Child:
    """Begins a program; call it from the main thread, with which the program dies."""

    def __init__(self, command: Sequence[str]) -> None:
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), str(NICE)]
        self._process = subprocess.Popen(
            [*tied, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it tells is in its events; its complaints are logged
            process_group=0,
        )

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; none while it is alive."""
        status = self._process.poll()
        if status and status - 128 in signal.valid_signals():
            return 128 - status  # as containers and shells tell of a signal
        return status

    def end(self, *, asked: bool = True) -> None:
        """Waits a little for its end, which it is asked for, and kills what is left of it then."""
        if asked:
            self._signal(signal.SIGTERM)
        end = time.monotonic() + END_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # nobody is left
            os.killpg(self._process.pid, number)
