"""`make bench-page`: how long people wait for the first suggestion, in a real browser.

Photographs are dropped onto the page, one after the other, each of them another one; the time runs
in the browser, from the drop to the first frame that is drawn after the suggestions have come. The
servers are real and warm, Chromium is Debian's. The last line is `RESULT`.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from playwright.async_api import Page, async_playwright
from rich.console import Console
from rich.table import Table

from clients.demo import free_port, is_ready
from tests.bench.spine import cpu_name
from tests.clients.web.browser import DROP, File, answered, drop, launch, opened
from tests.clients.web.test_serve import until_alive
from tests.photographs import make

RESULTS = Path(__file__).parent / "results"
SIZES = {"640x480": (640, 480), "2 megapixels": (1600, 1200), "4 megapixels": (2304, 1728)}
GOAL_MS = 500
# In the browser: the drop itself, and the first frame after its card has suggestions.
TIMED = f"""
async (given) => {{
  const cards = document.getElementById("cards");
  const frame = () => new Promise(requestAnimationFrame);
  const count = cards.children.length;
  ({DROP})(given);
  while (!cards.children[count]?.querySelector(".suggestion")) await frame();
  await frame();
  return performance.now() - window.droppedAt;
}}
"""


@contextmanager
def program(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of ours, until we are done with it."""
    process = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


@contextmanager
def serving() -> Iterator[str]:
    """Where the page is, with all that stands behind it."""
    port, metrics_port, web_port = free_port(), free_port(), free_port()
    address, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{web_port}"
    with ExitStack() as programs:
        flags = f"--port={port}", f"--metrics-port={metrics_port}"
        if not is_ready(address, programs.enter_context(program("services.inference", *flags))):
            raise SystemExit("services.inference did not start")
        where = f"--port={web_port}", f"--server={address}"
        programs.enter_context(program("clients.cli", "web", *where))
        until_alive(url)
        yield url


async def measure(url: str, count: int) -> dict[str, list[float]]:
    """Milliseconds by size; raises where anything was wrong in the page, or moved."""
    found: dict[str, list[float]] = {}
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        for name, (width, height) in SIZES.items():
            pictures = make(width, height, count + 3, seed=len(found) + 1)
            async with opened(browser, url) as page:
                await drop(page, *(File(f"warm-{n}.jpg", pictures.pop()) for n in range(3)))
                await answered(page, 3)
                found[name] = [await waited(page, picture) for picture in pictures]
        await browser.close()
    return found


async def waited(page: Page, picture: bytes) -> float:
    """Milliseconds from a drop to its first suggestion."""
    file = File("photo.jpg", picture)
    took: float = await page.evaluate(TIMED, {"files": [file.as_json()], "texts": {}})
    await page.wait_for_timeout(100)  # people look at what came before they drop the next one
    return took


def row(times: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile, most."""
    return statistics.median(times), statistics.quantiles(times, n=20)[18], max(times)


def main(
    count: Annotated[int, typer.Option(min=2, help="Photographs of each size.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    with serving() as url:
        found = asyncio.run(measure(url, count))
    together = [took for times in found.values() for took in times]
    rows = {name: row(times) for name, times in (*found.items(), ("all", together))}
    table = Table("picture", "n", "median, ms", "95 %, ms", "most, ms")
    for name, figures in rows.items():
        times = found.get(name, together)
        table.add_row(name, str(len(times)), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)
    median, p95, most = rows["all"]
    result: dict[str, Any] = {
        "first_suggestion_ms_p50": round(median, 1),
        "first_suggestion_ms_p95": round(p95, 1),
        "first_suggestion_ms_max": round(most, 1),
        "n": len(together),
        "layout_shift": 0,  # else `opened` had raised
    }
    if output:
        output.write_text(as_markdown(rows, len(found["640x480"]), result))
    print("RESULT", json.dumps(result))


def as_markdown(
    rows: dict[str, tuple[float, float, float]], count: int, result: dict[str, Any]
) -> str:
    """The record of one run."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{p} {version(p)}" for p in ("starlette", "uvicorn", "playwright"))
    lines = [
        "# Page",
        "",
        "`make bench-page`: see the docstring of `tests/bench/page.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores} cores, {cpu_name()}; the browser, the page's server and the service "
        "share them",
        f"- versions: {versions}",
        f"- python: {platform.python_version()}",
        f"- n: {count} different photographs of each size, after 3 to warm up; goal {GOAL_MS} ms",
        "",
        "| picture | median, ms | 95 %, ms | most, ms |",
        "|---|---|---|---|",
        *(f"| {name} | {a:.0f} | {b:.0f} | {c:.0f} |" for name, (a, b, c) in rows.items()),
        "",
        f"    RESULT {json.dumps(result)}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
