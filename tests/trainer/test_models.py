"""What the trainer tells of the registry, and whom it lets become live."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from services.shared import errors, registry
from services.shared.errors import BadModel, NotReady, StorageFailed
from services.shared.registry import Live
from services.trainer import models
from tests.prove import damaged
from tests.shared.test_registry import staged
from tests.trainer.test_publish import build, judge


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def test_an_empty_registry_has_no_models(root: Path) -> None:
    assert models.models(root) == []


def test_models_are_told_newest_first_and_which_is_live(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    found = [registry.publish(root, staged(tiny, tmp_path / card, card)) for card in "abc"]
    for age, which in enumerate(reversed(found)):
        os.utime(registry.folder(root, which), (1e9 - age, 1e9 - age))
    registry.activate(root, found[1])

    told = models.models(root)

    assert [(m.version, m.card, m.live) for m in told] == [
        (found[2].version, "c", False),
        (found[1].version, "b", True),
        (found[0].version, "a", False),
    ]
    assert [m.create_time.seconds for m in told] == [10**9, 10**9 - 1, 10**9 - 2]
    assert all(m.emoji == 5 and not m.HasField("error") for m in told)
    assert Path(told[0].uri) == registry.folder(root, found[2])


@pytest.mark.parametrize("name", ["card.md", "weights.safetensors", "manifest.json"])
@pytest.mark.parametrize("how", ["missing", "short", "link"])
def test_a_broken_model_is_told_with_what_is_wrong(
    tiny: Path, tmp_path: Path, root: Path, name: str, how: str
) -> None:
    good, bad = (registry.publish(root, staged(tiny, tmp_path / card, card)) for card in "ab")
    path = registry.folder(root, bad) / name
    content = path.read_bytes()
    path.unlink()
    if how == "short":
        path.write_bytes(content[:-1])
    elif how == "link":
        shutil.copy(registry.folder(root, good) / name, tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")

    told = {m.version: m for m in models.models(root)}

    assert not told[good.version].HasField("error")
    error = errors.from_proto(told[bad.version].error)
    assert isinstance(error, BadModel)
    assert name in str(error)


def test_a_live_file_that_says_nothing_leaves_all_models_told(
    tiny: Path, tmp_path: Path, root: Path
) -> None:
    registry.publish(root, staged(tiny, tmp_path / "a"))
    (root / registry.LIVE).write_text("{")
    assert [m.live for m in models.models(root)] == [False]


@pytest.mark.system
async def test_a_run_is_published_and_activated_and_an_older_model_brought_back(
    tmp_path: Path, root: Path
) -> None:
    made: list[Live] = []
    for seed in (1, 2):
        folder = judge(tmp_path / f"run{seed}", [0.5, 0.4, 0.6], [0.2] * 3)
        build(folder, seed)
        made.append(await models.publish(root, folder))
    assert registry.live(root) is None
    for which in (*made, made[0]):
        told = await models.activate(root, which)
        assert (told.name, told.version, told.live) == (*which, True)
        assert registry.live(root) == which


@pytest.mark.system
async def test_a_model_that_must_not_be_served_is_not_activated_and_the_loop_goes_on(
    tmp_path: Path, root: Path
) -> None:
    folder = judge(tmp_path / "run", [0.5, 0.4, 0.6], [0.2] * 3)
    made = build(folder)
    good = await models.publish(root, folder)
    await models.activate(root, good)
    spoilt = damaged._nan_weights(made)
    files = {name: made.read(name) for name in made.files}
    bad = damaged.lay(root, "nan", {**files, "weights.safetensors": spoilt})
    activating = asyncio.create_task(models.activate(root, bad))
    turns = 0
    while not activating.done():
        await asyncio.sleep(0.05)
        turns += 1
    with pytest.raises(BadModel, match="not finite"):
        activating.result()
    assert turns > 5
    assert registry.live(root) == good


@pytest.mark.system
async def test_what_the_child_refuses_is_refused_with_the_same_words(
    tmp_path: Path, root: Path
) -> None:
    with pytest.raises(NotReady, match="no model"):
        await models.publish(root, tmp_path / "run" / "model")
    with pytest.raises(BadModel, match="no model folder"):
        await models.activate(root, Live("none", "0123456789ab"))


@pytest.mark.system
async def test_a_registry_whose_live_file_cannot_be_written_is_said_in_a_line(
    tmp_path: Path, root: Path
) -> None:
    folder = judge(tmp_path / "run", [0.5, 0.4, 0.6], [0.2] * 3)
    build(folder)
    which = await models.publish(root, folder)
    (root / registry.LIVE / "in the way").mkdir(parents=True)
    with pytest.raises(StorageFailed):
        await models.activate(root, which)
