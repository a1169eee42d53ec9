import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.shared import model, registry
from services.shared.errors import BadModel
from services.shared.registry import Live


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def staged(like: Path, folder: Path, card: str = "another") -> Path:
    """A finished model that is not yet published; of another version for another card."""
    other = model.load(like)
    model.write(
        folder,
        name=other.name,
        architecture=other.architecture,
        preprocessing=other.preprocessing,
        calibration=other.calibration,
        vocabulary=other.vocabulary,
        weights=other.weights(),
        probes=other.probes(),
        card=card,
        openvino={},
    )
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def everything(root: Path) -> dict[str, bytes]:
    """All files of a registry, by their paths."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_a_published_model_is_where_its_name_and_version_say(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))

    assert not (tmp_path / "new").exists()
    assert registry.folder(root, which) == root / "tiny" / which.version
    assert registry.load(root, which).check().card == "another"


def test_a_registry_without_models_has_none_and_none_is_live(root: Path) -> None:
    assert registry.models(root) == []
    assert registry.live(root) is None


def test_a_published_model_is_not_live_until_it_is_activated(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    assert registry.live(root) is None

    registry.activate(root, which)
    assert registry.live(root) == which
    assert json.loads((root / registry.LIVE).read_text()) == which._asdict()


def test_going_back_is_activating_an_older_one(tiny: Path, tmp_path: Path, root: Path) -> None:
    first, second = (
        registry.publish(root, staged(tiny, tmp_path / card, card)) for card in ("1", "2")
    )
    for which in (first, second, first):
        registry.activate(root, which)
        assert registry.live(root) == which


def test_models_are_listed_newest_first(tiny: Path, tmp_path: Path, root: Path) -> None:
    found = [registry.publish(root, staged(tiny, tmp_path / card, card)) for card in "abc"]
    for age, which in enumerate(reversed(found)):
        os.utime(registry.folder(root, which), (1e9 - age, 1e9 - age))

    assert registry.models(root) == found[::-1]


def test_what_is_no_model_is_not_listed(tiny: Path, tmp_path: Path, root: Path) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    (root / ".staged-x" / ("0" * 12)).mkdir(parents=True)
    (root / "tiny" / "latest").mkdir()
    (root / "tiny" / ("1" * 12)).touch()
    (root / "tiny" / ("2" * 12)).symlink_to("nowhere")

    assert registry.models(root) == [which]


def test_models_may_go_while_they_are_listed(root: Path) -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            (root / "tiny" / ("1" * 12)).mkdir(parents=True)
            shutil.rmtree(root / "tiny")

    with ThreadPoolExecutor(1) as threads:
        going = threads.submit(come_and_go)
        until = time.monotonic() + 0.5
        try:
            while time.monotonic() < until:
                assert registry.models(root) in ([], [Live("tiny", "1" * 12)])
        finally:
            done.set()
        going.result()


def test_publishing_twice_changes_nothing(tiny: Path, tmp_path: Path, root: Path) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "once"))
    registry.activate(root, which)
    before = everything(root)

    assert registry.publish(root, staged(tiny, tmp_path / "twice")) == which
    assert everything(root) == before
    assert not (tmp_path / "twice").exists()


def test_publishing_what_lies_in_the_registry_already_does_not_remove_it(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))

    assert registry.publish(root, registry.folder(root, which)) == which
    assert registry.load(root, which).check()


def test_several_may_publish_and_activate_the_same_model_at_once(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    folders = [staged(tiny, tmp_path / str(n)) for n in range(8)]
    together = threading.Barrier(len(folders))

    def publish(folder: Path) -> Live:
        together.wait()
        which = registry.publish(root, folder)
        registry.activate(root, which)
        return which

    with ThreadPoolExecutor(len(folders)) as threads:
        (which,) = set(threads.map(publish, folders))
    assert registry.models(root) == [which]
    assert registry.live(root) == which
    assert registry.load(root, which).check()


def test_several_may_mend_the_same_model_at_once(tiny: Path, tmp_path: Path, root: Path) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "first"))
    flip(registry.folder(root, which) / "card.md")
    folders = [staged(tiny, tmp_path / str(n)) for n in range(8)]
    together = threading.Barrier(len(folders))

    def publish(folder: Path) -> Live:
        together.wait()
        return registry.publish(root, folder)

    with ThreadPoolExecutor(len(folders)) as threads:
        assert set(threads.map(publish, folders)) == {which}
    assert os.listdir(root) == ["tiny"]
    assert registry.load(root, which).check()


@pytest.mark.parametrize("part", ["version", "name"])
def test_a_model_whose_folder_is_a_link_is_refused(
    tiny: Path, tmp_path: Path, root: Path, part: str
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    path = registry.folder(root, which)
    linked = path if part == "version" else path.parent
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BadModel, match="is a link"):
        registry.activate(root, which)


def test_activating_twice_is_harmless(tiny: Path, tmp_path: Path, root: Path) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    registry.activate(root, which)
    before = everything(root)
    registry.activate(root, which)

    assert everything(root) == before


def test_everybody_may_read_what_is_live(tiny: Path, tmp_path: Path, root: Path) -> None:
    registry.activate(root, registry.publish(root, staged(tiny, tmp_path / "new")))
    assert (root / registry.LIVE).stat().st_mode & 0o777 == 0o644


DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": shutil.rmtree,
    "incomplete": lambda folder: (folder / "card.md").unlink(),
    "altered description": lambda folder: flip(folder / "model.json"),
    "altered weights": lambda folder: flip(folder / "weights.safetensors"),
    "altered probes": lambda folder: flip(folder / "probes.safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_not_activated_and_the_old_one_stays_live(
    tiny: Path, tmp_path: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    old, new = (registry.publish(root, staged(tiny, tmp_path / card, card)) for card in "ab")
    registry.activate(root, old)
    damage(registry.folder(root, new))
    before = everything(root)

    with pytest.raises(BadModel, match=new.version):
        registry.activate(root, new)
    assert everything(root) == before
    assert registry.live(root) == old


def no_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


@pytest.mark.parametrize("damage", [*DAMAGE.values(), no_folder], ids=[*DAMAGE.keys(), "no folder"])
def test_publishing_a_model_again_mends_a_damaged_one(
    tiny: Path, tmp_path: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    before = everything(root)
    damage(registry.folder(root, which))

    assert registry.publish(root, staged(tiny, tmp_path / "again")) == which
    assert everything(root) == before
    assert registry.load(root, which).check()


def test_publishing_sweeps_up_what_killed_publishers_left_a_day_ago(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    for name in (".staged-old", ".staged-new", "other"):
        shutil.copytree(tiny, root / name / "starter")
    (root / ".live.jsonold").touch()
    (root / ".staged-link").symlink_to(tmp_path)
    for name in (".staged-old", ".live.jsonold", "other", ".staged-link"):
        os.utime(root / name, (1e9, 1e9), follow_symlinks=False)

    registry.publish(root, staged(tiny, tmp_path / "new"))

    assert sorted(os.listdir(root)) == [".staged-link", ".staged-new", "other", "tiny"]
    assert tmp_path.is_dir()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_not_published(
    tiny: Path, tmp_path: Path, root: Path, damage: Callable[[Path], None]
) -> None:
    damage(staged(tiny, tmp_path / "new"))
    with pytest.raises(BadModel):
        registry.publish(root, tmp_path / "new")
    assert not root.exists()


def test_a_model_in_the_folder_of_another_is_refused(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    other = Live("tiny", "0123456789ab")
    os.rename(registry.folder(root, which), registry.folder(root, other))

    with pytest.raises(BadModel, match=f"is tiny@{which.version}, not what its folder is called"):
        registry.activate(root, other)


@pytest.mark.parametrize(
    "which",
    [
        Live("..", "0123456789ab"),
        Live("tiny", ".."),
        Live("tiny", ""),
        Live("a/b", "0123456789ab"),
        Live("tiny", "0123456789AB"),
        Live("tiny", "0123456789ab\n"),
    ],
)
def test_what_cannot_be_in_a_registry_is_not_looked_for(root: Path, which: Live) -> None:
    with pytest.raises(BadModel, match="has a name and a version of 12 hexadecimal digits"):
        registry.activate(root, which)


GOOD = {"name": "tiny", "version": "0123456789ab"}
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=64)
    | st.builds(
        lambda facts: json.dumps(facts).encode(),
        anything
        | st.dictionaries(st.sampled_from(["name", "version", "x"]), anything)
        | st.builds(lambda key, value: GOOD | {key: value}, st.sampled_from([*GOOD]), anything),
    )
)
@example(b"[" * 4000)
@example(json.dumps(GOOD | {"x": "long" * 2000}).encode())
@example(json.dumps(GOOD | {"name": "../up"}).encode())
@example(json.dumps(GOOD | {"version": "latest"}).encode())
@example(b'{"name": "tiny"}')
@example(b"\xff\xfe")
@example(b"")
def test_a_live_file_that_says_nothing_usable_is_refused_by_its_path(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / registry.LIVE).write_bytes(content)
    with pytest.raises(BadModel) as caught:
        registry.live(tmp_path)
    assert str(tmp_path / registry.LIVE) in str(caught.value)
    assert caught.value.metadata == {"path": str(tmp_path / registry.LIVE)}


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["fifo", "folder", "link", "dangling"],
)
def test_a_live_file_that_is_none_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / registry.LIVE)
    with pytest.raises(BadModel, match="cannot be read"):
        registry.live(tmp_path)


def test_a_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadModel, match="cannot be read: Not a directory"):
        registry.live(tmp_path / "file")


def killed_at(step: int, root: Path, new: Path) -> bool:
    """Whether a process that makes a model live got as far as its `step`th system call of note.

    Python tells of each before it happens: files opened, folders made, renamed, removed.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.WEXITSTATUS(status) == 0
        return False
    left = step

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event.split(".")[0] in ("open", "os", "shutil", "tempfile"):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        registry.activate(root, registry.publish(root, new))
        os._exit(0)
    finally:
        os._exit(1)


