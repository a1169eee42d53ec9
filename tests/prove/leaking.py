"""The inference service with a leak: what `soak.py` must not let pass.

Of each request that it answers it keeps `LEAKED_BYTES` for good.
"""

import os

import typer

from emojinet.v1 import inference_service_pb2 as pb
from services.inference import __main__ as program
from services.inference.server import Context, InferenceService
from services.shared.queue import Priority

VARIABLE = "LEAKED_BYTES"
kept: list[bytes] = []
answer = InferenceService._suggest


async def leaking(
    self: InferenceService, request: pb.SuggestRequest, priority: Priority, context: Context
) -> pb.SuggestResponse:
    """Answers, and keeps a part."""
    kept.append(b"x" * int(os.environ[VARIABLE]))
    return await answer(self, request, priority, context)


if __name__ == "__main__":
    InferenceService._suggest = leaking  # type: ignore[method-assign]
    typer.run(program.main)
