"""The crawler's memory: one SQLite file that outlives `kill -9` at any instant.

One process writes it. What belongs together is one transaction: a page of posts with the cursor
behind it, a picture's fate with what was learned of it, a removal with all that it takes away.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.shared.errors import StorageFailed

SCHEMA = """
CREATE TABLE IF NOT EXISTS crawl (
    name TEXT PRIMARY KEY, request BLOB, state INT, error BLOB, cursor TEXT NOT NULL DEFAULT '',
    read_all INT NOT NULL DEFAULT 0, created REAL, ended REAL);
CREATE TABLE IF NOT EXISTS tally (
    crawl TEXT, stage TEXT, outcome TEXT, count INT, PRIMARY KEY (crawl, stage, outcome)
) WITHOUT ROWID;
-- A ranking counts posts here, a collecting pictures.
CREATE TABLE IF NOT EXISTS emoji_count (
    crawl TEXT, emoji TEXT, count INT, PRIMARY KEY (crawl, emoji)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS author_count (
    crawl TEXT, author BLOB, count INT, PRIMARY KEY (crawl, author)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS post (
    id INTEGER PRIMARY KEY AUTOINCREMENT, crawl TEXT, source TEXT, uri TEXT, author BLOB, time REAL,
    segment TEXT, mentions TEXT, hashtags TEXT, words TEXT, UNIQUE (crawl, uri));
CREATE INDEX IF NOT EXISTS post_uri ON post (source, uri);
CREATE INDEX IF NOT EXISTS post_author ON post (author);
-- state: 0 to be fetched, 1 stored, 2 dropped. Several posts may show one image.
CREATE TABLE IF NOT EXISTS image (
    id INTEGER PRIMARY KEY AUTOINCREMENT, crawl TEXT, url TEXT, cid TEXT, host TEXT,
    state INT NOT NULL DEFAULT 0, attempts INT NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0, sha256 BLOB,
    UNIQUE (crawl, url));
CREATE INDEX IF NOT EXISTS image_queued ON image (crawl, host, attempts, id) WHERE state = 0;
CREATE INDEX IF NOT EXISTS image_again ON image (crawl, host, due)
    WHERE state = 0 AND attempts > 0;
CREATE INDEX IF NOT EXISTS image_sha256 ON image (sha256) WHERE sha256 IS NOT NULL;
CREATE TABLE IF NOT EXISTS shown (image INT, post INT, PRIMARY KEY (image, post)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shown_post ON shown (post);
CREATE TABLE IF NOT EXISTS sample (
    sha256 BLOB PRIMARY KEY, pdq BLOB, quality INT, width INT, height INT) WITHOUT ROWID;
-- kind: post, author, image (SHA-256), look (PDQ).
CREATE TABLE IF NOT EXISTS removed (
    kind TEXT, source TEXT, key BLOB, PRIMARY KEY (kind, source, key)) WITHOUT ROWID;
-- Files whose samples are gone, until they are deleted.
CREATE TABLE IF NOT EXISTS trash (sha256 BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dataset (
    name TEXT PRIMARY KEY, request BLOB, state INT, error BLOB, digest TEXT, samples TEXT,
    created REAL, ended REAL);
CREATE TABLE IF NOT EXISTS member (
    sha256 BLOB, dataset TEXT, key TEXT, excluded INT NOT NULL DEFAULT 0,
    PRIMARY KEY (sha256, dataset)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS member_excluded ON member (dataset, key) WHERE excluded = 1;
CREATE TABLE IF NOT EXISTS quota (name TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID;
"""


class Database:
    """A connection, for one thread.

    Raises:
        StorageFailed: from everything that reads or writes it, when the disk is full or fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._failures_named():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.executescript(SCHEMA)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within, or nothing of it."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have ended it
                self.run("ROLLBACK")
            raise

    def run(self, statement: str, *values: object) -> int:
        """Executes a statement and returns how many rows it changed."""
        with self._failures_named():
            return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, *values: object) -> int:
        """Inserts a row and returns its number; 0 if it was ignored."""
        with self._failures_named():
            cursor = self._connection.execute(statement, values)
            return cursor.lastrowid or 0 if cursor.rowcount == 1 else 0

    def rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        """All rows of the answer."""
        with self._failures_named():
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> tuple | None:  # type: ignore[type-arg]
        """The first row of the answer, if there is one."""
        with self._failures_named():
            return self._connection.execute(query, values).fetchone()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise StorageFailed(
                f"{self.path} cannot be used: {error}. Make room on its disk, or mend it.",
                path=str(self.path),
            ) from None
