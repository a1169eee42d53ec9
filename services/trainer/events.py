"""What a run says of itself: JSON lines in its folder, which the service and people follow."""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from services.shared import errors
from services.shared.errors import EmojinetError, StorageFailed
from services.shared.queue import internal
from services.shared.shards import writable

NAME = "events.jsonl"
MAX_LINE_BYTES = 1 << 20
NUMBER = (int, float)
# What every event of a kind has, beside "time" and "kind"; others may be added.
KINDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "activity": {"text": str},
    "note": {"text": str},
    "progress": {
        "step": int,
        "steps": int,
        "images": int,
        "loss": NUMBER,
        "images_per_second": NUMBER,
        "data_wait_share": NUMBER,
        "remaining_seconds": NUMBER,
        "seconds": dict,
    },
    "metrics": {"split": str, "metrics": dict},
    "failed": {"status": str},
    "done": {},
}


class Events:
    """Appends to a run's events; a folder of None is that of a process that is not to speak.

    Each is one write, and so whole, unless the process dies in it: the next one then begins a
    line of its own.

    Raises:
        StorageFailed: the disk is full or failing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._descriptor, self._torn = -1, False
        self._followers: list[Callable[[dict[str, Any]], None]] = []
        if folder is None:
            return
        self._path = folder / NAME
        with writable(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o644)
            size = os.fstat(self._descriptor).st_size
            self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Has an error end the run in its events, too, on its way up."""
        try:
            yield
        except EmojinetError as error:
            self.failed(error)
            raise
        except Exception as error:
            self.failed(internal(error))
            raise

    def activity(self, text: str) -> None:
        """What the run does from now on, for people."""
        self._append("activity", text=text)

    def note(self, text: str) -> None:
        """Something worth knowing that changes nothing."""
        self._append("note", text=text)

    def progress(
        self,
        step: int,
        steps: int,
        images: int,
        loss: float,
        images_per_second: float,
        data_wait_share: float,
        remaining_seconds: float,
        seconds: Mapping[str, float],
    ) -> None:
        """How far it is; images of all processes, `seconds` the ledger's."""
        said = {name: value for name, value in locals().items() if name != "self"}
        self._append("progress", **said | {"seconds": dict(seconds)})

    def metrics(self, split: str, metrics: Mapping[str, Sequence[float]]) -> None:
        """What was measured, by name: the value, and its interval's ends."""
        self._append("metrics", split=split, metrics={k: list(v) for k, v in metrics.items()})

    def failed(self, error: EmojinetError) -> None:
        """The run has ended in vain. Raises nothing: what the disk refuses is known by now."""
        status = errors.to_proto(error).SerializeToString()
        with suppress(StorageFailed):
            self._append("failed", status=base64.b64encode(status).decode(), text=str(error))

    def done(self) -> None:
        """The run has ended well."""
        self._append("done")

    def follow(self, told: Callable[[dict[str, Any]], None]) -> None:
        """Has `told` called with every event from now on, once it is written."""
        self._followers.append(told)

    def close(self) -> None:
        """Says nothing from now on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, kind: str, **facts: Any) -> None:
        if self._descriptor < 0:
            return
        event = {"time": time.time(), "kind": kind, **facts}
        line = json.dumps(event).encode() + b"\n"
        line = b"\n" + line if self._torn else line
        with writable(self._path):
            self._torn = True  # should it fail
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, "No space left on device")
            self._torn = False
        for told in self._followers:
            told(event)


class Tail:
    """Reads a run's events as they come, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest = path, 0, b""

    def new(self) -> list[dict[str, Any]]:
        """Those since the last call; what is torn, foreign or malformed is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:  # not there yet, or not now
            return []
        self._offset += len(content)
        *lines, rest = (self._rest + content).split(b"\n")
        self._rest = rest[: MAX_LINE_BYTES + 1]  # no longer one is read, nor remembered
        return [event for line in lines if (event := _event(line)) is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    """The line's event, if it is one."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        event = json.loads(line)
        facts = KINDS[event["kind"]] | {"time": NUMBER}
        sound = all(_is(event[name], kind) for name, kind in facts.items())
        intervals = event["metrics"].values() if "metrics" in facts else ()
        numbers = [*event["seconds"].values()] if "seconds" in facts else []
        for value, low, high in intervals:
            numbers += [value, low, high]
        return event if sound and all(_is(number, NUMBER) for number in numbers) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether it is of the kind; of numbers only those that 64 bits hold."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, NUMBER) or abs(value) < 2**63  # which NaN is not, either
