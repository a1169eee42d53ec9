"""What is known of a finished run: what its report and its model's card are written from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.shared.vocabulary import Vocabulary
from services.trainer.evaluate import Evaluation
from services.trainer.figures import PARTS

MODEL, CALIBRATED = "model", "calibrated"  # before and after the temperature
BASELINES = {
    "starter": "the starter, which has seen no post",
    "prior": "always the most frequent emoji",
    "chance": "any emoji alike",
}
FEW = 20  # samples, below which an emoji's own figures say little


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Of one run; what is text may come from anywhere, and is shown as text."""

    name: str
    """Of the model."""
    recipe: Mapping[str, Any]
    dataset: str
    digest: str
    """Of the data set, sha256."""
    samples: Mapping[str, int]
    """By split, as in the data set."""
    corrupt: int
    """Samples that could not be read, and were left out."""
    vocabulary: Vocabulary
    """With how many training samples each emoji has."""
    losses: Sequence[tuple[int, float]]
    """Step and loss."""
    seconds: Mapping[str, float]
    """By account of the ledger."""
    bottleneck: str
    images: int
    """Learned from, each as often as it was seen."""
    temperature: float
    judgements: Mapping[str, Mapping[str, Evaluation]]
    """By split, of MODEL, CALIBRATED and the BASELINES; `validation`, and `test` if there is one.
    All on the same samples, with the same seed."""
    versions: Mapping[str, str]
    command: str
    created: str
    """The day."""
    price_per_hour: float | None = None
    """Of the machine, in any currency."""
    example: Callable[[int], bytes] | None = None
    """The encoded picture of a row of the judged split, for the confusions."""
    licences: Sequence[str] = ()
    """What weights and pictures came with, a sentence each."""
    remarks: Sequence[str] = ()
    """What else a reader should know, a sentence each: `drawings, not photographs`."""

    @property
    def split(self) -> str:
        """The split that says how good the model is: nothing was chosen by it."""
        return "test" if "test" in self.judgements else "validation"

    @property
    def judged(self) -> Evaluation:
        """The model as it is published."""
        return self.judgements[self.split][CALIBRATED]

    @property
    def others(self) -> dict[str, Evaluation]:
        """The baselines that there are, the strongest first."""
        there = self.judgements[self.split]
        return {name: there[name] for name in BASELINES if name in there}

    @property
    def images_per_second(self) -> float:
        """While it learned: computing, and waiting for pictures."""
        spent = self.seconds.get("compute", 0.0) + self.seconds.get("data_wait", 0.0)
        return self.images / spent if spent else 0.0

    @property
    def seconds_per_thousand(self) -> float:
        """Of the whole run, start to model, for each thousand images that it learned from."""
        return sum(self.seconds.values()) / self.images * 1000 if self.images else 0.0

    @property
    def price_per_thousand(self) -> float | None:
        """The same in money, if the machine has a price."""
        if self.price_per_hour is None:
            return None
        return self.seconds_per_thousand / 3600 * self.price_per_hour

    def limits(self) -> list[str]:
        """What limits the model, and what limits what is said of it, a sentence each."""
        judged, metrics = self.judged, self.judged.metrics
        said = list(self.remarks)
        if self.split != "test":
            said.append(
                "There is no test split: the temperature was fitted on the samples that it is "
                "judged on, so calibration looks better than it is."
            )
        top1 = metrics["top1"]
        if top1.high - top1.low > 0.1:
            said.append(
                f"It was judged on {judged.samples:,} samples: top-1 is anywhere from "
                f"{top1.low:.0%} to {top1.high:.0%}."
            )
        if unmet := judged.classes - judged.met:
            said.append(
                f"{unmet:,} of {judged.classes:,} emoji have no sample to judge on: nothing is "
                "known of them."
            )
        if untaught := sum(not count for count in self.vocabulary.counts):
            said.append(
                f"{untaught:,} emoji have no sample to learn from, and are hardly suggested."
            )
        few = sum(row.samples < FEW for row in judged.per_class)
        if few:
            said.append(
                f"{few:,} emoji were judged on fewer than {FEW} samples each: their own figures "
                "say little."
            )
        head, tail = (metrics.get(f"macro_recall_{part}") for part in (PARTS[0], PARTS[-1]))
        if head and tail and head.low > tail.high:
            said.append(
                f"It knows frequent emoji better: mean recall is {head.value:.0%} for the head, "
                f"{tail.value:.0%} for the tail."
            )
        if metrics["ece"].low > 0.05:
            said.append(
                f"Its confidence is off by {metrics['ece'].value:.0%} on average, temperature and "
                "all."
            )
        return said
