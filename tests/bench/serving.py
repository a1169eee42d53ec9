"""`make bench-serving`: our server beside its bare limit and the servers people would pick instead.

All of them serve the same model and pictures to the same callers on the same cores, one after the
other within each round; callers take their share of the cores from all of them alike. The rows:

- ours, exact, and `reduced` where this machine has bfloat16 and the model passes that gate;
- the bare limit, decode and forward in a loop without a server (`tests/bench/bare.py`);
- Mosec and LitServe with our backend and our decode inside, a worker of one thread for each core,
  malloc as in our workers; what queue they have is bounded for deadlines of 1 s;
- the same with eager PyTorch and Pillow, as well tuned, and as their documentation sets them up;
- a grpc.aio server with a lock around eager PyTorch, as people write it first.

Throughput is the best of the closed loops of a round. The open loops offer multiples of that, with
deadlines of 1 s. Ours also answers calls beside bulk work (`tests/bench/bulk.py`). The last line is
`RESULT`; a figure is null where it could not be measured.
"""

import asyncio
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from clients.arrivals import poisson, steps
from clients.load import plan
from clients.throttle import Throttle
from services.shared import golden
from services.shared.cores import cores
from services.shared.errors import BadModel
from services.shared.exported import open_exported
from services.shared.model import Model
from services.shared.worker import ENVIRONMENT
from tests.bench import bare, bulk, serving_tables, standings
from tests.bench.bulk import Beside
from tests.bench.callers import Load, closed_loop, open_loop
from tests.bench.contenders import Contender, Peers, Server, first_places, ours, running
from tests.bench.peers import environment
from tests.bench.spine import cpu_name, idle, looks
from tests.bench.standings import Standing, ratio, share_ms
from tests.photographs import make

RESULTS = Path(__file__).parent / "results"
LEVELS, FEW_LEVELS = (1, 8, 32, 64), (1, 32)
TIMES = (0.5, 1.0, 2.0, 5.0, 10.0)
LIMITS = {"exact": (1, 4), "reduced": (1, 8)}  # batches, of which the best is the limit
LARGE = ((1632, 1224), (2304, 1728))  # 2 and 4 megapixels
WIDTH = 150  # of the tables, also where nobody looks
SAME_SHARE = 0.8  # of the best peer's capacity: what all get
BULK_SHARE = 2 / 3  # of the time of a load, for each of the parts that are compared
CALM_SECONDS, CALM_SHARE = 1.5, 0.3
"""Behind each open loop: so long, so much of capacity."""


@dataclass(slots=True)
class Run:
    """What is measured, and what was found by now."""

    model: Model
    seconds: float
    small: list[bytes]
    large: list[bytes]
    reduced: str
    """Why there is no `reduced` here; empty if there is."""
    limits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    standings: dict[str, Standing] = field(default_factory=lambda: defaultdict(Standing))
    answers: dict[str, list[str]] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)
    beside_bulk: list[Beside] = field(default_factory=list)

    def peers(self) -> list[Contender]:
        """With our backend and our decode inside."""
        peers = Peers(self.model)
        return [peers.mosec("openvino", "ours"), peers.litserve("openvino", "ours")]

    def tuned(self) -> list[Contender]:
        """With PyTorch, as well set up as we know."""
        peers = Peers(self.model)
        return [peers.mosec("eager", "pillow"), peers.litserve("eager", "pillow")]

    def documented(self) -> list[Contender]:
        """With PyTorch, as they are found."""
        peers, how = Peers(self.model), "documented"
        return [
            peers.mosec("eager", "pillow", how),
            peers.litserve("eager", "pillow", how),
            peers.naive(),
        ]

    def plain(self) -> Contender:
        """With our backend and plain Pillow."""
        return Peers(self.model).mosec("openvino", "pillow")


@contextmanager
def serving(run: Run, contender: Contender) -> Iterator[Server]:
    """A server whose answers were looked at."""
    with running(contender, run.small[0]) as server:
        run.answers[contender.name] = first_places(server, run.small)
        yield server


def closed(run: Run, server: Server, levels: Sequence[int], *, large: bool = False) -> None:
    """Closed loops, one after the other."""
    contender, standing = server.contender, run.standings[server.contender.name]
    bodies = [contender.body(picture) for picture in (run.large if large else run.small)]

    async def load(in_flight: int) -> Load:
        async with server.connect() as send:
            return await closed_loop(send, bodies, in_flight, run.seconds, server.cpu_seconds)

    for in_flight in levels:
        brought = asyncio.run(load(in_flight))
        of_ours = contender.name in (ours().name, ours("reduced").name)
        found = standings.closed(brought, server.memory_mb(), ours=of_ours)
        (standing.large if large else standing.closed[in_flight]).append(found)


