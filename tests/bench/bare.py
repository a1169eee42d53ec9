"""The bare limit: decode and forward in a loop without a server, a process for each core.

No server can do more with this decode and this backend: nothing is received, queued or answered.
"""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

import numpy as np

from services.shared import model as models
from services.shared.cores import cores
from tests.bench.spine import looks

WARM_UP = 3  # batches


def rate(pictures: Sequence[bytes], precision: str, batch: int, seconds: float) -> float:
    """Images a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue[float] = context.Queue()
    together = context.Barrier(cores())
    runners = [
        context.Process(target=loop, args=(pictures, precision, batch, seconds, together, out))
        for _ in range(cores())
    ]
    for runner in runners:
        runner.start()
    rates = [out.get(timeout=seconds + 60) for _ in runners]
    for runner in runners:
        runner.join()
    return sum(rates)


def loop(
    pictures: Sequence[bytes],
    precision: str,
    batch: int,
    seconds: float,
    together: Barrier,
    out: "multiprocessing.Queue[float]",
) -> None:
    """One of the processes."""
    from services.shared.exported import open_exported

    model = looks()
    look = open_exported(model, precision)
    done = -WARM_UP
    start = end = 0.0
    while done < 0 or time.perf_counter() < end:
        turn = max(done, 0) * batch
        some = (pictures[(turn + n) % len(pictures)] for n in range(batch))
        look(np.stack([models.view(model.preprocessing, content) for content in some]))
        done += 1
        if done == 0:
            together.wait()
            start = time.perf_counter()
            end = start + seconds
    out.put(done * batch / (time.perf_counter() - start))
