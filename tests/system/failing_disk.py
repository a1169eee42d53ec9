"""Fails every write of the crawler's state once, in a process of its own: see its test.

`python -m tests.system.failing_disk FOLDER ERRNO` has to run with libfiu's preloads, which stand
between the process and the C library. It prints how many writes there were to fail, and how many
of them the crawl was told of: SQLite gets over some by itself.
"""

import ctypes
import shutil
import sqlite3
import sys
from collections import Counter
from itertools import count
from pathlib import Path

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.database import Database
from services.crawler.frontier import Fate, Frontier, Sample
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.crawler.store import Store
from services.shared.errors import StorageFailed

CRAWL, PAGES = "collect", 4
POINTS = (
    *("posix/io/rw/write", "posix/io/rw/pwrite", "posix/io/sync/fsync", "posix/io/sync/fdatasync"),
    *("posix/io/rw/truncate", "posix/io/rw/ftruncate", "posix/io/dir/rename"),
)
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)


class Disk:
    """Lets the n-th write fail, and counts them."""

    def __init__(self, errno: int) -> None:
        self._fiu = ctypes.CDLL("libfiu.so.0")
        self._fiu.fiu_init(0)
        self._errno, self.fails_at, self.writes = errno, 0, 0
        self._callback = CALLBACK(self._write)  # libfiu does not hold it

    def _write(self, *_: object) -> int:
        self.writes += 1
        return int(self.writes == self.fails_at)

    def __enter__(self) -> None:
        self.writes = 0
        for point in POINTS:
            errno = ctypes.c_void_p(self._errno)
            self._fiu.fiu_enable_external(point.encode(), 1, errno, 0, self._callback)

    def __exit__(self, *_: object) -> None:
        for point in POINTS:
            self._fiu.fiu_disable(point.encode())


def crawl(folder: Path) -> None:
    """As a crawl does it: from where it stands to its end."""
    database, store = Database(folder / "state.sqlite"), Store(folder / "images")
    try:
        frontier = Frontier(database)
        if not frontier.crawls():
            frontier.create(CRAWL, pb.StartCrawlRequest(mode=pb.CRAWL_MODE_COLLECT))
        for page in range(int(frontier.cursor(CRAWL)[0] or 0), PAGES):
            with frontier.transaction():
                frontier.add(CRAWL, kept(page))
                frontier.advance(CRAWL, str(page + 1), Counter(kept=1))
        for queued in frontier.fresh(CRAWL, "x.y", 0, PAGES):
            sample = Sample(bytes([queued.id]) * 32, bytes(32), 50, 640, 480)
            store.put(sample.sha256, b"jpeg" * 1000)
            with frontier.transaction():
                frontier.settle(CRAWL, [Fate(queued.id, sample=sample)])
    finally:
        database.close()


def kept(page: int) -> Kept:
    mentions = [Mention("🍕", Where.TEXT)]
    images = [PostImage(f"https://x.y/{page}.jpg")]
    return Kept("import", str(page), b"author", 0.0, "", mentions, [], [], images)


def state(folder: Path) -> tuple[object, ...]:
    """All that a crawl has found."""
    with sqlite3.connect(folder / "state.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = [
            connection.execute(query).fetchall()
            for query in (
                "SELECT cursor FROM crawl",
                "SELECT uri FROM post ORDER BY uri",
                "SELECT url, state, sha256 FROM image ORDER BY url",
                "SELECT * FROM sample ORDER BY sha256",
                "SELECT * FROM tally ORDER BY stage, outcome",
                "SELECT * FROM emoji_count",
                "SELECT * FROM author_count",
            )
        ]
    connection.close()
    files = {path.name: path.read_bytes() for path in (folder / "images").glob("*/*")}
    return (*tables, files)


def prove(folder: Path, errno: int) -> tuple[int, int]:
    """Fails the first write, the second, … until there is none left to fail; the two counts."""
    crawl(folder / "whole")
    whole, disk, told = state(folder / "whole"), Disk(errno), list[str]()
    for number in count(1):
        disk.fails_at, victim = number, folder / "victim"
        with disk:
            try:
                crawl(victim)
            except StorageFailed as failure:
                told.append(str(failure))
        if disk.writes < number:
            assert all(str(victim) in each for each in told), told
            return number - 1, len(told)
        crawl(victim)  # there is room again
        assert state(victim) == whole, f"write {number}"
        shutil.rmtree(victim)
    raise AssertionError


if __name__ == "__main__":
    print(*prove(Path(sys.argv[1]), int(sys.argv[2])))
