"""One run, from a data set to a model and a report: what the child process does.

Everything is in the run's folder. A run that is started again in the same folder goes on: with the
steps from its newest checkpoint, with what comes after them from the beginning.

    recipe.json         what to learn, from which data set, with which arithmetic
    events.jsonl        how far it is, for whoever follows
    checkpoints/        from which it goes on
    tensorboard/        the same curves for `tensorboard --logdir`
    evaluation.json     how good it is
    model/              what may be published
    report.html         all of it for people
"""

import json
import os
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from services.shared import harness, shards
from services.shared.cores import cores
from services.shared.errors import BadDataset, MalformedRequest, StorageFailed
from services.shared.shards import SPLITS
from services.shared.vocabulary import Vocabulary
from services.trainer import checkpoint, kept, outcome, probe, prototypes, samples
from services.trainer.batches import Features, Pictures
from services.trainer.curves import Curves
from services.trainer.events import Events
from services.trainer.learner import Arithmetic, Learner
from services.trainer.ledger import Ledger
from services.trainer.recipe import Mode, Recipe
from services.trainer.samples import Samples
from services.trainer.train import train
from services.trainer.world import World

NAMED = 5  # emoji in a line that could name hundreds
PLAN = "recipe.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is asked to do."""

    recipe: Recipe
    dataset: Path
    output: Path
    """The run's folder."""
    data: Path
    """Where features are kept."""
    model_name: str
    price_per_hour: float | None = None
    """Of this machine, in any currency, for the report."""
    command: str = ""


def run(job: Job) -> None:
    """Does it, or goes on with it.

    Raises:
        EmojinetError: what is wrong, in one line, which is in the events too.
        Stopped: at SIGTERM; started again it goes on.
    """
    world = World()
    ledger = Ledger()
    with closing(Events(job.output if world.main else None)) as events:
        try:
            with events.told():
                _Run(job, world, ledger, events).go()
        finally:
            world.close()


