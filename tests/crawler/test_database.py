import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.crawler.database import Database
from services.shared.errors import StorageFailed


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "crawler.db")
    yield opened
    opened.close()


def quotas(database: Database) -> list[tuple[str, str]]:
    return database.rows("SELECT name, state FROM quota ORDER BY name")


def put(database: Database, name: str, state: str = "") -> int:
    return database.run("INSERT INTO quota VALUES (?, ?)", name, state)


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    with database.transaction():
        put(database, "a")
    with pytest.raises(ZeroDivisionError), database.transaction():
        raise ZeroDivisionError(put(database, "b"))

    assert quotas(database) == [("a", "")]


def test_a_failure_within_a_transaction_keeps_its_own_name(database: Database) -> None:
    with pytest.raises(FileNotFoundError), database.transaction():
        raise FileNotFoundError

    with database.transaction():
        put(database, "a")
    assert quotas(database) == [("a", "")]


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        database = Database(tmp_path / "new" / "folder" / "crawler.db")
        put(database, name)
        database.close()

    database = Database(tmp_path / "new" / "folder" / "crawler.db")
    assert quotas(database) == [("a", ""), ("b", "")]
    database.close()


def test_kill_9_leaves_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from services.crawler.database import Database\n"
        "database = Database(pathlib.Path(sys.argv[1]))\n"
        "with database.transaction():\n"
        "    database.run('INSERT INTO quota VALUES (1, 1)')\n"
        "with database.transaction():\n"
        "    database.run('INSERT INTO quota VALUES (2, 2)')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", program, tmp_path / "crawler.db"], check=False)
    assert died.returncode == -9

    database = Database(tmp_path / "crawler.db")
    assert quotas(database) == [("1", "1")]
    database.close()


def test_an_insert_tells_the_rows_number_or_that_there_was_one(database: Database) -> None:
    insert = "INSERT OR IGNORE INTO image (crawl, url) VALUES (?, ?)"

    assert database.insert(insert, "c", "u") == 1
    assert database.insert(insert, "c", "v") == 2
    assert database.insert(insert, "c", "u") == 0


@pytest.mark.parametrize("content", [b"This is a text, and no database. " * 99, b"\0" * 5000])
def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crawler.db"
    path.write_bytes(content)

    with pytest.raises(StorageFailed, match="is not a database") as caught:
        Database(path)

    assert caught.value.metadata == {"path": str(path)}
    assert path.read_bytes() == content


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "crawler.db"
    database = Database(path)
    with database.transaction():
        for number in range(5000):
            put(database, f"{number:050}")
    database.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    path.write_bytes(content)

    database = Database(path)
    with pytest.raises(StorageFailed, match="disk image is malformed"):
        quotas(database)
    database.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "crawler.db", tmp_path, Path("/proc/nowhere/crawler.db")):
        with pytest.raises(StorageFailed, match="cannot be used") as caught:
            Database(path)
        assert caught.value.metadata == {"path": str(path)}


def test_a_database_that_somebody_else_writes_is_named(database: Database) -> None:
    database.run("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StorageFailed, match="locked"), database.transaction():
        put(database, "a")

    other.execute("ROLLBACK")
    other.close()
    with database.transaction():
        put(database, "a")
    assert quotas(database) == [("a", "")]


def test_a_full_database_loses_only_what_did_not_fit(database: Database) -> None:
    ((pages,),) = database.rows("PRAGMA page_count")
    database.rows(f"PRAGMA max_page_count = {pages + 2}")
    put(database, "a")

    with pytest.raises(StorageFailed, match="full"), database.transaction():
        assert put(database, "b") + put(database, "c", "x" * 100_000)
    assert quotas(database) == [("a", "")]

    database.rows("PRAGMA max_page_count = 1000000")
    with database.transaction():
        put(database, "c", "x" * 100_000)
    assert quotas(database) == [("a", ""), ("c", "x" * 100_000)]


FULL_DISK = """
import pathlib, resource, sys
from services.crawler.database import Database
from services.shared.errors import StorageFailed

database = Database(pathlib.Path(sys.argv[1]))
database.run("INSERT INTO quota VALUES ('a', '')")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
room = pathlib.Path(sys.argv[1] + "-wal").stat().st_size + 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
refused = 0
try:
    for number in range(50):
        with database.transaction():
            database.run("INSERT INTO quota VALUES (?, ?)", f"b{number}", "x" * 10_000)
except StorageFailed as error:
    assert error.metadata == {"path": sys.argv[1]}, error
    refused = number
((before,),) = database.rows("SELECT count(*) FROM quota")
assert 1 < before == refused + 1, (before, refused)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
with database.transaction():
    database.run("INSERT INTO quota VALUES ('c', ?)", "x" * 500_000)
((after,),) = database.rows("SELECT count(*) FROM quota")
assert after == before + 1
((sound,),) = database.rows("PRAGMA integrity_check")
assert sound == "ok"
"""


def test_when_the_disk_has_room_again_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "crawler.db"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
