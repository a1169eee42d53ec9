"""A device worker that starts beside others which are at work: `python -m …newcomer`, as `device`.

To import, compile and check a model takes a second of CPU for each worker, at which those who
serve must not be held up. Niceness would do, but a process that has been nice cannot go back
without privileges. A thread has a niceness of its own, though: a very nice one prepares, and the
main thread, which waits for it and then does the work, is as it always was.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TypeVar

T = TypeVar("T")


def nicely(work: Callable[[], T]) -> T:
    """What `work` returns or raises, done only while nobody else wants the core."""

    def give_way() -> None:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))

    with ThreadPoolExecutor(1, initializer=give_way) as thread:
        return thread.submit(work).result()


if __name__ == "__main__":
    device = nicely(lambda: import_module("services.inference.device"))
    device.typer.run(device.main)
