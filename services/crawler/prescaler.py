"""The process that prescales untrusted pictures: `python -m services.crawler.prescaler`.

A job is an encoded picture, the reply what `prescaled.unpack` reads. The limits are the decoder's.
"""

import signal
from typing import Annotated

import typer

from services.crawler import prescaled
from services.shared import decoder
from services.shared.worker import serve


def main(
    niceness: Annotated[int, typer.Option()],
    pipe: Annotated[int, typer.Option()],
    edge_px: Annotated[int, typer.Option()] = prescaled.EDGE_PX,
) -> None:
    """Started by its pool, not by people."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the service drains first, then ends us

    def work(content: bytes) -> bytes:
        return prescaled.pack(prescaled.prescaled(content, edge_px=edge_px))

    serve(pipe, lambda: decoder.prepare(niceness, lambda job: decoder.limited(bytes(job), work)))


if __name__ == "__main__":
    typer.run(main)
