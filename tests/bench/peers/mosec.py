"""Mosec with our model: `python -m tests.bench.peers.mosec --port … --capacity … --timeout …`.

Tuned: a worker for each core that decodes and infers, so that no pixels travel between processes.
Documented: the stages, numbers and batch of its example `resnet50_msgpack`; the body is the file
itself in both, which is cheaper than the example's msgpack.
"""

import os

import numpy as np
from mosec import Server, Worker  # type: ignore[import-not-found]

from tests.bench.peers import work
from tests.bench.peers.work import Answer


class Whole(Worker):
    """All of it."""

    def __init__(self) -> None:
        super().__init__()
        work.announce()
        self._decode, self._infer = work.decoder(), work.inferrer()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Answer:
        return self._infer(self._decode(data)[None])[0]


class Preprocess(Worker):
    """The first stage of two."""

    def __init__(self) -> None:
        super().__init__()
        work.announce()
        self._decode = work.decoder()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> np.ndarray:
        return self._decode(data)


class Inference(Worker):
    """The second, in batches."""

    def __init__(self) -> None:
        super().__init__()
        work.announce()
        self._infer = work.inferrer()

    def forward(self, data: list[np.ndarray]) -> list[Answer]:
        return self._infer(np.stack(data))


def main() -> None:
    """Serves until it is terminated; Mosec reads its flags itself."""
    server = Server()
    if work.setup() == work.DOCUMENTED:
        server.append_worker(Preprocess, num=4)
        server.append_worker(Inference, num=2, max_batch_size=16)
    else:
        server.append_worker(Whole, num=len(os.sched_getaffinity(0)))
    server.run()


if __name__ == "__main__":
    main()
