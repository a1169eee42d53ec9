"""A run's curves for TensorBoard, beside its events: `tensorboard --logdir data/runs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Curves:
    """Writes scalars into a run's folder; a folder of None is that of a process that is silent."""

    def __init__(self, run: Path | None) -> None:
        self._writer: Any = None
        if run is not None:
            from torch.utils.tensorboard import SummaryWriter  # a second to import

            self._writer = SummaryWriter(str(run / FOLDER))

    def progress(
        self, *, step: int, seconds: Mapping[str, float], **scalars: float | Mapping[str, float]
    ) -> None:
        """Loss and rates by step, and where the time went."""
        named = {f"train/{name}": value for name, value in scalars.items()}
        for name, value in (named | {f"seconds/{k}": v for k, v in seconds.items()}).items():
            self._add(name, value, step)

    def metrics(self, step: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Judgements on the validation split, without their intervals."""
        for name, (value, *_) in metrics.items():
            self._add(f"validation/{name}", value, step)

    def _add(self, name: str, value: object, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Has everything on the disk."""
        if self._writer is not None:
            self._writer.close()
