"""`make bench-decode`: our way from a file to the model's square, beside other ways to it.

One process, one thread, so that a rate is that of one core; all ways take turns within each round.
Then how often the first place of the starter is the same when a photograph is decoded at a scale,
as we do it, and when all of it is decoded: on photographs whose shorter edge has at least
512 pixels, since smaller ones are decoded whole.

    python -m tests.bench.decode [data/photos …]

looks for photographs in the folders as well as in installed packages. The last line is `RESULT`.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import simplejpeg
import torch
import torchvision  # type: ignore[import-untyped]
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import InterpolationMode, v2  # type: ignore[import-untyped]

from services.shared import header, photographs, pixels
from services.shared.exported import open_exported
from services.shared.model import Model
from tests.bench.spine import cpu_name, looks
from tests.bench.textbook import cut, textbook
from tests.photographs import make

RESULTS = Path(__file__).parent / "results"
SIZES = {"640x480": ((640, 480),), "2-4 MP": ((1632, 1224), (2304, 1728))}
SIZE_PX, FRACTION, EDGE_PX = 224, 0.875, 256
SCALED_FROM_PX = 512  # half of it is what the model's square is cut from
QUALITY = 90
MARGIN, GATE = 0.20, 0.95

Way = Callable[[bytes], np.ndarray]


def ours(content: bytes) -> np.ndarray:
    return pixels.crop(pixels.decode(content, edge_px=EDGE_PX))[0]


def unscaled(content: bytes) -> np.ndarray:
    """As ours, but for the scale at which a JPEG is decoded."""
    return pixels.crop(pixels.decode(content, edge_px=pixels.MAX_JPEG_EDGE_PX))[0]


def draft(content: bytes) -> np.ndarray:
    """Pillow, which lets libjpeg scale."""
    image = Image.open(BytesIO(content))
    image.draft("RGB", (EDGE_PX, EDGE_PX))
    return cut(image, SIZE_PX, FRACTION)


def full(content: bytes) -> np.ndarray:
    """simplejpeg, all of the picture; scaled and cut as we do it."""
    return pixels.crop(simplejpeg.decode_jpeg(content))[0]


SCALE = v2.Compose(
    [v2.Resize(EDGE_PX, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(SIZE_PX)]
)


def tensors(content: bytes) -> np.ndarray:
    """torchvision, which a broken file can crash."""
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    square: np.ndarray = SCALE(torchvision.io.decode_jpeg(data)).numpy()
    return square.transpose(1, 2, 0)


WAYS: dict[str, Way] = {
    "ours": ours,
    "Pillow, textbook": textbook,
    "Pillow, draft": draft,
    "simplejpeg, full": full,
    "torchvision": tensors,
}


def per_second(way: Way, pictures: Sequence[bytes], seconds: float) -> float:
    """Images a second."""
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        way(pictures[count % len(pictures)])
        count += 1
    return count / took


def measured(rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Images a second by size and way, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, sizes in SIZES.items():
        pictures = [picture for size in sizes for picture in make(*size, 6)]
        for way in WAYS.values():
            if way(pictures[0]).shape != (SIZE_PX, SIZE_PX, 3):
                raise AssertionError(f"{way} makes another square")
        found[name] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for known, work in WAYS.items():
                found[name][known].append(per_second(work, pictures, seconds))
    return found


class Agreement(NamedTuple):
    """Of first places, scaled against whole."""

    share: float
    clear_share: float
    """Where the whole one leads by at least `MARGIN`."""
    photographs: int
    clear: int


def agreement(model: Model, jpegs: Sequence[bytes]) -> Agreement:
    """Compares our decode with one of all of the picture, upright and cut in the same way."""
    look = open_exported(model, "exact")

    def beliefs(way: Way) -> np.ndarray:
        return np.concatenate([model.probabilities(look(way(jpeg)[None])[0]) for jpeg in jpegs])

    whole, scaled = beliefs(unscaled), beliefs(ours)
    agrees = whole.argmax(1) == scaled.argmax(1)
    first_two = np.sort(whole, axis=1)[:, -2:]
    clear = first_two[:, 1] - first_two[:, 0] >= MARGIN
    return Agreement(
        float(agrees.mean()), float(agrees[clear].mean()), len(jpegs), int(clear.sum())
    )


def large_photographs(folders: Sequence[Path]) -> Iterator[bytes]:
    """As JPEG: what is none becomes one."""
    there = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    for path in (*photographs.installed(), *there):
        content = path.read_bytes()
        found = header.read(content)
        if found is None or min(found.width, found.height) < SCALED_FROM_PX:
            continue
        if found.format != "JPEG":
            whole = pixels.decode(content, edge_px=max(found.width, found.height))
            content = pixels.jpeg(whole, quality=QUALITY)
        yield content


def show(found: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """The rows of the table, which is printed."""
    rows = []
    for size, ways in found.items():
        base = statistics.median(ways["ours"])
        for way, rates in ways.items():
            middle = statistics.median(rates)
            figures = (f"{rate:.0f}" for rate in (middle, min(rates), max(rates)))
            rows.append([size, way, *figures, f"{base / middle:.2f}"])
    table = Table(*COLUMNS, box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return rows


COLUMNS = ("pictures", "way", "images/s", "least", "most", "ours over it")


def main(
    folders: Annotated[list[Path] | None, typer.Argument(help="Where photographs lie.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each way in a round.")] = 1.5,
    output: Annotated[Path | None, typer.Option(help="Where to record the run.")] = None,
) -> None:
    """Prints a table, and as the last line RESULT with the figures as JSON."""
    torch.set_num_threads(1)
    found = measured(rounds, seconds)
    rows = show(found)
    agreed = agreement(looks(), list(large_photographs(folders or [])))
    result: dict[str, float] = {}
    for key, size in (("small", "640x480"), ("large", "2-4 MP")):
        middle = {way: statistics.median(rates) for way, rates in found[size].items()}
        result[f"{key}_images_per_second"] = round(middle["ours"], 1)
        result[f"{key}_textbook_ratio"] = round(middle["ours"] / middle["Pillow, textbook"], 2)
        best = max(rate for way, rate in middle.items() if way != "ours")
        result[f"{key}_best_other_ratio"] = round(middle["ours"] / best, 2)
    result |= {
        "agreement": round(agreed.share, 4),
        "clear_agreement": round(agreed.clear_share, 4),
        "photographs": agreed.photographs,
        "clear_photographs": agreed.clear,
        "passes": int(agreed.share >= GATE and agreed.clear_share == 1),
        "rounds": rounds,
    }
    path = output or RESULTS / f"{time.strftime('%Y-%m')}_decode.md"
    path.write_text(as_markdown(rows, agreed, rounds, seconds, result))
    print("RESULT", json.dumps(result))


def as_markdown(
    rows: list[list[str]],
    agreed: Agreement,
    rounds: int,
    seconds: float,
    result: dict[str, float],
) -> str:
    """The record of one run."""
    packages = ("pillow", "simplejpeg", "torchvision", "numpy")
    lines = [
        "# Decode",
        "",
        "`make bench-decode`: see the docstring of `tests/bench/decode.py`.",
        "",
        f"- date: {time.strftime('%Y-%m-%d')}",
        f"- machine: {len(os.sched_getaffinity(0))} cores, {cpu_name()}; one is used",
        f"- versions: {', '.join(f'{p} {version(p)}' for p in packages)}",
        f"- python: {platform.python_version()}",
        f"- n: {rounds} rounds of {seconds:g} s for each way, medians",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"First places, our decode against one of all of the picture: {agreed.share:.3f} of "
        f"{agreed.photographs} photographs; where the lead is at least {MARGIN:.2f}, "
        f"{agreed.clear_share:.3f} of {agreed.clear}. The gate asks for {GATE} and 1.0.",
        "",
        f"    RESULT {json.dumps(result)}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
