"""`make bench-storage`: the article's table on the same pictures, naive and ours, and beyond it.

The same photographs lie in every form: originals of at least 1080 pixels, prescaled ones in files,
LMDB and shards, raw pixels, features. Naive is what most people begin with: torchvision's
ImageFolder, Pillow, a DataLoader as it comes, once without workers and once with one for each core.
Both sides make the same view, and all of them take turns within each round. The last line is
`RESULT`.
"""

import hashlib
import json
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import lmdb
import numpy as np
import psutil
import simplejpeg
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms  # type: ignore[import-untyped]
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from services.shared import pixels, shards, starter
from services.shared.network import Network
from services.shared.vocabulary import Vocabulary
from services.trainer import samples
from services.trainer.augment import LEAST_AREA
from services.trainer.batches import Batch, Features, Pictures, Source, Targets, batches
from services.trainer.order import Pick
from services.trainer.recipe import Augment
from services.trainer.samples import Samples
from tests.photographs import make

SIZES = ((1440, 1080), (1920, 1080), (1920, 1440), (2048, 1536))
ARTICLE_MS = {
    "LMDB, JPEG": 1681.84,
    "LMDB, raw": 1683.32,
    "files, prescaled": 1682.05,
    "files, original": 1918.49,
}
EMOJI = ("🍕", "🐕")
VIEW = starter.PREPROCESSING
ARTICLE_BATCH, BATCH = 256, 64
THREADS = len(os.sched_getaffinity(0))
FEATURES = 1280
WIDTH = 140  # of the tables, also where nobody looks
HEAD = struct.Struct("<II")
LOADED_SECONDS, STEPPED_SECONDS = 0.8, 1.0

Passes = Callable[[], Iterator[Any]]  # endless batches


class Form(NamedTuple):
    """A way to keep pictures, and how each side reads it."""

    name: str
    stored_bytes: float
    """Of a picture, at the mean."""
    ours: Source
    naive: torch.utils.data.Dataset[Any] | None


class Loader(NamedTuple):
    """What is timed."""

    form: str
    side: str
    view: Augment
    passes: Passes


# -- the pictures in every form -------------------------------------------------------------------


class Lmdb:
    """Samples of an LMDB by number; also naive, as a data set of torch."""

    def __init__(self, path: Path, contents: Sequence[bytes], to_image: Callable[[bytes], Any]):
        self._environment = lmdb.open(str(path), map_size=sum(map(len, contents)) * 2 + 2**20)
        with self._environment.begin(write=True) as transaction:
            for number, content in enumerate(contents):
                transaction.put(b"%08d" % number, content)
        self.keys = [hashlib.sha256(content).hexdigest() for content in contents]
        self.classes = [(number % len(EMOJI),) for number in range(len(contents))]
        self._to_image, self._transform = to_image, plain()

    def read(self, number: int) -> bytes:
        with self._environment.begin() as transaction:
            content: bytes = transaction.get(b"%08d" % number)  # type: ignore[assignment]
            return content

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Any:
        image = self._to_image(self.read(number))
        return self._transform(image), self.classes[number][0]