def test_whenever_a_publisher_is_killed_readers_see_the_old_model_or_the_new_one(
    tiny: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    for step in range(1, 200):
        root = tmp_path / str(step)
        old = registry.publish(root, staged(tiny, tmp_path / f"old-{step}", "old"))
        registry.activate(root, old)
        new = staged(tiny, tmp_path / f"new-{step}", "new")

        was_killed = killed_at(step, root, new)

        which = registry.live(root)
        assert which is not None
        seen.append(registry.load(root, which).check().card)
        assert all(registry.load(root, found).check() for found in registry.models(root))
        if not was_killed:
            break
        # And who comes after the crash is not in its way.
        again = registry.publish(root, staged(tiny, tmp_path / f"again-{step}", "new"))
        registry.activate(root, again)
        assert registry.live(root) == again
    assert seen == sorted(seen, reverse=True)  # first old, then new, and nothing between
    assert 10 < seen.count("old") < len(seen) < 200


def test_a_reader_never_sees_half_a_change(tiny: Path, tmp_path: Path, root: Path) -> None:
    both = [registry.publish(root, staged(tiny, tmp_path / card, card)) for card in "ab"]
    registry.activate(root, both[0])
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            assert registry.live(root) in both
            count += 1
        return count

    with ThreadPoolExecutor(1) as threads:
        reads = threads.submit(read)
        until = time.monotonic() + 1
        try:
            while time.monotonic() < until:
                for which in both:
                    registry.activate(root, which)
        finally:
            done.set()
        assert reads.result() > 10


def test_a_failed_activation_leaves_nothing_behind(tiny: Path, tmp_path: Path, root: Path) -> None:
    which = registry.publish(root, staged(tiny, tmp_path / "new"))
    (root / registry.LIVE / "in the way").mkdir(parents=True)
    before = sorted(root.iterdir())

    with pytest.raises(OSError, match="directory"):
        registry.activate(root, which)
    assert sorted(root.iterdir()) == before
