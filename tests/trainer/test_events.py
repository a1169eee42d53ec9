import base64
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.shared import errors
from services.shared.errors import StorageFailed, TrainingFailed
from services.trainer.events import MAX_LINE_BYTES, NAME, Events, Tail

SECONDS = {"compute": 1.5, "data_wait": 0.25}


def tell_all(events: Events) -> None:
    events.activity("learning 🍕")
    events.progress(1, 10, 256, 2.5, 100.0, 0.1, 60.0, SECONDS)
    events.metrics("validation", {"top1": (0.5, 0.4, 0.6)})
    events.note("a note")
    events.failed(TrainingFailed("The loss became nan.", step="3"))
    events.done()


def line(**facts: Any) -> bytes:
    return json.dumps({"time": 1.0, **facts}).encode() + b"\n"


def progress(**facts: Any) -> bytes:
    whole: dict[str, Any] = {"step": 1, "steps": 2, "images": 3, "loss": 0.5}
    whole |= {"images_per_second": 1.0}
    whole |= {"data_wait_share": 0.0, "remaining_seconds": 1.0, "seconds": {}}
    return line(kind="progress", **whole | facts)


def read(content: bytes) -> list[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(content)
        return Tail(path).new()


def test_what_is_told_is_read_once_in_order(tmp_path: Path) -> None:
    tail, before = Tail(tmp_path / "run" / NAME), time.time()
    assert tail.new() == []
    events = Events(tmp_path / "run")
    tell_all(events)
    found = tail.new()
    kinds = ["activity", "progress", "metrics", "note", "failed", "done"]
    assert [event["kind"] for event in found] == kinds
    assert all(before <= event["time"] <= time.time() for event in found)
    assert found[0]["text"] == "learning 🍕"
    assert (found[1]["step"], found[1]["seconds"]) == (1, SECONDS)
    assert found[2]["metrics"] == {"top1": [0.5, 0.4, 0.6]}
    assert tail.new() == []
    events.note("another")
    assert [event["text"] for event in tail.new()] == ["another"]


def test_a_failure_travels_as_its_status(tmp_path: Path) -> None:
    Events(tmp_path).failed(TrainingFailed("The loss became nan.", step="3"))
    (event,) = Tail(tmp_path / NAME).new()
    status = status_pb2.Status.FromString(base64.b64decode(event["status"]))
    error = errors.from_proto(status)
    assert isinstance(error, TrainingFailed)
    assert (str(error), error.metadata) == ("The loss became nan.", {"step": "3"})


@given(st.lists(st.integers(0, 2000)))
def test_however_the_bytes_come_every_event_is_read_once(cuts: list[int]) -> None:
    with TemporaryDirectory() as folder:
        events = Events(Path(folder))
        tell_all(events)
        events.close()
        content = (Path(folder) / NAME).read_bytes()
        path, found = Path(folder) / "slowly", list[dict[str, Any]]()
        tail, ends = Tail(path), sorted(min(cut, len(content)) for cut in cuts)
        with path.open("ab", buffering=0) as file:
            for begin, end in zip([0, *ends], [*ends, len(content)], strict=True):
                file.write(content[begin:end])
                found += tail.new()
        assert found == Tail(Path(folder) / NAME).new()
        assert len(found) == 6


@given(st.integers(0, 200))
def test_a_process_that_dies_in_a_line_costs_that_line_alone(cut: int) -> None:
    with TemporaryDirectory() as folder:
        path, first = Path(folder) / NAME, progress() + line(kind="note", text="torn")
        path.write_bytes(first[: len(progress()) + cut])
        tail = Tail(path)
        found = tail.new()
        Events(Path(folder)).note("after")
        found += tail.new()
        whole = cut >= len(first) - len(progress()) - 1  # but for the end of its line
        torn = ["torn"] if whole else []
        assert [event.get("text") for event in found] == [None, *torn, "after"]


@pytest.mark.parametrize(
    "foreign",
    [
        b"\n",
        b"\xff\xfe\n",
        b"[]\n",
        b'"note"\n',
        b"[" * 100_000 + b"\n",
        line(kind="lunch"),
        line(kind=["note"]),
        line(kind="note"),
        line(kind="note", text=5),
        line(kind="note", text="", time="now"),
        line(kind="note", text="", time=float("nan")),
        line(kind="note", text="x" * MAX_LINE_BYTES),
        progress(step="1"),
        progress(step=True),
        progress(step=10**400),
        progress(loss=float("inf")),
        progress(seconds=[]),
        progress(seconds={"compute": "long"}),
        line(kind="metrics", split="test", metrics=[]),
        line(kind="metrics", split="test", metrics={"top1": 0.5}),
        line(kind="metrics", split="test", metrics={"top1": [0.5]}),
        line(kind="metrics", split="test", metrics={"top1": [0.5, None, 1]}),
        line(kind="failed"),
    ],
    ids=lambda content: repr(content[:60]),
)
def test_what_is_no_event_is_passed_over(foreign: bytes) -> None:
    good = line(kind="note", text="good")
    assert [event["text"] for event in read(good + foreign + good)] == ["good", "good"]


@given(st.binary())
def test_no_bytes_upset_a_reader(content: bytes) -> None:
    assert read(content + b"\n" + progress())[-1]["step"] == 1


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / NAME
    tail = Tail(path)
    with path.open("ab", buffering=0) as file:
        for _ in range(5):
            file.write(b"x" * MAX_LINE_BYTES)
            assert tail.new() == []
        assert len(tail._rest) <= MAX_LINE_BYTES + 1
        file.write(b"\n" + line(kind="done"))
    assert [event["kind"] for event in tail.new()] == ["done"]


def test_a_full_disk_is_said_but_by_the_failure_itself(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    events = Events(tmp_path)
    with pytest.raises(StorageFailed, match="No space left on device"):
        events.note("there is no room")
    events.failed(TrainingFailed("the first cause"))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file"):
        Events(tmp_path / "file")


def test_who_is_not_to_speak_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    events = Events(None)
    tell_all(events)
    events.close()
    assert list(tmp_path.iterdir()) == []


def test_followers_see_what_is_written(tmp_path: Path) -> None:
    events, seen = Events(tmp_path), list[dict[str, Any]]()
    events.note("before")
    events.follow(seen.append)
    tell_all(events)
    events.close()
    events.note("after")
    assert seen == Tail(tmp_path / NAME).new()[1:]
