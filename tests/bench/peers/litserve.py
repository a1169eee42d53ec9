"""LitServe with our model: `python -m tests.bench.peers.litserve --port … --timeout …`.

Tuned: ZeroMQ for the answers (`fast_queue`), one server process, and a time-out in its queue; it
has no bound on that queue. Documented: as in its guide's image classifier, with a worker for each
core, as the documentation advises for CPUs. The body is its guide's, JSON with base64.
"""

import base64
import os
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import typer

from tests.bench.peers import work
from tests.bench.peers.work import Answer


class Api(litserve.LitAPI):
    """Decodes and infers in each worker."""

    def setup(self, device: str) -> None:
        work.announce()
        self._decode, self._infer = work.decoder(), work.inferrer()

    def decode_request(self, request):  # type: ignore[no-untyped-def] # a type would be a schema
        return self._decode(base64.b64decode(request["image_data"]))

    def predict(self, x: np.ndarray) -> Answer:
        return self._infer(x[None])[0]

    def encode_response(self, output):  # type: ignore[no-untyped-def] # the same
        return output


def main(
    port: Annotated[int, typer.Option()], timeout: Annotated[float, typer.Option()] = 30.0
) -> None:
    """Serves until it is terminated."""
    tuned: dict[str, Any] = {} if work.setup() == work.DOCUMENTED else {"fast_queue": True}
    workers = len(os.sched_getaffinity(0))
    server = litserve.LitServer(
        Api(), accelerator="cpu", workers_per_device=workers, timeout=timeout, **tuned
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=2 if tuned else None,
        generate_client_file=False,
        log_level="error",
    )


if __name__ == "__main__":
    typer.run(main)
