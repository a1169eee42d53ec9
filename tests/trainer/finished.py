"""The facts of a run that never was, to write reports and cards from."""

import dataclasses
import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from services.shared import vocabulary
from services.shared.vocabulary import Vocabulary
from services.trainer import baselines, calibrate
from services.trainer.evaluate import Evaluation, evaluate, subgroups
from services.trainer.facts import Facts

PNG = io.BytesIO()
Image.effect_noise((300, 200), 90).convert("RGB").save(PNG, "PNG")


def facts(emoji: int = 12, judged: int = 150, **changed: Any) -> Facts:
    """A model that knows something, with these facts changed."""
    return dataclasses.replace(_facts(emoji, judged), **changed)


def judgement(known: Vocabulary, samples: int, sharp: float, seed: int) -> dict[str, Evaluation]:
    """Of a model whose logits are too sharp, and of the baselines."""
    random = np.random.default_rng(seed)
    truth = np.eye(len(known), dtype=bool)[random.integers(0, len(known), samples)]
    logits = sharp * (random.normal(size=truth.shape) + 1.5 * truth)
    temperature = calibrate.temperature(logits, truth)
    beliefs = {
        "model": calibrate.probabilities(logits),
        "calibrated": calibrate.probabilities(logits, temperature),
        **baselines.baselines(samples, known.counts, np.full(truth.shape, 1 / len(known))),
    }
    return {
        name: evaluate(
            belief, truth, counts_K=known.counts, groups_K=subgroups(known), resamples=40
        )
        for name, belief in beliefs.items()
    }


@cache
def _facts(emoji: int, samples: int) -> Facts:
    known = Vocabulary(
        tuple(e.text for e in vocabulary.inventory()[:emoji]),
        tuple(5000 // (n + 1) for n in range(emoji)),
    )
    return Facts(
        name="summer",
        recipe={"name": "quick", "backbone": "tf_efficientnet_lite0", "size_px": 224},
        dataset="pictures",
        digest="ab" * 32,
        samples={"train": 4321, "validation": samples, "test": samples},
        corrupt=3,
        vocabulary=known,
        losses=[(step, 3 / step) for step in range(1, 60)],
        seconds={"start": 5.0, "data_wait": 10.0, "compute": 80.0, "evaluate": 5.0},
        bottleneck="80% of 100.0 s went to computing.",
        images=9000,
        temperature=3.1,
        judgements={
            s: judgement(known, samples, 3, n) for n, s in enumerate(("validation", "test"))
        },
        versions={"torch": "2.14.1"},
        command="python -m services.trainer run quick",
        created="2026-11-22",
        example=lambda row: PNG.getvalue(),
    )
