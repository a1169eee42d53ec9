"""Runs the stand-in alone: `python -m tests.standin --seed 1 --posts 2000`.

Prints one line of JSON with its addresses, and serves until its input closes or it is told to end.
"""

import asyncio
import os
import signal
import threading
from contextlib import suppress
from typing import Annotated

import typer

from tests.standin.clock import Clock
from tests.standin.standin import Standin, described
from tests.standin.world import World


def main(
    seed: int = 1,
    posts: int = 1000,
    emoji: int = 845,
    skew: float = 1.0,
    authors: int = 0,
    edge_px: int = 480,
    duplicates: float = 0.15,
    bad: Annotated[list[str] | None, typer.Option(help="Misbehaviours of some images.")] = None,
    bad_share: float = 0.0,
    hosts: int = 4,
    tls: bool = False,
    clock: Annotated[float | None, typer.Option(help="Start of a simulated clock.")] = None,
    limit: Annotated[int, typer.Option(help="Calls in an hour for a token.")] = 5000,
    carousels: bool = False,
    latency: float = 0.0,
    past: float = 1.0,
    rate: float = 0.0,
    disconnect_every: int = 0,
    bank: int = 0,
    drawings: bool = False,
    forever: Annotated[bool, typer.Option(help="Go on when the input closes.")] = False,
) -> None:
    """Runs the stand-in social network on loopback addresses."""
    world = World(
        seed=seed,
        posts=posts,
        emoji=emoji,
        skew=skew,
        authors=authors,
        edge_px=edge_px,
        duplicates=duplicates,
        bad=tuple(bad or ()),
        bad_share=bad_share,
    )
    standin = Standin(
        world,
        hosts=hosts,
        tls=tls,
        clock=Clock(clock),
        limit=limit,
        carousels=carousels,
        latency=latency,
        past=past,
        rate=rate,
        disconnect_every=disconnect_every,
        bank=bank,
        drawings=drawings,
    )
    asyncio.run(_serve(standin, forever))


async def _serve(standin: Standin, forever: bool) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    if not forever:
        threading.Thread(target=_wait, args=(loop, end), daemon=True).start()
    async with standin:
        print(described(standin), flush=True)
        await end.wait()


def _wait(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    """Until the input closes; a thread, since a file in its place has no readiness."""
    while os.read(0, 4096):
        pass
    with suppress(RuntimeError):  # the loop has ended before
        loop.call_soon_threadsafe(end.set)


if __name__ == "__main__":
    typer.run(main)
