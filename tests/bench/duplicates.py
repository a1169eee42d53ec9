"""How well near-duplicates are found, and different pictures kept apart.

    python -m tests.bench.duplicates [FOLDER …]

Takes the photographs that packages ship and those in the folders, makes variants of each, and looks
how many come into its cluster. For what must stay apart it cuts them into parts, down to an eighth
of the edge, each in eight positions, up to 100,000 pictures; parts of one photograph may look the
same indeed (a sky, a wall), so that only those of different photographs count as false.
"""

import json
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from services.crawler import duplicates
from services.crawler.prescaled import look, prescaled
from services.shared import photographs, pixels
from services.shared.errors import ImageError

# N pictures

LEAST_PX = 160
LEAST_PART_PX = 90
GRIDS = (1, 2, 3, 4, 6, 8)
COUNT = 100_000
QUALITIES = (50, 70, 95)
SCALES = (0.5, 0.7, 1.4, 2.0)
CROPPED = 0.05  # of the area


def main() -> None:
    """Prints the table and the RESULT line."""
    found = list(photos([Path(name) for name in sys.argv[1:]]))
    result = recall(found) | precision(found)
    table = Table("", f"of {len(found)} photographs")
    for name, value in result.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    print("RESULT", json.dumps(result))


def photos(folders: list[Path]) -> Iterator[Image.Image]:
    """Photographs worth looking at."""
    more = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    for path in [*photographs.installed(), *more]:
        try:
            image = Image.fromarray(pixels.decode(path.read_bytes(), edge_px=640))
        except ImageError:
            continue
        if min(image.size) >= LEAST_PX:
            yield image


def recall(found: list[Image.Image]) -> dict[str, float]:
    """The share of variants that come into the cluster of their original, by kind."""
    seen = [prescaled(_jpeg(image, 92))[2:4] for image in found]
    kinds: list[str] = [""] * len(seen)
    for image in found:
        for kind, variant in variants(image):
            seen.append(prescaled(variant)[2:4])
            kinds.append(kind)
    cluster_N = duplicates.clusters(_hashes([pdq for pdq, _ in seen]), [q for _, q in seen])
    originals_N = np.repeat(np.arange(len(found)), (len(seen) - len(found)) // len(found))
    hits_N = cluster_N[len(found) :] == cluster_N[originals_N]
    names_N = np.array(kinds[len(found) :])
    return {f"recall_{kind}": float(hits_N[names_N == kind].mean()) for kind in np.unique(names_N)}


def variants(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What people make of a picture before they post it again."""
    for quality in QUALITIES:
        yield "jpeg", _jpeg(image, quality)
    for scale in SCALES:
        size = [round(edge * scale) for edge in image.size]
        yield "resize", _jpeg(image.resize((size[0], size[1]), Image.Resampling.LANCZOS), 90)
    margin = (1 - (1 - CROPPED) ** 0.5) / 2
    left, top = (edge * margin for edge in image.size)
    yield "crop", _jpeg(image.crop((left, top, image.width - left, image.height - top)), 90)


def precision(found: list[Image.Image]) -> dict[str, float]:
    """The share of pictures merged with one of another photograph, and what each picture costs."""
    pdqs, qualities, sources = [], [], []
    spent = 0.0
    for source, image in enumerate(found):
        for part in parts(image):
            start = time.process_time()
            pdq, quality = look(np.asarray(part))
            spent += time.process_time() - start
            pdqs.append(pdq)
            qualities.append(quality)
            sources.append(source)
    chosen_N = np.random.default_rng(1).permutation(len(pdqs))[:COUNT]
    hashes_N32, source_N = _hashes(pdqs)[chosen_N], np.array(sources)[chosen_N]
    start = time.process_time()
    cluster_N = duplicates.clusters(hashes_N32, np.array(qualities)[chosen_N])
    search = time.process_time() - start
    pairs = np.unique(np.stack([cluster_N, source_N]), axis=1)  # clusters with their photographs
    mixed = np.flatnonzero(np.bincount(pairs[0]) > 1)
    return {
        "pictures": float(len(chosen_N)),
        "false_merges": float(np.isin(cluster_N, mixed).mean()),
        "hash_ms_each": 1000 * spent / len(pdqs),
        "search_ms_each": 1000 * search / len(chosen_N),
        "ms_each": 1000 * (spent / len(pdqs) + search / len(chosen_N)),
    }


def parts(image: Image.Image) -> Iterator[Image.Image]:
    """A photograph and its parts, in eight positions each."""
    for grid in GRIDS:
        width, height = image.width // grid, image.height // grid
        if min(width, height) < LEAST_PART_PX:
            return
        for left in range(0, width * grid, width):
            for top in range(0, height * grid, height):
                part = image.crop((left, top, left + width, top + height))
                yield part
                yield from (part.transpose(turn) for turn in Image.Transpose)


def _hashes(pdqs: list[bytes]) -> duplicates.Hashes:
    return np.frombuffer(b"".join(pdqs), np.uint8).reshape(-1, 32)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


if __name__ == "__main__":
    main()
