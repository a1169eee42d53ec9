"""Content that was taken down: it goes at once, and it never comes back.

What is remembered of it is a post's address, an author's keyed hash, and how its pictures look: the
digest of their bytes, and their perceptual hash, so that a copy that somebody else posts, or that
a file of the user's own brings in again, is known for what it is.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from services.crawler import dataset, duplicates
from services.crawler.database import Database
from services.crawler.duplicates import LEAST_QUALITY, Hashes
from services.crawler.keep import Verdict
from services.crawler.store import Store
from services.shared import faults
from services.shared.errors import BadDataset

log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """What one taking down took away."""

    images: int = 0
    samples: int = 0
    datasets: Sequence[str] = ()
    failures: Sequence[BadDataset] = ()
    """Of data sets that are damaged; they are looked at again the next time."""


class Removals:
    """The memory of what was taken down, and the hand that takes it away."""

    def __init__(self, database: Database, store: Store, datasets: Path) -> None:
        self._database, self._store, self._datasets = database, store, datasets
        self._looks = self._known_looks()

    # -- what is known to be removed --------------------------------------------------------------

    def verdict(self, source: str, uri: str, author: bytes) -> Verdict | None:
        """Why a post may not be taken: it or its author was removed, or the author opted out."""
        row = self._database.row(
            "SELECT max(kind) FROM removed WHERE source = ?1 AND "
            "(kind = 'post' AND key = ?2 OR kind IN ('author', 'opted_out') AND key = ?3)",
            source,
            uri.encode(),
            author or None,
        )
        if not row or not row[0]:
            return None
        return Verdict.REMOVED if row[0] in ("post", "author") else Verdict.OPTED_OUT

    def has_image(self, sha256: bytes) -> bool:
        """Whether exactly these bytes were taken down."""
        return bool(
            self._database.row(
                "SELECT 1 FROM removed WHERE kind = 'image' AND source = '' AND key = ?", sha256
            )
        )

    def has_look(self, pdq: bytes, quality: int) -> bool:
        """Whether a picture looks like one that was taken down."""
        return quality >= LEAST_QUALITY and bool(duplicates.near(self._looks, pdq).any())

    def _known_looks(self) -> Hashes:
        rows = self._database.rows("SELECT key FROM removed WHERE kind = 'look' ORDER BY key")
        return _hashes(rows)

    # -- taking down ------------------------------------------------------------------------------

    def remove_post(self, source: str, uri: str, *, forever: bool = True) -> None:
        """Takes a post down; this and the next three belong in a transaction, before `apply`."""
        posts = self._database.rows("SELECT id FROM post WHERE source = ? AND uri = ?", source, uri)
        if forever:
            self._remember("post", source, uri.encode())
        self._forget(posts, forever=forever)

    def remove_author(self, source: str, author: bytes) -> None:
        """Takes all posts of an author down, by the author's hash."""
        self._remember("author", source, author)
        self._forget(self._posts_of(source, author))

    def opt_out(self, source: str, author: bytes, *, allow: bool) -> None:
        """Takes all posts of an author out until the author allows it again."""
        if allow:
            self._database.run(
                "DELETE FROM removed WHERE kind = 'opted_out' AND source = ? AND key = ?",
                source,
                author,
            )
        else:
            self._remember("opted_out", source, author)
            self._forget(self._posts_of(source, author), forever=False)

    def remove_image(self, sha256: bytes) -> None:
        """Takes a picture down, and all that look like it."""
        self._take_away([sha256], forever=True)

    def has_posts(self, source: str, uri: str) -> bool:
        """Whether any crawl keeps the post: most that a stream deletes, none does."""
        return bool(
            self._database.row("SELECT 1 FROM post WHERE source = ? AND uri = ?", source, uri)
        )

    def _posts_of(self, source: str, author: bytes) -> list[tuple[int]]:
        return self._database.rows(
            "SELECT id FROM post WHERE source = ? AND author = ?", source, author
        )

    def _remember(self, kind: str, source: str, key: bytes) -> None:
        self._database.run("INSERT OR IGNORE INTO removed VALUES (?, ?, ?)", kind, source, key)

    def _forget(self, posts: Iterable[tuple[int]], *, forever: bool = True) -> None:
        """Deletes posts with everything that only they have."""
        digests: set[bytes] = set()
        for (post,) in posts:
            rows = self._database.rows(
                "SELECT image.id, sha256 FROM shown JOIN image ON image.id = image WHERE post = ?",
                post,
            )
            digests.update(sha256 for _, sha256 in rows if sha256)
            self._database.run("DELETE FROM shown WHERE post = ?", post)
            self._database.run("DELETE FROM post WHERE id = ?", post)
            for image, _ in rows:
                self._database.run(
                    "DELETE FROM image WHERE id = ?1 "
                    "AND NOT EXISTS (SELECT 1 FROM shown WHERE image = ?1)",
                    image,
                )
        if not forever:  # others may show the same, and their posts stay
            digests = {sha256 for sha256 in digests if not self._is_shown(sha256)}
        self._take_away(sorted(digests), forever=forever)

    def _is_shown(self, sha256: bytes) -> bool:
        return bool(self._database.row("SELECT 1 FROM image WHERE sha256 = ?", sha256))

    def _take_away(self, digests: Sequence[bytes], *, forever: bool) -> None:
        """Deletes pictures, with those that look like them where they shall never come back."""
        alike = self._alike(digests) if forever else set()
        for sha256 in sorted(alike.union(digests)):
            if forever:
                self._remember("image", "", sha256)
            self._database.run("DELETE FROM sample WHERE sha256 = ?", sha256)
            self._database.run("UPDATE image SET state = 2, sha256 = NULL WHERE sha256 = ?", sha256)
            self._database.run("UPDATE member SET excluded = 1 WHERE sha256 = ?", sha256)
            self._database.run("INSERT OR IGNORE INTO trash VALUES (?)", sha256)

    def _alike(self, digests: Sequence[bytes]) -> set[bytes]:
        looks = [
            row[0]
            for sha256 in digests
            if (
                row := self._database.row(
                    "SELECT pdq FROM sample WHERE sha256 = ? AND quality >= ?",
                    sha256,
                    LEAST_QUALITY,
                )
            )
        ]
        if not looks:
            return set()
        for pdq in looks:
            self._remember("look", "", pdq)
        rows = self._database.rows(
            "SELECT pdq, sha256 FROM sample WHERE quality >= ?", LEAST_QUALITY
        )
        known = _hashes(rows)
        near = np.logical_or.reduce([duplicates.near(known, pdq) for pdq in looks])
        return {rows[index][1] for index in np.flatnonzero(near)}

    def apply(self) -> Removed:
        """Excludes from data sets and deletes files what was taken down, after the transaction.

        Also at the start of a service: the process may have died in between.
        """
        faults.point("removal-stored")
        self._looks = self._known_looks()
        excluded: dict[str, set[str]] = {}
        for name, key in self._database.rows("SELECT dataset, key FROM member WHERE excluded = 1"):
            excluded.setdefault(name, set()).add(key)
        touched, failures = dict[str, int](), []
        for name, keys in sorted(excluded.items()):
            try:
                touched[name] = dataset.exclude(self._datasets / name, keys)
            except BadDataset as failure:  # which must not keep the rest from going
                log.error("%s: cannot be rid of what was taken down: %s", name, failure)
                failures.append(failure)
        faults.point("removal-applied")
        names = [name for name, new in touched.items() if new]
        return Removed(self._empty_trash(), sum(touched.values()), names, failures)

    def sweep(self) -> None:
        """Deletes files that no row knows: of pictures in hand when the last process died."""
        for sha256 in self._store.names():
            if not self._database.row("SELECT 1 FROM sample WHERE sha256 = ?", sha256):
                self._store.remove(sha256)

    def _empty_trash(self) -> int:
        """Deletes the files of pictures that are gone, and have not come back meanwhile."""
        deleted = 0
        for (sha256,) in self._database.rows("SELECT sha256 FROM trash"):
            if not self._database.row("SELECT 1 FROM sample WHERE sha256 = ?", sha256):
                deleted += self._store.path(sha256).exists()
                self._store.remove(sha256)
            self._database.run("DELETE FROM trash WHERE sha256 = ?", sha256)
        return deleted


def _hashes(rows: Sequence[tuple[bytes, ...]]) -> Hashes:
    """The first column of rows, as (N, 32)."""
    return np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(-1, 32)
