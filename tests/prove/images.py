"""`make prove-images`: every image, from nothing but Debian and PyPI, and each of them starts.

As the system tests do it, with what they leave out for time: the starter is made inside, by
PyTorch, and so is the trainer's image. PyPI's PyTorch is for CUDA, so the trainer's image is as
large here as one for GPUs; `make images` takes the one for CPUs from elsewhere.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from clients.client import Client
from clients.demo import is_ready
from services.shared.cores import cores
from services.shared.photographs import installed
from tests.bench.spine import cpu_name
from tests.system.confined import listening, made_volumes, started
from tests.system.images import Store

RESULTS = Path(__file__).parents[1] / "bench/results"
IMAGES = ("inference", "trainer", "crawler", "web")
SERVERS = ("crawler", "trainer", "inference")
COLUMNS = ["image", "MB, uncompressed", "s to build", "s to be ready"]
SECONDS = 120.0
# For the atlas: needs libraries of Debian, beside the packages.
FACES = """
from PIL import Image
from services.trainer import faces
assert faces.treated(Image.new("RGB", (64, 64)), "drop")
"""


def prove(store: Store, folder: Path) -> dict[str, dict[str, Any]]:
    """What each image came to, by its name."""
    found: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    store.make_base()
    found["base"] = {"seconds": time.monotonic() - began}
    for name in IMAGES:
        began = time.monotonic()
        store.build(name)
        found[name] = {"seconds": time.monotonic() - began, "mb": store.mb(name)}
        print(f"{name}: built in {found[name]['seconds']:.0f} s", file=sys.stderr)
    volumes = made_volumes(folder)
    with store.mounted("inference") as image, started(image, "starter", volumes) as copying:
        assert copying.wait(SECONDS) == 0
    with store.mounted("trainer") as image:
        subprocess.run(
            ["chroot", image.root, "python", "-c", FACES], check=True, env=image.environment
        )
    for name in SERVERS:
        address, settings = listening()
        began = time.monotonic()
        with (
            store.mounted(name) as image,
            started(image, name, volumes, **settings) as serving,
        ):
            assert is_ready(address, serving)
            found[name]["ready"] = time.monotonic() - began
            if name == "inference":
                found[name]["said"] = suggested(address)
        assert serving.returncode == 0
    return found


def suggested(address: str) -> str:
    """The first emoji for a cat."""
    cat = next(path for path in installed() if path.name == "chelsea.png")
    with Client(address) as client:
        (result,) = client.suggest([cat.read_bytes()], timeout=10).results
    return result.suggestions.suggestions[0].emoji


def rows(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A line for each image."""
    return [
        [
            name,
            *(f"{told[key]:,.0f}" if key in told else "" for key in ("mb", "seconds")),
            f"{told['ready']:.1f}" if "ready" in told else "",
        ]
        for name, told in found.items()
    ]


def as_markdown(found: dict[str, dict[str, Any]], result: dict[str, Any]) -> str:
    """The record of one run."""
    lines = [
        "# Images",
        "",
        "`make prove-images`: see the docstring of `tests/prove/images.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {cores()} cores, {cpu_name()}; buildah, chroot isolation",
        "- base: Debian 12 by debootstrap; PyTorch from PyPI, which is for CUDA",
        "- n: 1",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in rows(found)),
        "",
        f"    RESULT {json.dumps(result, ensure_ascii=False)}",
        "",
    ]
    return "\n".join(lines)


def main(
    save: Annotated[bool, typer.Option("--save", help="Record the run among the results.")] = False,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        try:
            found = prove(store, Path(folder))
        finally:
            store.buildah("rm", "--all")
            store.buildah("rmi", "--all", "--force")
    table = Table(*COLUMNS)
    for row in rows(found):
        table.add_row(*row)
    Console().print(table)
    result = {
        "mb": {name: told["mb"] for name, told in found.items() if "mb" in told},
        "ready_seconds": {n: round(t["ready"], 1) for n, t in found.items() if "ready" in t},
        "said": found["inference"]["said"],
    }
    if save:
        path = RESULTS / f"{time.strftime('%Y-%m')}_images.md"
        path.write_text(as_markdown(found, result))
    print("RESULT", json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
