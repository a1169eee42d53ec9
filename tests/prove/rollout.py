"""`make prove-rollout`: every replica is replaced, again and again, and no call fails.

As a Deployment with `maxSurge: 1, maxUnavailable: 0`: one more pod, and once that is ready the
oldest goes. Real servers (`fleet.py`) at 60 % of what they can do, `emojinet load` with the service
config of our clients, by a name, and no clock divided. A refused call counts as failed: there is
room for all of them.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.shared import registry, starter
from services.shared.cores import cores
from tests.bench.spine import cpu_name
from tests.prove import names, scaling
from tests.prove.fleet import Fleet
from tests.prove.scaling import REGISTRY, RESULTS
from tests.prove.simulated import SERVICE_SECONDS

REPLICAS = 2
SHARE = 0.6
CALM_SECONDS = 5.0  # before the first and after the last


async def prove(restarts: int, folder: Path, model: Path) -> dict[str, Any]:
    """Restarts the fleet so often under load.

    Args:
        folder: for logs.
    """
    pace = REPLICAS * 1.3 * await scaling.own_seconds(folder, model) + 1
    seconds, rate = restarts * pace + 2 * CALM_SECONDS, SHARE * REPLICAS / SERVICE_SECONDS
    lines = f"0,{rate}\n{seconds},0\n"
    (folder / "load.csv").write_text(lines)
    done, took = 0, list[float]()
    async with Fleet(folder, scaling.program(1, model)) as fleet:
        fleet.scale(REPLICAS)
        await fleet.ready(REPLICAS)
        with names.serving(fleet.addresses) as name:
            caller = await scaling.calling(f"{name}:{fleet.port}", 1, folder)
            start = time.monotonic() + CALM_SECONDS
            for number in range(restarts):
                await asyncio.sleep(max(0.0, start + number * pace - time.monotonic()))
                began = time.monotonic()
                await restart(fleet)
                took.append(time.monotonic() - began)
                done += caller.returncode is None
            await caller.wait()
    report = json.loads((folder / "report.json").read_text())
    missed = ("refused", "failed", "unsent", "cancelled", "throttled")
    latency = report["latency_seconds"]["good"]
    return {
        "restarts": done,
        "failed_calls": sum(report[kind] for kind in missed),
        "calls": report["offered"],
        "calls_per_second": round(rate, 1),
        "pods": REPLICAS * (restarts + 1),
        "restart_seconds": round(sum(took) / len(took), 2),
        "p50_ms": round(1000 * latency["p50"], 1),
        "p99_ms": round(1000 * latency["p99"], 1),
        "why": report["why"],
    }


async def restart(fleet: Fleet) -> None:
    """As `kubectl rollout restart`: one new pod after the other, each for the oldest."""
    for pod in fleet.wanted:
        fleet.scale(REPLICAS + 1)
        await fleet.ready(REPLICAS + 1)
        fleet.end(pod)


def main(
    restarts: Annotated[int, typer.Option(min=1)] = 50,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
    folder: Annotated[Path, typer.Option(help="For logs.")] = Path("data/prove-rollout"),
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    model = registry.folder(REGISTRY, starter.ensure(REGISTRY)).absolute()
    found = asyncio.run(prove(restarts, folder, model))
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)
    facts = (
        f"- date: {time.strftime('%Y-%m-%d')}\n"
        f"- machine: {cores()} cores, {cpu_name()}; pods and callers share them\n"
        f"- command: {' '.join(['python -m tests.prove.rollout', *sys.argv[1:]])}\n"
    )
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in found.items())
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_rollout.md"
    path.write_text(
        "# Rolling restarts\n\n`make prove-rollout`: see the docstring of "
        f"`tests/prove/rollout.py`.\n\n{facts}\n| figure | value |\n|---|---|\n{rows}\n\n"
        f"    RESULT {json.dumps(found)}\n"
    )
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
