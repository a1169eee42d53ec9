"""`make bench-crawl`: what a stored picture costs, beside img2dataset on the same list.

Both fetch the same photographs from the same server in turn, scale them to a shorter edge of 256
pixels, and hash them. What counts is the CPU time of the process and all its children, since one
server feeds both from the same two cores. img2dataset lives in a virtual environment of its own.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import certifi
import psutil
import typer
from rich.console import Console
from rich.table import Table

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from tests.bench.fileserver import FileServer
from tests.crawler.running import Crawler
from tests.photographs import make

SIZES = ((1080, 810), (1350, 1080), (1620, 1080), (1920, 1080))
MOST_BYTES = 150_000  # where less noise brings them there: 230 KB at the mean
IMG2DATASET = "img2dataset==1.47.0"
VENV = Path("data/bench/img2dataset")
LOOK_SECONDS = 0.05


class Cost(NamedTuple):
    """Of one whole run."""

    cpu_seconds: float
    peak_mb: float
    stored: int


class Pair(NamedTuple):
    """CPU milliseconds for a picture, and peaks of memory."""

    ours: float
    theirs: float
    peak_mb: float
    their_peak_mb: float


class Watch(threading.Thread):
    """Adds up the CPU time and memory of a process and its children, those that end included."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process, self._seconds, self._over = process, dict[int, float](), threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        resident = 0
        try:
            tree = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for each in tree:
            try:
                times, memory = each.cpu_times(), each.memory_info()
            except psutil.NoSuchProcess:
                continue
            self._seconds[each.pid] = times.user + times.system
            resident += memory.rss - memory.shared
        self.peak_bytes = max(self.peak_bytes, resident)

    def seconds(self) -> float:
        """CPU time by now."""
        self._look()
        return sum(self._seconds.values())

    def stop(self) -> float:
        self._over.set()
        self.join()
        return self.seconds()


def ours(urls: list[str], ca_file: str, *, hashing: bool = True) -> Cost:
    """Imports the list and fetches it, with robots.txt, limits, journal and all."""
    module = "services.crawler" if hashing else "tests.bench.hashless"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "list.csv"
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "text"])
            rows.writerows([url, f"photograph {n} 🍕"] for n, url in enumerate(urls))
        rules = pb.KeepRules(images_per_emoji=len(urls) + 1)
        source = pb.ImportSource(path=str(table))
        ask = pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT, rules=rules, imported=source)
        data = Path(folder) / "data"
        with Crawler(data, f"--ca-file={ca_file}", module=module) as crawler:
            watch = Watch(psutil.Process(crawler.process.pid))
            watch.start()
            assert crawler.is_up()
            crawl = crawler.crawl(ask)
            seconds = watch.stop()
    assert crawl.state == states.STATE_SUCCEEDED, crawl
    fates = {(count.stage, count.outcome): count.count for count in crawl.funnel.counts}
    return Cost(seconds, watch.peak_bytes / 1e6, fates["image", "stored"])


