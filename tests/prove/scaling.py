"""`make prove-scaling`: the fleet is as large as its load wants it, and nobody's call fails.

The autoscaler's own algorithm (`hpa.py`) asks a real Prometheus with our rules, and what it decides
happens to real servers (`fleet.py`), whose device only waits: `timed:25ms`. `emojinet load` calls
them by a name, as clients call a headless Service.

The clocks of control run faster by one factor: scrapes, windows and intervals of the rules, the
autoscaler's syncs and stabilisation, the start of a pod, the age of connections, the look-up of
names, and the minute in which a replica is new. All that calls meet is as it is: service time,
deadline, objective, the second that a refused call counts for, the preStop hook, the drain.
"""

import asyncio
import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from services.shared import registry, starter
from services.shared.cores import cores
from tests.bench.spine import cpu_name
from tests.k8s.promtool import SCRAPE_SECONDS
from tests.photographs import make
from tests.prove import names, scaling_page, simulated, stretches
from tests.prove.fleet import Fleet
from tests.prove.hpa import Autoscaler, ours
from tests.prove.observed import Prometheus, Series, observed
from tests.prove.scaling_figures import QUERIES, Run, Sync, figures
from tests.prove.simulated import SERVICE_SECONDS, START, SYNC
from tests.prove.stretches import Stretch

REGISTRY = Path("data/registry")
RESULTS = Path("tests/bench/results")
FACTOR = 5.0
CONNECTIONS = 8
SIZE = (320, 240)
SIGNALS = {
    "ours": {
        "emojinet_demand": "pod:emojinet_demand:ratio",
        "emojinet_queue_wait": "pod:emojinet_queue_wait:bounded",
    },
    "wait only": {"emojinet_queue_wait": "pod:emojinet_queue_wait:seconds"},
}
"""Of each signal the autoscaler's metrics, and the recorded series that they are."""