class Raw:
    """Batches of cuts from pixels that need no decoding."""

    def __init__(self, image: Callable[[int], np.ndarray], classes: Sequence[tuple[int, ...]]):
        self._image, self._targets = image, Targets(classes, len(EMOJI))
        self._pool = ThreadPoolExecutor(THREADS)

    def load(self, picks: Sequence[Pick]) -> Batch:
        x_BHWC = np.empty((len(picks), VIEW.size_px, VIEW.size_px, 3), np.uint8)

        def put(row: int) -> None:
            image_HW3 = self._image(picks[row].number)
            top, left = ((edge - VIEW.size_px) // 2 for edge in image_HW3.shape[:2])
            x_BHWC[row] = image_HW3[top : top + VIEW.size_px, left : left + VIEW.size_px]

        list(self._pool.map(put, range(len(picks))))
        numbers_B = np.array([pick.number for pick in picks])
        return Batch(torch.from_numpy(x_BHWC), self._targets.of(numbers_B), numbers_B)


def forms(folder: Path, originals: list[bytes]) -> list[Form]:
    """Every form of the pictures, written into the folder."""
    prescaled = [pixels.prescale(content) for content in originals]
    raw = [pixels.decode(content) for content in prescaled]
    packed = [HEAD.pack(*image.shape[:2]) + image.tobytes() for image in raw]
    jpeg = Lmdb(folder / "jpeg", prescaled, opened)
    pixel = Lmdb(folder / "raw", packed, lambda content: Image.fromarray(unpacked(content)))
    squares_NHW3 = mapped(folder / "raw.npy", np.stack([square(image) for image in raw]))
    draw = np.random.default_rng(0)
    features_NF = mapped(folder / "f.npy", draw.random((len(raw), FEATURES), np.float32))
    labels = torch.tensor([own[0] for own in jpeg.classes])

    def size(contents: Iterable[bytes]) -> float:
        return statistics.mean(map(len, contents))

    return [
        Form("LMDB, JPEG", size(prescaled), pictures(jpeg), jpeg),
        Form(
            "LMDB, raw",
            size(packed),
            Raw(lambda number: unpacked(pixel.read(number)), pixel.classes),
            pixel,
        ),
        files("files, prescaled", folder / "prescaled", prescaled),
        files("files, original", folder / "originals", originals),
        Form("shards", size(prescaled), pictures(sharded(folder / "shards", prescaled)), None),
        Form(
            "raw, mapped",
            squares_NHW3[0].nbytes,
            Raw(lambda n: squares_NHW3[n], jpeg.classes),
            None,
        ),
        Form(
            "features",
            features_NF[0].nbytes,
            Features(features_NF, jpeg.classes, len(EMOJI)),
            TensorDataset(torch.from_numpy(np.array(features_NF)), labels),
        ),
    ]


def files(name: str, folder: Path, contents: list[bytes]) -> Form:
    """A file each, in the folders of their emoji."""
    for number, content in enumerate(contents):
        path = folder / "train" / shards.folder_name(EMOJI[number % len(EMOJI)])
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{hashlib.sha256(content).hexdigest()}.jpg").write_bytes(content)
    found = samples.opened(folder, "train", samples.vocabulary(folder))
    naive = ImageFolder(str(folder / "train"), plain())
    return Form(name, statistics.mean(map(len, contents)), pictures(found), naive)


def sharded(folder: Path, contents: list[bytes]) -> Samples:
    """A data set version with them."""
    (folder / shards.SHARDS).mkdir(parents=True)
    writer = shards.ShardWriter(folder)
    for number, content in enumerate(contents):
        place = number % len(EMOJI)
        key = hashlib.sha256(content).hexdigest()
        writer.add("train", shards.Sample(key, content, [EMOJI[place]]), [place])
    writer.close()
    said = {"format": shards.FORMAT, "name": "bench", "files": writer.files}
    (folder / shards.DATASET).write_bytes(shards.sealed(said))
    shards.write_excluded(folder, ())
    return samples.opened(folder, "train", Vocabulary(EMOJI, (0, 0)))


def pictures(found: Samples, view: Augment = Augment.NONE) -> Pictures:
    return Pictures(found, VIEW, len(EMOJI), augment=view, threads=THREADS)


def mapped(path: Path, array: np.ndarray) -> np.ndarray:
    np.save(path, array)
    kept: np.ndarray = np.load(path, mmap_mode="r")
    return kept


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content)).convert("RGB")


def unpacked(content: bytes) -> np.ndarray:
    height, width = HEAD.unpack_from(content)
    return np.frombuffer(content, np.uint8, offset=HEAD.size).reshape(height, width, 3)


