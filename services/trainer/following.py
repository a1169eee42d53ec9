"""What a run's process says in its events, told to the run and to metrics."""

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from emojinet.v1 import trainer_service_pb2 as pb
from services.shared import errors
from services.shared.errors import EmojinetError, TrainingFailed
from services.trainer.events import NAME, Tail
from services.trainer.metrics import Metrics

MAX_TEXT = 200
MEASURED = ("step", "steps", "loss", "images_per_second", "data_wait_share")


class Following:
    """Tells a run, and metrics, what its process says."""

    def __init__(self, run: pb.Run, metrics: Metrics) -> None:
        self._run, self._metrics = run, metrics
        self._tail = Tail(Path(run.uri) / NAME)
        self._images, self._seconds = 0.0, dict[str, float]()
        self.furthest = 0
        """The last step that was ever reached."""

    async def history(self) -> bool:
        """Takes note of what earlier processes have said; whether they are done."""
        told = await asyncio.to_thread(self._tail.new)
        for event in told:
            self._tell(event, count=False)
        return bool(told) and told[-1]["kind"] == "done"

    async def look(self) -> bool:
        """Takes note of what is new; whether it is done.

        Raises:
            EmojinetError: the process has said that it has failed.
        """
        done = False
        for event in await asyncio.to_thread(self._tail.new):
            self._tell(event, count=True)
            if event["kind"] == "failed":
                raise _failure(event["status"])
            done = done or event["kind"] == "done"
        return done

    def _tell(self, event: dict[str, Any], *, count: bool) -> None:
        # The file is anybody's: it may hold numbers and text that the contract cannot.
        with contextlib.suppress(ValueError, OverflowError):
            match event["kind"]:
                case "activity":
                    self._run.activity = event["text"][:MAX_TEXT]
                case "progress":
                    self._progress(event, count)
                case "metrics":
                    self._judge(event["split"], event["metrics"])

    def _progress(self, event: dict[str, Any], count: bool) -> None:
        new = pb.Progress(**{name: event[name] for name in MEASURED})
        new.remaining.FromNanoseconds(int(max(0, event["remaining_seconds"]) * 1e9))
        self._run.progress.CopyFrom(new)
        self.furthest = max(self.furthest, new.step)
        if count:  # from where this process of the service found it, and never backwards
            spent = {
                account: max(0.0, seconds - self._seconds.get(account, 0.0))
                for account, seconds in event["seconds"].items()
            }
            self._metrics.count(max(0, event["images"] - self._images), spent, event["loss"])
        self._images, self._seconds = event["images"], event["seconds"]

    def _judge(self, split: str, metrics: dict[str, Sequence[float]]) -> None:
        """The last judgement of each split and name is what counts."""
        kept = [m for m in self._run.metrics if m.split != split or m.name not in metrics]
        new = [
            pb.Metric(split=split, name=name, value=value, low=low, high=high)
            for name, (value, low, high) in metrics.items()
        ]
        del self._run.metrics[:]
        self._run.metrics.extend([*kept, *new])


def _failure(encoded: str) -> EmojinetError:
    try:
        status = status_pb2.Status.FromString(base64.b64decode(encoded))
    except (ValueError, DecodeError):
        return TrainingFailed("The training failed, and its reason cannot be read.")
    return errors.from_proto(status)
