"""The process that reads untrusted pictures: `python -m services.shared.decoder`.

A pool of them stands in front of the crawler and of the inference server. Each may use so much
memory and, for one picture, so much CPU; beyond that the kernel ends it, and another takes over.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from typing import Annotated

import typer

from services.shared import header, pixels
from services.shared.errors import DecodeLimit
from services.shared.worker import Handle, serve

ASK = struct.Struct("<Id")  # edge of the square in pixels, its share of the shorter edge
VIEW = struct.Struct("<4f")  # the square's left, top, right, bottom within the upright picture
MEMORY_BYTES = 3 << 29  # 1.5 GiB of address space: a 64-megapixel picture in any mode fits
CPU_SECONDS = 4  # 64 megapixels of PNG take two; rounding adds up to one
LARGE_PX = 1_000_000  # from here on, memory goes back to the kernel: workers keep it otherwise
LIBC = ctypes.CDLL(None)


def handle(job: memoryview) -> bytes:
    """The square that the model looks at, as RGB bytes behind where it was cut from."""
    return limited(bytes(job[ASK.size :]), lambda content: _view(content, *ASK.unpack_from(job)))


def limited(content: bytes, work: Callable[[bytes], bytes]) -> bytes:
    """What `work` makes of a picture, with so much CPU and memory as a picture may have."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    _, most = resource.getrlimit(resource.RLIMIT_CPU)  # only root could raise it
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))
    claimed = header.read(content)
    try:
        return work(content)
    except MemoryError:
        raise DecodeLimit(
            "The image needs more memory than an image of its kind should. Re-encode it."
        ) from None
    finally:
        # A JPEG is scaled while it is decoded, unless all of it has to be kept till the end.
        share = 16 if claimed and claimed.format == "JPEG" and not claimed.slow else 1
        if not claimed or claimed.width * claimed.height > LARGE_PX * share:
            LIBC.malloc_trim(0)


def _view(content: bytes, edge_px: int, fraction: float) -> bytes:
    upright = pixels.decode(content, edge_px=round(edge_px / fraction))
    view, box = pixels.crop(upright, size_px=edge_px, fraction=fraction)
    return VIEW.pack(*box) + view.tobytes()


def prepare(niceness: int, handle: Handle = handle) -> tuple[bytes, Handle]:
    """Sets the limits that hold for the life of the process."""
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return b"", handle


def main(niceness: Annotated[int, typer.Option()], pipe: Annotated[int, typer.Option()]) -> None:
    """Started by its pool, not by people."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server drains first, then ends us
    serve(pipe, lambda: prepare(niceness))


if __name__ == "__main__":
    typer.run(main)