class Plan(NamedTuple):
    """What a run found out at its beginning, and keeps to: another choice would round otherwise."""

    digest: str
    """Of the data set."""
    vocabulary: Vocabulary
    arithmetic: Arithmetic

    def to_json(self, recipe: Recipe) -> str:
        """With the recipe."""
        emoji = json.loads(self.vocabulary.to_json())
        said = {"recipe": asdict(recipe), **self._asdict(), "vocabulary": emoji}
        return json.dumps(said, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path, recipe: Recipe) -> Self:
        """From the run's folder. Raises MalformedRequest where that has a run of another recipe."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = Vocabulary.from_json(json.dumps(said["vocabulary"]))
            plan = cls(said["digest"], vocabulary, Arithmetic(*said["arithmetic"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageFailed(
                f"{path} is damaged: {error}. Start a new run.", path=str(path)
            ) from None
        if said["recipe"] != asdict(recipe):
            raise MalformedRequest(
                f"{path.parent} has a run of another recipe; name another folder.", field="recipe"
            )
        return plan


class _Run:
    def __init__(self, job: Job, world: World, ledger: Ledger, events: Events) -> None:
        self._job, self._world, self._ledger, self._events = job, world, ledger, events
        self._recipe = job.recipe
        self._told: dict[str, Any] = {}

    def go(self) -> None:
        """From the data set to the report."""
        harness.keep_large_blocks()
        torch.use_deterministic_algorithms(True)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cores() // self._world.size))
        plan = self._plan()
        splits = {
            split: samples.opened(self._job.dataset, split, plan.vocabulary) for split in SPLITS
        }
        learner = Learner(self._recipe, _counted(plan.vocabulary, splits["train"]), plan.arithmetic)
        pictures = Pictures(
            splits["train"],
            learner.preprocessing,
            len(learner.vocabulary),
            seed=self._recipe.seed,
            augment=self._recipe.augment,
            threads=torch.get_num_threads(),
        )
        if self._recipe.prototypes and checkpoint.newest(self._checkpoints) is None:
            self._events.activity("looking at a few pictures of each emoji")
            with self._ledger.charge("compute"):
                learner.begin(*prototypes.head(learner, pictures, self._recipe.prototypes))
        self._learn(learner, self._source(learner, pictures), splits["validation"])
        outcome.tell(
            self._job,
            learner,
            splits,
            plan.digest,
            len(pictures.corrupt),
            world=self._world,
            ledger=self._ledger,
            events=self._events,
        )
        if self._told:  # with where the time after the last step went
            self._events.progress(**self._told | {"seconds": self._ledger.seconds})
        self._events.done()

    @property
    def _checkpoints(self) -> Path:
        return self._job.output / "checkpoints"

    def _learn(self, learner: Learner, source: Pictures | Features, validation: Samples) -> None:
        with closing(Curves(self._job.output if self._world.main else None)) as curves:

            def tell(**progress: Any) -> None:
                self._told = progress
                self._events.progress(**progress)
                curves.progress(**progress)

            def judge(step: int) -> None:
                metrics = outcome.judged_on_the_way(learner, validation, self._world)
                self._events.metrics("validation", metrics)
                curves.metrics(step, metrics)

            self._events.activity("learning")
            train(
                learner,
                source,
                self._checkpoints,
                ledger=self._ledger,
                world=self._world,
                tell=tell,
                judge=judge,
            )

    def _plan(self) -> "Plan":
        """What an earlier process of this run wrote down, or what this one finds out."""
        path = self._job.output / PLAN
        if self._world.main and not path.exists():
            shards.replace(path, self._planned().to_json(self._recipe).encode())
        self._world.add([torch.zeros(1)])  # the others wait here
        plan = Plan.read(path, self._recipe)
        if self._world.main and (digest := samples.named(self._job.dataset)) != plan.digest:
            # Compacted: without some samples the order is another, which a take-down is worth.
            self._events.note(f"{self._job.dataset} has changed: its digest is {digest[:12]} now")
            self._verified()
        return plan

    def _planned(self) -> "Plan":
        digest = self._verified()
        vocabulary = self._taught()
        self._events.activity("choosing the fastest arithmetic")
        arithmetic, rates = probe.choose(self._recipe, vocabulary)
        best = max(rates, key=lambda name: rates[name])
        self._events.note(f"{best}: {rates[best]:.0f} images/s, of {len(rates)} ways tried")
        return Plan(digest, vocabulary, arithmetic)

    def _verified(self) -> str:
        """The data set's digest, once every byte is as it was frozen."""
        self._events.activity(f"checking {self._job.dataset}")
        return samples.verify(self._job.dataset)

    def _taught(self) -> Vocabulary:
        """The emoji of the data set that it has pictures of to learn from."""
        dataset = self._job.dataset
        known = samples.vocabulary(dataset)
        counted = _counted(known, samples.opened(dataset, "train", known))
        taught = [(e, n) for e, n in zip(counted.emoji, counted.counts, strict=True) if n]
        if len(taught) < 2:
            raise BadDataset(
                f"{dataset} has pictures to learn from of {len(taught)} emoji; at least two are "
                "needed: crawl more, and freeze anew.",
                path=str(dataset),
            )
        if empty := [e for e, n in zip(counted.emoji, counted.counts, strict=True) if not n]:
            shown = " ".join(empty[:NAMED]) + " …" * (len(empty) > NAMED)
            self._events.note(
                f"{len(empty)} of {len(known)} emoji have no picture to learn from, and are left "
                f"out of the model: {shown} Crawl more of them to have them in."
            )
        return Vocabulary(*map(tuple, zip(*taught, strict=True)))

    def _source(self, learner: Learner, pictures: Pictures) -> Pictures | Features:
        """The pictures, or what the frozen part says of them."""
        recipe = self._recipe
        views = recipe.views or (1 if recipe.mode is Mode.HEAD else 0)
        if recipe.mode is Mode.FULL or not views:
            return pictures
        with self._ledger.charge("compute"):
            return kept.keep(
                self._job.data / "features",
                learner,
                pictures,
                views,
                world=self._world,
                progress=self._events.activity,
            )


def _counted(vocabulary: Vocabulary, split: Samples) -> Vocabulary:
    """The vocabulary with how many pictures there are to learn each emoji from."""
    counts = [0] * len(vocabulary)
    for classes in split.classes:
        for place in classes:
            counts[place] += 1
    return Vocabulary(vocabulary.emoji, tuple(counts))