async def run(
    signal: str,
    load: Sequence[Stretch],
    factor: float,
    folder: Path,
    model: Path,
    own_seconds: float,
) -> Run:
    """One signal under a load.

    Args:
        folder: for logs and what Prometheus keeps.
        own_seconds: what a server takes to start by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = stretches.rates(load)
    lines = (f"{second / factor},{rate}\n" for second, rate in enumerate([*wanted, 0.0]))
    (folder / "load.csv").write_text("".join(lines))
    first = stretches.ideal(wanted[0])
    async with Fleet(folder, program(factor, model), START / factor, own_seconds) as fleet:
        fleet.scale(first)
        await fleet.ready(first)
        with (
            observed(folder, fleet.targets, factor) as prometheus,
            names.serving(fleet.addresses) as name,
        ):
            caller = await calling(f"{name}:{fleet.port}", factor, folder)
            began, epoch = time.monotonic(), time.time()
            syncs = await _controlled(signal, fleet, prometheus, factor, caller)
            step, end = SCRAPE_SECONDS / factor, time.time()
            past = {
                what: _since(prometheus.past(query, epoch, end, step), epoch, factor)
                for what, query in QUERIES.items()
            }
        ready = {
            pod.name: (pod.ready_at - began) * factor
            for pod in (*fleet.gone, *fleet.pods)
            if pod.ready_at is not None and pod.ready_at > began
        }
    report = json.loads((folder / "report.json").read_text())
    return Run(signal, factor, load, syncs, ready, past, report)


def program(factor: float, model: Path) -> list[str]:
    """What runs in a pod."""
    device = f"--backend=timed:{1000 * SERVICE_SECONDS:g}ms"
    return ["tests.prove.hurried", f"{factor}", "services.inference", device, f"--model={model}"]


async def own_seconds(folder: Path, model: Path) -> float:
    """What a server takes to start."""
    async with Fleet(folder, program(1, model)) as fleet:
        fleet.scale(1)
        await fleet.ready(1)
        (pod,) = fleet.pods
        assert pod.ready_at is not None
        return pod.ready_at - pod.born


async def calling(target: str, factor: float, folder: Path) -> asyncio.subprocess.Process:
    """The load, from the moment in which it begins."""
    flags = (f"--trace={folder}/load.csv", f"--json={folder}/report.json", f"--server={target}")
    said, picture = folder / "load.log", folder / "picture.jpg"
    picture.write_bytes(make(*SIZE, 1)[0])  # small: it is not decoding that is looked at
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.prove.hurried", str(factor), "clients.cli", "load"),
            *(*flags, f"--connections={CONNECTIONS}", str(picture)),
            stdout=log,
            stderr=log,
        )
    while " calls in " not in said.read_text():
        if process.returncode is not None:
            raise SystemExit(f"there is no load: {said.read_text()}")
        await asyncio.sleep(0.02)
    return process


async def _controlled(
    signal: str,
    fleet: Fleet,
    prometheus: Prometheus,
    factor: float,
    caller: asyncio.subprocess.Process,
) -> list[Sync]:
    """Syncs until the load is over."""
    queries = SIGNALS[signal]
    spec: dict[str, Any] = ours()["spec"]
    metrics = [m for m in spec["metrics"] if m["pods"]["metric"]["name"] in queries]
    autoscaler, syncs = Autoscaler(spec | {"metrics": metrics}), list[Sync]()
    loop = asyncio.get_running_loop()
    start = loop.time()
    while caller.returncode is None:
        at = factor * (loop.time() - start)
        served = {name: await _asked(prometheus, query) for name, query in queries.items()}
        pods = {pod.name: pod.state for pod in fleet.pods}
        fleet.scale(autoscaler.sync(at, len(fleet.wanted), pods, served))
        replicas = len(fleet.wanted)
        held = bool(autoscaler.wishes) and autoscaler.wishes[-1][1] < replicas
        values = {
            name: sum(values.values()) / len(values) / 1000
            for name, values in served.items()
            if values
        }
        syncs.append(Sync(at, replicas, len(fleet.addresses()), held, values))
        rest = start + len(syncs) * SYNC / factor - loop.time()
        try:
            await asyncio.wait_for(caller.wait(), max(0.01, rest))
        except TimeoutError:
            continue
    if caller.returncode:
        raise SystemExit(f"the load ended with {caller.returncode}")
    return syncs


async def _asked(prometheus: Prometheus, query: str) -> dict[str, int] | None:
    """In thousandths, as the autoscaler reads them; None where there is none, or no Prometheus."""
    try:
        found = await asyncio.to_thread(prometheus.now, query)
    except OSError:
        return None
    return {pod: round(1000 * value) for pod, value in found.items()} or None


def _since(series: Series, epoch: float, factor: float) -> Series:
    return {
        pod: [((at - epoch) * factor, value) for at, value in values]
        for pod, values in series.items()
    }


def main(
    factor: Annotated[float, typer.Option(min=1, help="By which control runs faster.")] = FACTOR,
    step: Annotated[bool, typer.Option("--step", help="The step alone, by our signal.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
    folder: Annotated[Path, typer.Option(help="For logs.")] = Path("data/prove-scaling"),
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    model = registry.folder(REGISTRY, starter.ensure(REGISTRY)).absolute()
    own = asyncio.run(own_seconds(folder, model))
    load: Sequence[Stretch] = stretches.TURN if step else stretches.STRETCHES
    runs = [
        asyncio.run(run(signal, load, factor, folder / signal.replace(" ", "-"), model, own))
        for signal in (["ours"] if step else SIGNALS)
    ]
    found = figures(runs[0]) | {"factor": factor}
    live = {f"{each.signal}, live": figures(each) for each in runs[1:]}
    found["alternatives"] = live | ({} if step else simulated.compared())
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cores()} cores, {cpu_name()}; pods, callers and Prometheus share them",
        "versions": f"Python {platform.python_version()}, grpcio {version('grpcio')}",
        "clocks": f"of control divided by {factor:g}",
        "took": f"{(time.monotonic() - began) / 60:.0f} minutes",
    }
    scaling_page.show(runs, found)
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_scaling{'-whole' * step}.md"
    scaling_page.draw(runs, path.with_suffix(".png"))
    path.write_text(scaling_page.as_markdown(runs, found, facts, path.with_suffix(".png").name))
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