def opened(
    run: Run, server: Server, name: str, rate: float, throttle: Throttle | None = None
) -> None:
    """An open loop at a rate, and a calm time behind it."""
    contender, rng = server.contender, random.Random(1)
    bodies = [contender.body(picture) for picture in run.small]
    loud = poisson(steps([rate], run.seconds), rng)
    calm_rate = CALM_SHARE * run.standings[contender.name].capacities()[-1]
    calm = [run.seconds + at for at in poisson(steps([calm_rate], CALM_SECONDS), rng)]
    calls = plan([*loud, *calm], lambda: rng.choice(bodies), rng)

    async def load() -> Load:
        async with server.connect() as send:
            return await open_loop(send, calls, run.seconds, throttle)

    known = contender.name == ours().name
    before = server.device_seconds() if known else 0.0
    brought = asyncio.run(load())
    busy = server.device_seconds() - before if known else 0.0
    run.standings[contender.name].opened[name].append(standings.opened(brought, rate, busy))


def round_of(run: Run) -> None:
    """Everything once."""
    for precision, batches in LIMITS.items():
        rates = [bare.rate(run.small, precision, batch, run.seconds) for batch in batches]
        run.limits[precision].append(max(rates))
    run.limits["large"].append(bare.rate(run.large, "exact", 1, run.seconds))
    own = [ours()] if run.reduced else [ours(), ours("reduced")]
    for contender in (*own, *run.peers()):
        with serving(run, contender) as server:
            closed(run, server, LEVELS)
            closed(run, server, (32,), large=True)
            if contender.name == ours().name:
                run.beside_bulk.append(beside_bulk(run, server))
    for contender in (*run.tuned(), *run.documented()):
        with serving(run, contender) as server:
            closed(run, server, FEW_LEVELS)
    with serving(run, run.plain()) as server:
        closed(run, server, (32,), large=True)
    best_peer = max(run.standings[peer.name].capacities()[-1] for peer in run.peers())
    for contender in (ours(), *run.peers()):
        capacity = run.standings[contender.name].capacities()[-1]
        with serving(run, contender) as server:
            opened(run, server, "same", SAME_SHARE * best_peer)
            for times in TIMES:
                opened(run, server, f"{times:g}x", times * capacity)
            if contender.name == ours().name:
                opened(run, server, "10x throttled", 10 * capacity, Throttle())
                run.overhead = run.overhead or overhead(server, run)


def beside_bulk(run: Run, server: Server) -> Beside:
    """Interactive calls alone and beside bulk work."""
    capacity = run.standings[server.contender.name].capacities()[-1]
    return asyncio.run(bulk.measure(server.address, run.small, capacity, BULK_SHARE * run.seconds))


def overhead(server: Server, run: Run) -> dict[str, float]:
    """What a call takes beyond decode and forward, when nothing else is under way."""
    alone, called = (statistics.median(times) for times in idle(server.address, run.small))
    return {"alone_ms": 1000 * alone, "overhead_ms": 1000 * (called - alone)}


def why_not_reduced(model: Model) -> str:
    """Why `reduced` may not be served here; empty if it may."""
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        return "this CPU has no bfloat16"
    try:
        golden.check(model, open_exported(model, "reduced"), "reduced")
    except BadModel as refusal:
        return str(refusal)
    return ""


def throughputs(run: Run) -> dict[str, Any]:
    """What all of it is about, and the spread of each ratio over the rounds."""
    own = run.standings[ours().name]
    capacities = own.capacities()

    def rates(contenders: Sequence[Contender]) -> list[list[float]]:
        return [run.standings[contender.name].capacities() for contender in contenders]

    eager = rates([*run.tuned(), *run.documented()])
    large = [one.rate for one in own.large]
    plain = [one.rate for one in run.standings[run.plain().name].large]
    theirs = [[one.rate for one in run.standings[peer.name].large] for peer in run.peers()]
    found: dict[str, Any] = {
        "throughput": statistics.median(capacities),
        "limit": statistics.median(run.limits["exact"]),
        "reduced_limit": statistics.median(run.limits["reduced"]),
        "large_throughput": statistics.median(large),
        "large_limit": statistics.median(run.limits["large"]),
        "reduced_passes": int(not run.reduced),
        **dict.fromkeys(("reduced_throughput", "reduced_limit_share", "reduced_default_ratio")),
    }
    compared = {
        "limit_share": (capacities, [run.limits["exact"]]),
        "same_backend_ratio": (capacities, rates(run.peers())),
        "best_default_ratio": (capacities, eager),
        "best_documented_ratio": (capacities, rates(run.documented())),
        "large_photo_ratio": (large, [plain]),
        "large_same_backend_ratio": (large, theirs),
        "large_limit_share": (large, [run.limits["large"]]),
    }
    if not run.reduced:
        reduced = run.standings[ours("reduced").name].capacities()
        found["reduced_throughput"] = statistics.median(reduced)
        compared["reduced_limit_share"] = (reduced, [run.limits["reduced"]])
        compared["reduced_default_ratio"] = (reduced, eager)
    for name, (mine, others) in compared.items():
        found[name], (found[f"{name}_least"], found[f"{name}_most"]) = ratio(mine, others)
    return found


