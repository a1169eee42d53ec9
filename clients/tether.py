"""Becomes the program that its arguments name, tied to the supervisor that started it.

Nobody would end a service whose supervisor was killed, and it would keep its ports: so it dies with
it. Run as a file by supervisord, by Python's standard library alone.
"""

import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Says of this process what only it can, and becomes `python -m` of the arguments."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before we could say so: then nobody holds the other end of our input.
    supervisor = select.poll()
    supervisor.register(0, 0)
    if supervisor.poll(0):
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])


if __name__ == "__main__":
    main()