def square(image_HW3: np.ndarray) -> np.ndarray:
    edge = min(image_HW3.shape[:2])
    top, left = ((side - edge) // 2 for side in image_HW3.shape[:2])
    return image_HW3[top : top + edge, left : left + edge]


def plain() -> Any:
    """The view that evaluation has, as torchvision's examples make it."""
    edge_px = round(VIEW.size_px / VIEW.crop)
    cut = [transforms.Resize(edge_px), transforms.CenterCrop(VIEW.size_px)]
    return transforms.Compose([*cut, *_in_floats()])


def trained() -> Any:
    """The view that training has."""
    part = transforms.RandomResizedCrop(VIEW.size_px, scale=(LEAST_AREA, 1))
    return transforms.Compose([part, transforms.RandomHorizontalFlip(), *_in_floats()])


def _in_floats() -> list[Any]:
    return [transforms.ToTensor(), transforms.Normalize(VIEW.mean, VIEW.std)]


# -- who is timed ---------------------------------------------------------------------------------


def ours(source: Source, count: int) -> Passes:
    def passes() -> Iterator[Batch]:
        numbers = chain.from_iterable(repeat(range(0, count, BATCH)))
        picks = (
            [Pick(number, turn) for number in range(first, min(first + BATCH, count))]
            for turn, first in enumerate(numbers)
        )
        return batches(source, picks)

    return passes


def naive(dataset: Any, workers: int) -> Passes:
    loader: Any = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: chain.from_iterable(repeat(loader))


def loaders(every: list[Form], count: int) -> Iterator[Loader]:
    """All that load; those with workers only where anybody would use them."""
    for form in every:
        yield Loader(form.name, "ours", Augment.NONE, ours(form.ours, count))
        if form.naive is not None:
            yield Loader(form.name, "naive", Augment.NONE, naive(form.naive, 0))
        if isinstance(form.naive, ImageFolder):
            yield Loader(form.name, "naive, workers", Augment.NONE, naive(form.naive, THREADS))
            varied = ImageFolder(form.naive.root, trained())
            yield Loader(form.name, "naive", Augment.CROP, naive(varied, 0))
            yield Loader(form.name, "naive, workers", Augment.CROP, naive(varied, THREADS))
        if isinstance(form.ours, Pictures) and not form.name.startswith("LMDB"):
            source = pictures(form.ours._samples, Augment.CROP)
            yield Loader(form.name, "ours", Augment.CROP, ours(source, count))


class Model:
    """A frozen network with a head that learns: the least that a training step may cost."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Network(starter.IMAGENET, VIEW, len(EMOJI)).eval()
        self.net.to(memory_format=torch.channels_last)
        self.head = torch.nn.Linear(FEATURES, len(EMOJI))
        self._optimizer = torch.optim.SGD(self.head.parameters(), 1e-3)

    def step(self, batch: Any) -> None:
        """One step on a batch of either side: ours in bytes, naive in floats."""
        x, y = batch[0], batch[1]
        if x.ndim == 4:
            with torch.inference_mode():
                if x.dtype == torch.uint8:
                    x = (x.float() / 255 - self.net.mean_C) / self.net.std_C
                    x = x.permute(0, 3, 1, 2)
                x = self.net.backbone(x).mean((2, 3))
            x = x.clone()
        loss = torch.nn.functional.cross_entropy(self.head(x), y)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


# -- timing ---------------------------------------------------------------------------------------


class Rates(NamedTuple):
    """Of one turn."""

    images: float
    """A second."""
    wait_share: float
    peak_mb: float


def run(passes: Passes, seconds: float, step: Callable[[Any], None] | None = None) -> Rates:
    """Loads, and steps, for so long; the first batch, for which workers start, is not timed."""
    found = passes()
    first = next(found)
    if step:
        step(first)
    before = reset_peak()
    count, waited, began = 0, 0.0, time.perf_counter()
    while (asked := time.perf_counter()) - began < seconds:
        batch = next(found)
        waited += time.perf_counter() - asked
        count += len(batch[0])
        if step:
            step(batch)
    elapsed = time.perf_counter() - began
    del found
    return Rates(count / elapsed, waited / elapsed, max(0.0, peak_mb() - before))


def reset_peak() -> float:
    """Has the kernel forget the peak of our memory; what we take now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss / 2**20


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def bare(contents: list[bytes], seconds: float) -> float:
    """How many JPEGs a second the decoder alone does, from memory, in as many threads."""
    began = time.perf_counter()
    todo = chain.from_iterable(repeat(contents))  # shared: each thread takes the next

    def decode() -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            simplejpeg.decode_jpeg(next(todo))
            done += 1
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(each.result() for each in [pool.submit(decode) for _ in range(THREADS)])
    return done / (time.perf_counter() - began)


ORIGINAL, PRESCALED = "files, original", "files, prescaled"


class Found:
    """All figures of all rounds."""

    def __init__(self) -> None:
        self.loaded: dict[tuple[str, str, Augment], list[Rates]] = {}
        self.stepped: dict[tuple[str, str, Augment], list[Rates]] = {}
        self.bare: list[float] = []
        self.model: list[float] = []

    def rate(self, form: str, side: str, view: Augment = Augment.NONE) -> float:
        """Images a second; of the naive sides, the faster one."""
        sides = ("naive", "naive, workers") if side == "naive" else (side,)
        found = [self.loaded[key] for s in sides if (key := (form, s, view)) in self.loaded]
        return max(statistics.median(each.images for each in rates) for rates in found)

    def undecorated(self, form: str) -> float:
        return statistics.median(each.images for each in self.loaded[form, "naive", Augment.NONE])


def measure(every: list[Form], prescaled: list[bytes], rounds: int, report: Console) -> Found:
    found, model = Found(), Model()
    timed = list(loaders(every, len(prescaled)))
    square_batch = next(timed[0].passes())
    for number in range(rounds):
        report.print(f"round {number + 1} of {rounds}", highlight=False)
        found.bare.append(bare(prescaled, LOADED_SECONDS))
        began = time.perf_counter()
        for _ in range(3):
            model.step(square_batch)
        found.model.append(3 * len(square_batch[0]) / (time.perf_counter() - began))
        for loader in timed:
            key = loader.form, loader.side, loader.view
            found.loaded.setdefault(key, []).append(run(loader.passes, LOADED_SECONDS))
            if loader.view == Augment.NONE and loader.side != "naive, workers":
                stepped = run(loader.passes, STEPPED_SECONDS, model.step)
                found.stepped.setdefault(key, []).append(stepped)
    return found


# -- what is said ---------------------------------------------------------------------------------


def spread(values: Iterable[float]) -> str:
    known = list(values)
    return f"{statistics.median(known):,.0f} ({min(known):,.0f}-{max(known):,.0f})"


def print_tables(found: Found, every: list[Form], console: Console) -> None:
    sizes = {form.name: form.stored_bytes for form in every}
    table = Table(
        *("kept as", "who", "KB each", "loader, images/s", "both, images/s", "waiting"),
        *("peak, MB", f"both, ms/{ARTICLE_BATCH}", "article, ms"),
    )
    for (form, side, view), rates in found.loaded.items():
        if view == Augment.NONE:
            both = found.stepped.get((form, side, view))
            speed = statistics.median(each.images for each in both) if both else 0
            table.add_row(
                form,
                side,
                f"{sizes[form] / 1000:.1f}",
                spread(each.images for each in rates),
                spread(each.images for each in both) if both else "",
                f"{statistics.median(each.wait_share for each in both):.0%}" if both else "",
                f"{max(each.peak_mb for each in rates):.0f}",
                f"{1000 * ARTICLE_BATCH / speed:,.0f}" if both else "",
                f"{ARTICLE_MS.get(form, '')}" if side == "ours" else "",
            )
    console.print(table)
    console.print(f"bare decoding of the prescaled: {spread(found.bare)} images/s")
    console.print(f"model alone: {spread(found.model)} images/s")
    table = Table("with random crop and flip", "who", "loader, images/s")
    for (form, side, view), rates in found.loaded.items():
        if view == Augment.CROP:
            table.add_row(form, side, spread(each.images for each in rates))
    console.print(table)


def result(found: Found) -> dict[str, Any]:
    """Ratios to the DataLoader as it comes, which has no workers; beside them, to its better self,
    and with another view each time.
    """
    plain, better = (
        {form: side(form) for form in (ORIGINAL, PRESCALED)}
        for side in (found.undecorated, lambda form: found.rate(form, "naive"))
    )
    crop = {form: found.rate(form, "naive", Augment.CROP) for form in (ORIGINAL, PRESCALED)}
    return {
        **ratios(found, plain),
        "beside_workers": ratios(found, better),
        "with_crop": ratios(found, crop, Augment.CROP),
    }


def ratios(found: Found, naive: dict[str, float], view: Augment = Augment.NONE) -> dict[str, float]:
    """Of our loader to these rates of the naive one, and to bare decoding."""
    ours = {form: found.rate(form, "ours", view) for form in (ORIGINAL, PRESCALED, "shards")}
    return {
        "originals_ratio": round(ours[ORIGINAL] / naive[ORIGINAL], 2),
        "shards_ratio": round(ours["shards"] / naive[ORIGINAL], 1),
        "prescaled_ratio": round(ours[PRESCALED] / naive[PRESCALED], 2),
        "decode_share": round(ours[PRESCALED] / statistics.median(found.bare), 3),
    }


def main(
    count: Annotated[int, typer.Option(min=8, help="Photographs.")] = 64,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Prints tables, and as the last line RESULT with the figures as JSON."""
    console = Console(width=WIDTH)
    each = -(-count // len(SIZES))
    originals = [jpeg for n, size in enumerate(SIZES) for jpeg in make(*size, each, seed=n)]
    with tempfile.TemporaryDirectory() as folder:
        every = forms(Path(folder), originals)
        prescaled = [pixels.prescale(content) for content in originals]
        found = measure(every, prescaled, rounds, console)
    print_tables(found, every, console)
    print("RESULT", json.dumps(result(found)))


if __name__ == "__main__":
    typer.run(main)