def overloads(run: Run) -> dict[str, Any]:
    """What is left of capacity, of ours and of the best of the others."""
    own = run.standings[ours().name]

    def kept(standing: Standing, name: str) -> float:
        pairs = zip(standing.opened[name], standing.capacities(), strict=True)
        return statistics.median(o.goodput / min(o.offered, c) for o, c in pairs)

    found: dict[str, Any] = {}
    for times in TIMES:
        name = f"{times:g}x"
        found[f"goodput_{name}"] = kept(own, name)
        found[f"peer_goodput_{name}"] = max(
            kept(run.standings[peer.name], name) for peer in run.peers()
        )
    found["goodput_10x_unthrottled"] = found["goodput_10x"]
    found["goodput_10x"] = kept(own, "10x throttled")
    heavy = [own.opened[name] for name in ("2x", "5x", "10x", "10x throttled")]
    found["wasted_share"] = max(statistics.median(o.wasted_share for o in each) for each in heavy)
    found["recovery_seconds"] = max(
        statistics.median(o.recovery_seconds for o in each) for each in heavy
    )
    for name in ("2x", "10x", "10x throttled"):
        refusals = sorted(s for o in own.opened[name] for s in o.refusals)
        key = name.replace(" ", "_")
        found[f"refused_ms_p50_{key}"] = share_ms(refusals, 0.5)
        found[f"refused_ms_p99_{key}"] = share_ms(refusals, 0.99)
    return found


def latencies(run: Run) -> dict[str, Any]:
    """One call at a time, and at the rate that all get; of the others the least."""
    own = run.standings[ours().name]
    others = [run.standings[c.name] for c in (*run.peers(), *run.tuned(), *run.documented())]
    found: dict[str, Any] = {}
    for key, share in (("p50", 0.5), ("p99", 0.99)):
        found[f"{key}_ms_1"] = share_ms(own.latencies(1), share)
        found[f"peer_{key}_ms_1"] = min(share_ms(o.latencies(1), share) for o in others)

        def same(standing: Standing, share: float = share) -> float:
            return share_ms(sorted(s for o in standing.opened["same"] for s in o.latencies), share)

        found[f"{key}_ms_same"] = same(own)
        found[f"peer_{key}_ms_same"] = min(same(run.standings[peer.name]) for peer in run.peers())
    for level in (1, 32):
        key = f"server_cpu_ms_{level}"
        found[key] = statistics.median(one.server_ms for one in own.closed[level])
    found["memory_mb"] = statistics.median(one.memory_mb for one in own.closed[32])
    return found | run.overhead


def disagreements(run: Run) -> int:
    """How many answers with our decode and backend inside differ from ours; none should."""
    right = run.answers[ours().name]
    return sum(
        mine != other
        for peer in run.peers()
        for mine, other in zip(right, run.answers[peer.name], strict=True)
    )


def rounded(value: float | None) -> float | None:
    """As RESULT has it: JSON knows no NaN."""
    if value is None or math.isnan(value):
        return None
    return value if isinstance(value, int) else round(value, 4)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each load.")] = 3.0,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Prints tables, and as the last line RESULT with the figures as JSON."""
    if not ENVIRONMENT.items() <= os.environ.items():
        # Decode and forward alone get the malloc settings that our workers have.
        os.execve(sys.executable, sys.orig_argv, os.environ | ENVIRONMENT)
    environment.install()
    model = looks()
    large = [picture for size in LARGE for picture in make(*size, 6)]
    run = Run(model, seconds, make(640, 480, 18), large, why_not_reduced(model))
    began, before = time.monotonic(), psutil.cpu_times()
    for number in range(rounds):
        round_of(run)
        Console(stderr=True).print(f"round {number + 1} of {rounds} is done", style="dim")
    found = throughputs(run) | overloads(run) | latencies(run)
    many = run.standings[ours().name].closed[32]
    found |= bulk.figures(run.beside_bulk, [one.rate for one in many])
    took = time.monotonic() - began
    found["stolen_share"] = (psutil.cpu_times().steal - before.steal) / took / cores()
    found |= {"disagreements": disagreements(run), "rounds": rounds, "seconds": seconds}
    result = {name: rounded(value) for name, value in found.items()}
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cores()} cores, {cpu_name()}; callers and server share them",
        "versions": ", ".join(f"{p} {version(p)}" for p in ("grpcio", "openvino", "torch"))
        + ", "
        + ", ".join(environment.PEERS).replace("==", " "),
        "python": platform.python_version(),
        "pictures": f"640x480, {statistics.mean(map(len, run.small)) / 1000:.0f} KB; 2 and 4 "
        f"megapixels, {statistics.mean(map(len, run.large)) / 1000:.0f} KB",
        "n": f"{rounds} rounds, {seconds:g} s for each load, {took / 60:.0f} minutes",
        "reduced": run.reduced or "passes its gate here",
    }
    serving_tables.show(run.standings, Console(width=WIDTH))
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_serving.md"
    path.write_text(serving_tables.as_markdown(run.standings, facts, result))
    serving_tables.draw(run.standings, path.with_suffix(".png"))
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
