"""The training loop: from batches to weights, with checkpoints from which a killed run goes on."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from services.shared.errors import TrainingFailed
from services.trainer import checkpoint, order
from services.trainer.batches import Features, Pictures, batches
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger
from services.trainer.order import Pick
from services.trainer.recipe import Recipe
from services.trainer.world import World

TELL_SECONDS = 1.0  # between events that tell of progress
LATELY = 50  # steps over which rate and loss are means

Tell = Callable[..., object]
Judge = Callable[[int], object]


class Stopped(BaseException):
    """Somebody asked the process to end; a checkpoint has been written."""


def train(
    learner: Learner,
    source: Pictures | Features,
    folder: Path,
    *,
    ledger: Ledger,
    world: World,
    tell: Tell,
    judge: Judge = lambda step: None,
) -> None:
    """Takes the learner to the last step of its recipe.

    Goes on from the newest valid checkpoint in `folder`; position costs nothing, since the order of
    samples is computed, not replayed. SIGTERM writes a checkpoint first.

    Args:
        folder: of the checkpoints.
        tell: is told of progress, about once a second, as `Events.progress` is.
        judge: is called after every `evaluate_steps` with the number of steps done.

    Raises:
        TrainingFailed: the loss is not finite. The last good checkpoint stays.
        StorageFailed: a checkpoint cannot be written. The ones before stay.
        Stopped: at SIGTERM.
    """
    recipe = learner.recipe
    first = _resume(learner, folder, ledger)
    meter, stop = Meter(recipe, first, ledger, tell), _Stop()
    loaded = batches(source, _picks(recipe, source, first, world))
    try:
        for step in range(first, recipe.steps):
            with ledger.charge("data_wait"):
                batch = next(loaded)
            with ledger.charge("compute"):
                loss = learner.step(step, batch, world)
            if not math.isfinite(loss):
                raise _diverged(step, loss, recipe)
            meter.count(step, loss, len(batch.numbers_B) * world.size)
            done = step + 1
            last = done == recipe.steps
            if done % recipe.checkpoint_steps == 0 or last or stop.wanted:
                with ledger.charge("checkpoint"):
                    if world.main:
                        facts = {"seconds": ledger.seconds}
                        checkpoint.save(folder, done, learner.state(), facts)
            if stop.wanted:
                raise Stopped
            if recipe.evaluate_steps and done % recipe.evaluate_steps == 0 and not last:
                with ledger.charge("evaluate"):
                    judge(done)
    finally:
        loaded.close()
        stop.restore()
        meter.tell()


def _resume(learner: Learner, folder: Path, ledger: Ledger) -> int:
    found = checkpoint.newest(folder)
    if found is None:
        return 0
    learner.restore(found.tensors)
    ledger.restore(found.facts["seconds"])
    return found.step


def _picks(
    recipe: Recipe, source: Pictures | Features, first: int, world: World
) -> Iterator[list[Pick]]:
    """This process's share of each batch, from a step on."""
    count = len(source.classes)
    outputs = source.outputs
    weights_N = order.balanced(source.classes, outputs, recipe.balance) if recipe.balance else None
    for step in range(first, recipe.steps):
        yield world.share(order.batch(recipe.seed, step, recipe.batch, count, weights_N))


def _diverged(step: int, loss: float, recipe: Recipe) -> TrainingFailed:
    return TrainingFailed(
        f"The loss became {loss} at step {step}; the last checkpoint from before stays. Try a "
        f"smaller learning_rate than {recipe.learning_rate:g}, or precision=float32."
    )


class Meter:
    """How fast it goes, and how long it will take."""

    def __init__(self, recipe: Recipe, first: int, ledger: Ledger, tell: Tell) -> None:
        self._steps, self._ledger, self._tell = recipe.steps, ledger, tell
        self._lately: deque[tuple[float, int, float]] = deque(maxlen=LATELY)
        self._done, self._images, self._told = first, first * recipe.batch, 0.0
        self._began = time.monotonic(), dict(ledger.seconds)

    def count(self, step: int, loss: float, images: int) -> None:
        """One step more."""
        self._lately.append((time.monotonic(), images, loss))
        self._done, self._images = step + 1, self._images + images
        if time.monotonic() - self._told > TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Writes down how far it is."""
        if not self._lately:
            return
        self._told = now = time.monotonic()
        began, before = self._began
        seconds = {k: v - before.get(k, 0.0) for k, v in self._ledger.seconds.items()}
        # From the first step that is remembered: this includes waiting, checkpoints, all.
        since = self._lately[0][0] if len(self._lately) > 1 else began
        images = sum(images for _, images, _ in self._lately) - (
            self._lately[0][1] if len(self._lately) > 1 else 0
        )
        rate = images / max(1e-9, now - since)
        steps = max(1, len(self._lately) - 1)
        self._tell(
            step=self._done,
            steps=self._steps,
            images=self._images,
            loss=sum(loss for _, _, loss in self._lately) / len(self._lately),
            images_per_second=rate,
            data_wait_share=seconds.get("data_wait", 0.0) / max(1e-9, now - began),
            remaining_seconds=(self._steps - self._done) * (now - since) / steps,
            seconds=self._ledger.seconds,
        )


class _Stop:
    """Remembers a SIGTERM until the step is done."""

    def __init__(self) -> None:
        self.wanted = False
        self._before = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True

    def restore(self) -> None:
        """Lets the signal do what it did before."""
        signal.signal(signal.SIGTERM, self._before)
