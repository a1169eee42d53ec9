"""The processes that train together: `torchrun`'s, or this one alone."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self, TypeVar

import torch
from torch import Tensor, distributed

from services.shared.errors import TrainingFailed

# The others wait while the first one writes, evaluates or exports.
PATIENCE = timedelta(hours=2)
Item = TypeVar("Item")


class World:
    """This process's place among those that train together.

    A batch is cut into as many parts as there are processes; whatever is summed or gathered is
    the same in all of them.

    Raises:
        TrainingFailed: the processes do not find each other, or one has died.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.rank, self.size, self._device = 0, int(environ.get("WORLD_SIZE", "1")), "cpu"
        if self.size == 1:
            return
        self.rank = int(environ["RANK"])
        if torch.cuda.is_available():  # untested: there was no GPU
            self._device = f"cuda:{environ['LOCAL_RANK']}"
            torch.cuda.set_device(self._device)
        with _together("do not find each other; start them with torchrun"):
            backend = "gloo" if self._device == "cpu" else "nccl"
            distributed.init_process_group(backend, timeout=PATIENCE)

    @classmethod
    def alone(cls) -> Self:
        """A world of this process, whatever the environment says."""
        return cls({})

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes, and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part, without a gap: one process's after the other's they are all."""
        begin, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(items[begin:end])

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes."""
        if self.size == 1:
            return
        for group in _alike(tensors):
            flat = torch.cat([tensor.detach().reshape(-1).to(self._device) for tensor in group])
            with _together("cannot go on: one of them has died"):
                distributed.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes, the first one's first; each may have any number of them.

        Made of what one `share` has cut they are in the order of the whole.
        """
        if self.size == 1:
            return x
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(x)
        self.add([counts])
        rows = [int(count) for count in counts]
        # As bytes, and all of one shape: so gloo takes any type.
        padded = torch.zeros((max(rows), *x.shape[1:]), dtype=x.dtype, device=self._device)
        padded[: len(x)] = x.detach()
        parts = [torch.empty_like(padded) for _ in rows]
        with _together("cannot go on: one of them has died"):
            distributed.all_gather([_bytes(part) for part in parts], _bytes(padded))
        whole = [part[:count] for part, count in zip(parts, rows, strict=True)]
        return torch.cat(whole).to(x.device)

    def close(self) -> None:
        """Leaves the others."""
        if self.size > 1:
            distributed.destroy_process_group()


def _alike(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The tensors by type: those of one are summed at once, which is one message, not hundreds."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return groups.values()


def _bytes(x: Tensor) -> Tensor:
    return x.reshape(-1).view(torch.uint8)


@contextmanager
def _together(trouble: str) -> Iterator[None]:
    """Turns what torch raises when processes lose each other into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise TrainingFailed(f"The processes of this training {trouble}: {why}.") from error
