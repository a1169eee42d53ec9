import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared import faults
from services.shared.errors import StorageFailed
from services.trainer import checkpoint

ROOT = Path(__file__).parents[2]
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
# As a training's, whose checkpoints a process of its own writes until it dies.
WRITER = """
import sys
from pathlib import Path
from tests.trainer.test_checkpoint import state
from services.trainer import checkpoint
for step in range(1, 5):
    checkpoint.save(Path(sys.argv[1]), step, *state(step))
"""


def state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    weights = torch.full((30, 100), float(step))
    return {"weights": weights, "step": torch.tensor(step)}, {"seconds": {"start": step / 3}}


def written(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.save(folder, step, *state(step))
    return folder


def steps(folder: Path) -> list[int]:
    """Those that are there, of which nothing else is."""
    names = sorted(path.name for path in folder.iterdir())
    found = sorted({int(name.partition(".")[0]) for name in names})
    assert names == [f"{step:08}.{kind}" for step in found for kind in ("json", "safetensors")]
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def newest(folder: Path) -> int:
    """Its step, when it is what was saved as that step; 0 without any."""
    found = checkpoint.newest(folder)
    if found is None:
        return 0
    tensors, facts = state(found.step)
    assert found.facts == facts
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    return found.step


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4, 5)], ids=str)
def test_a_tensor_comes_back_as_it_was(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    x = (torch.rand(shape) * 100).to(dtype)
    checkpoint.save(tmp_path, 7, {"x": x}, {})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.tensors["x"].dtype, found.tensors["x"].shape) == (7, dtype, x.shape)
    assert found.tensors["x"].reshape(-1).view(torch.uint8).equal(x.reshape(-1).view(torch.uint8))


def test_views_and_tensors_that_share_their_memory_are_saved(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    tensors = {"x": x, "again": x, "row": x[1], "other": x.permute(3, 2, 1, 0)}
    checkpoint.save(tmp_path, 1, tensors, {})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    found.tensors["again"].zero_()
    assert torch.equal(found.tensors["x"], x)


def test_the_same_state_makes_the_same_bytes(tmp_path: Path) -> None:
    tensors, facts = state(3)
    checkpoint.save(tmp_path / "one", 3, tensors, facts)
    checkpoint.save(tmp_path / "two", 3, dict(reversed(tensors.items())), facts)
    for name in ("00000003.json", "00000003.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@settings(max_examples=20)  # each has to reach the disk
@given(st.floats(allow_nan=False), st.text(st.characters(exclude_categories=["Cs"])))
def test_facts_come_back_exactly(number: float, text: str) -> None:
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 1, {}, {"number": number, "text": text})
        found = checkpoint.newest(Path(folder))
    assert found is not None
    assert found.facts == {"number": number, "text": text}


def test_where_nothing_was_saved_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None
    assert checkpoint.newest(tmp_path) is None


def test_the_newest_two_stay(tmp_path: Path) -> None:
    assert steps(written(tmp_path, 9, 10, 11, 100_000_000)) == [11, 100_000_000]
    assert newest(tmp_path) == 100_000_000


@pytest.mark.parametrize(("kind", "stride"), [("json", 5), ("safetensors", 301)])
def test_a_flipped_byte_is_found_wherever_it_is(kind: str, stride: int, tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2) / f"00000002.{kind}"
    for place in range(0, path.stat().st_size, stride):
        flip(path, place)
        assert newest(tmp_path) == 1, place
        flip(path, place)
    assert newest(tmp_path) == 2


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize("harm", ["cut", "longer", "empty", "gone", "linked", "folder", "[]"])
def test_a_damaged_one_is_passed_over(
    harm: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 1, 2) / f"00000002.{kind}"
    content = path.read_bytes()
    path.unlink()
    match harm:
        case "linked":
            (tmp_path / "elsewhere").write_bytes(content)
            path.symlink_to("elsewhere")
        case "folder":
            path.mkdir()
        case "cut" | "longer" | "empty" | "[]":
            path.write_bytes(
                {"cut": content[:-1], "longer": content + b" ", "empty": b"", "[]": b"[]"}[harm]
            )
    assert newest(tmp_path) == 1
    if (harm, kind) != ("gone", "json"):  # without a manifest there is none
        assert "00000002 is damaged, passed over" in caplog.text


def test_a_manifest_of_another_step_is_not_believed(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for kind in ("json", "safetensors"):
        shutil.copy(tmp_path / f"00000001.{kind}", tmp_path / f"00000002.{kind}")
    assert newest(tmp_path) == 1


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        flip(path, -1)
    assert newest(tmp_path) == 0


def test_a_damaged_one_goes_when_a_newer_one_is_whole(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3)
    flip(tmp_path / "00000003.safetensors", 99)
    assert steps(written(tmp_path, 4)) == [2, 4]
    flip(tmp_path / "00000004.json", 9)
    assert steps(written(tmp_path, 3)) == [2, 3, 4]  # 4 may be all that is left of the last hours
    assert newest(tmp_path) == 3
    assert steps(written(tmp_path, 4)) == [3, 4]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    notes = ("notes.txt", "1.json", "best.safetensors")
    for name in notes:
        (tmp_path / name).write_text("mine")
    written(tmp_path, 1, 2, 3, 4)
    assert {path.name for path in tmp_path.iterdir()} >= set(notes)


def test_what_cannot_be_written_whole_leaves_no_half(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    with pytest.raises(StorageFailed, match=r"00000003.safetensors cannot be written.*Free space"):
        _cramped(tmp_path)
    assert steps(tmp_path) == [1, 2]
    assert newest(tmp_path) == 2
    assert steps(written(tmp_path, 3)) == [2, 3]  # there is room again


def _cramped(folder: Path) -> None:
    """Saves where no file can grow beyond 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        written(folder, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize(
    ("device", "trouble"),
    [("full", "No space left on device"), ("null", "Invalid argument")],  # to write; to fsync
)
def test_a_full_or_failing_disk_leaves_the_older_ones(
    device: str, trouble: str, kind: str, tmp_path: Path
) -> None:
    written(tmp_path, 1, 2)
    (tmp_path / f".00000003.{kind}").symlink_to(f"/dev/{device}")
    with pytest.raises(StorageFailed, match=trouble):
        written(tmp_path, 3)
    assert newest(tmp_path) == 2
    assert steps(written(tmp_path, 3)) == [2, 3]


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_what_cannot_be_renamed_leaves_the_older_ones(kind: str, tmp_path: Path) -> None:
    (written(tmp_path, 1, 2) / f"00000003.{kind}" / "in the way").mkdir(parents=True)
    with pytest.raises(StorageFailed, match="Is a directory"):
        written(tmp_path, 3)
    assert newest(tmp_path) == 2


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file"):
        written(tmp_path / "file", 1)
    with pytest.raises(StorageFailed, match="file"):
        checkpoint.newest(tmp_path / "file")


@pytest.mark.system
@pytest.mark.parametrize("point", faults.TRAINER)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_kill_at_any_point_leaves_the_newest(point: str, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"EMOJINET_FAULT": f"{point}:{count}"},
        check=False,
    )
    assert done.returncode == 137
    complete = {"checkpoint-placed": count // 2, "checkpoint-pruning": 2 + (count + 1) // 2}
    assert newest(tmp_path) == complete.get(point, (count - 1) // 2)
    assert steps(written(tmp_path, 5, 6)) == [5, 6]