def theirs(urls: list[str], ca_file: str) -> Cost:
    """img2dataset, set up as well as we know: one process for each core, threads enough."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "list.txt").write_text("\n".join(urls))
        command = [
            *(str(VENV / "bin" / "img2dataset"), f"--url_list={folder}/list.txt"),
            *("--input_format=txt", "--output_format=webdataset", f"--output_folder={folder}/out"),
            *("--image_size=256", "--resize_mode=keep_ratio", "--resize_only_if_bigger=True"),
            *("--encode_quality=95", "--compute_hash=sha256", "--processes_count=2"),
            *("--thread_count=16", f"--number_sample_per_shard={len(urls) // 2 + 1}"),
        ]
        quiet = subprocess.DEVNULL
        # What it trusts is what it always trusts, and our server.
        bundle = Path(folder) / "bundle.pem"
        bundle.write_text(Path(certifi.where()).read_text() + Path(ca_file).read_text())
        environment = os.environ | {"SSL_CERT_FILE": str(bundle)}
        process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
        watch = Watch(psutil.Process(process.pid))
        watch.start()
        if process.wait(900):
            raise RuntimeError(f"img2dataset ended with {process.returncode}")
        seconds = watch.stop()
        stats = [json.loads(path.read_text()) for path in Path(folder).glob("out/*_stats.json")]
    return Cost(seconds, watch.peak_bytes / 1e6, sum(each["successes"] for each in stats))


class Way(NamedTuple):
    """What is compared."""

    key: str
    secure: bool
    hashing: bool


WAYS = (
    Way("http_ratio", False, True),
    Way("https_ratio", True, True),
    Way("http_ratio_no_phash", False, False),
)


def write_pictures(folder: Path, count: int) -> list[str]:
    """Photographs in a folder, by name."""
    names = []
    for seed, (width, height) in enumerate(SIZES):
        made = make(width, height, count // len(SIZES), seed, most_bytes=MOST_BYTES)
        for number, jpeg in enumerate(made):
            names.append(f"{seed}-{number}.jpg")
            (folder / names[-1]).write_bytes(jpeg)
    return names


def install() -> None:
    """img2dataset, which must not meet our own packages."""
    if not (VENV / "bin" / "img2dataset").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(VENV / "bin" / "pip"), "install", "--quiet", IMG2DATASET]
        subprocess.run(pip, check=True)


def each(run: Callable[[int], Cost], lengths: tuple[int, int]) -> tuple[float, float]:
    """CPU milliseconds of a picture, beyond what starting and ending cost; the peak of memory."""
    short, long = (run(length) for length in lengths)
    seconds = (long.cpu_seconds - short.cpu_seconds) / (long.stored - short.stored)
    return 1000 * seconds, max(short.peak_mb, long.peak_mb)


def compare(way: Way, server: FileServer, names: list[str], lengths: tuple[int, int]) -> Pair:
    """Both, one after the other."""
    base = server.https if way.secure else server.http

    def urls(count: int) -> list[str]:
        return [f"{base}/{n}/{names[n % len(names)]}" for n in range(count)]

    own, peak = each(lambda n: ours(urls(n), server.ca_file, hashing=way.hashing), lengths)
    other, other_peak = each(lambda n: theirs(urls(n), server.ca_file), lengths)
    return Pair(own, other, peak, other_peak)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    short: Annotated[int, typer.Option(min=10)] = 200,
    long: Annotated[int, typer.Option(min=20)] = 1000,
    only: Annotated[str, typer.Option(help="One of the ways alone.")] = "",
) -> None:
    """Compares what a picture costs here and in img2dataset."""
    install()
    ways = [way for way in WAYS if only in ("", way.key)]
    found: dict[str, list[Pair]] = {way.key: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        names = write_pictures(Path(folder), 200)
        size = statistics.mean((Path(folder) / name).stat().st_size for name in names)
        with FileServer(Path(folder)) as server:
            for _ in range(rounds):
                for way in ways:
                    found[way.key].append(compare(way, server, names, (short, long)))
    show(found, f"{long:,} photographs of {size / 1000:.0f} KB, {rounds} rounds, {IMG2DATASET}")


def show(found: dict[str, list[Pair]], title: str) -> None:
    """A table for people and a line for programs."""
    table = Table(title=title)
    for column in ("", "ours, ms", "img2dataset, ms", "ratio", "spread", "peak, MB", "its peak"):
        table.add_column(column, justify="right")
    result: dict[str, float] = {}
    for key, pairs in found.items():
        ratios = [pair.theirs / pair.ours for pair in pairs]
        result[key] = round(statistics.median(ratios), 2)
        table.add_row(
            key,
            f"{statistics.median(pair.ours for pair in pairs):.2f}",
            f"{statistics.median(pair.theirs for pair in pairs):.2f}",
            f"{result[key]:.2f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            f"{max(pair.peak_mb for pair in pairs):.0f}",
            f"{max(pair.their_peak_mb for pair in pairs):.0f}",
        )
    result["peak_mb"] = round(max(p.peak_mb for pairs in found.values() for p in pairs))
    Console().print(table)
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
