import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.crawler.store import Store
from services.shared.errors import StorageFailed

CONTENT, OTHER = b"the first jpeg", b"another, longer jpeg"
DIGEST = hashlib.sha256(b"original").digest()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def failing(code: int) -> Callable[..., Any]:
    def fail(*args: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_picture_lies_where_its_digest_says(tmp_path: Path) -> None:
    store = Store(tmp_path / "images")
    store.put(DIGEST, CONTENT)

    name = DIGEST.hex()
    assert store.path(DIGEST) == tmp_path / "images" / name[:2] / f"{name}.jpg"
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert files(tmp_path) == [store.path(DIGEST)]


def test_the_same_picture_twice_is_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(DIGEST, CONTENT)
    store.put(DIGEST, OTHER)

    assert store.path(DIGEST).read_bytes() == OTHER
    assert files(tmp_path) == [store.path(DIGEST)]


def test_what_is_removed_is_gone_and_what_is_not_there_is_no_harm(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(DIGEST, CONTENT)
    store.remove(DIGEST)
    store.remove(DIGEST)

    assert files(tmp_path) == []


@pytest.mark.parametrize("function", ["open", "write", "replace", "close"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_failing_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    store = Store(tmp_path)
    store.put(DIGEST, CONTENT)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(code))
        with pytest.raises(StorageFailed, match=os.strerror(code)) as caught:
            store.put(DIGEST, OTHER)
    assert caught.value.metadata == {"path": str(store.path(DIGEST))}
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert files(tmp_path) == [store.path(DIGEST)]

    store.put(DIGEST, OTHER)
    assert store.path(DIGEST).read_bytes() == OTHER


def test_half_a_picture_is_never_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, content: write(file, content[:3]))
        with pytest.raises(StorageFailed, match="No space"):
            Store(tmp_path).put(DIGEST, CONTENT)

    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"a file")
    store = Store(tmp_path / "images")

    with pytest.raises(StorageFailed, match="cannot be written"):
        store.put(DIGEST, CONTENT)
    with pytest.raises(StorageFailed, match="cannot be deleted"):
        store.remove(DIGEST)


FULL_DISK = """
import pathlib, resource, sys
from services.crawler.store import Store
from services.shared.errors import StorageFailed

store = Store(pathlib.Path(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
try:
    store.put(bytes(32), bytes(2000))
    raise SystemExit("was stored")
except StorageFailed:
    pass
assert not any(path.is_file() for path in pathlib.Path(sys.argv[1]).rglob("*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.put(bytes(32), bytes(2000))
assert store.path(bytes(32)).read_bytes() == bytes(2000)
"""


def test_when_the_disk_has_room_again_it_goes_on(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_pictures_that_lie_here_are_named_and_what_was_begun_in_vain_goes(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    store.put(DIGEST, CONTENT)
    store.path(DIGEST).with_name("begun.tmp").write_bytes(b"half")
    store.path(DIGEST).with_name("stranger.jpg").write_bytes(b"?")
    assert list(store.names()) == [DIGEST]
    assert {path.name for path in files(tmp_path)} == {f"{DIGEST.hex()}.jpg", "stranger.jpg"}
