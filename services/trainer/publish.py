"""From a trained network to a model that may be served: built, judged, proven, published.

What is checked where:

- `build` writes the model and proves it, so that a run ends with a good one or says why not;
- `publish` judges it by the run's evaluation.json, which stays with the run, and proves it again;
- `verify`, before live.json turns, proves what the registry holds. It cannot judge: a published
  model has no held-out samples with it, and got there only by being judged.

To prove a model is to read every file against its digest, to find its weights finite, and to
compute its probes twice, by eager PyTorch and by the exported form, within 1e-4 of what is
published with them.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.shared import golden, model, network, pixels, registry
from services.shared.errors import (
    BadDataset,
    ImageError,
    NotReady,
    TrainingFailed,
    UselessModel,
)
from services.shared.exported import open_exported
from services.shared.model import Architecture, Calibration, Preprocessing, Probes
from services.shared.shards import writable
from services.shared.vocabulary import Vocabulary
from services.trainer.facts import CALIBRATED
from services.trainer.samples import Samples

EVALUATION = "evaluation.json"
PROBE_SEED = 20151109
MOST_BYTES = 64 << 10  # of a probe that is taken as it is
BATCH = 16
COMPARED = 64  # probes that have to agree before a model may go live; servers look at 16
CROWDED = 0.5  # a prior with more in its first five leaves no room to be better in: then the first

Progress = Callable[[str], None]
Metrics = Mapping[str, Sequence[float]]
"""Of each metric its value, and the ends of its interval."""


def build(
    folder: Path,
    *,
    name: str,
    learner_net: network.Network,
    architecture: Architecture,
    preprocessing: Preprocessing,
    vocabulary: Vocabulary,
    temperature: float,
    validation: Samples,
    card: str,
    progress: Progress = lambda step: None,
) -> model.Model:
    """Writes the network into `folder`, in place of what is there, as a model that is proven.

    Raises:
        TrainingFailed: no picture of the validation split can be read.
        BadModel: the weights are not finite, or the exported form gives other answers.
        StorageFailed: the disk is full or failing. In either case nothing is left behind.
    """
    net = network.with_weights(
        network.Network(architecture, preprocessing, len(vocabulary)), network.weights(learner_net)
    )
    progress("computing the probe set")
    jpegs = probe_jpegs(validation)
    probes = Probes(jpegs, np.concatenate(list(_logits(net, preprocessing, jpegs))))
    progress("exporting to OpenVINO")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO still traces
        exported = network.export_openvino(net, preprocessing)
    progress("writing and checking the model")
    for abandoned in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with (
        writable(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staged,
    ):
        written = model.write(
            Path(staged) / folder.name,
            name=name,
            architecture=architecture,
            preprocessing=preprocessing,
            calibration=Calibration(temperature=temperature),
            vocabulary=vocabulary,
            weights=network.weights(net),
            probes=probes,
            card=card,
            openvino=exported,
        )
        prove(written)
        if folder.exists():
            shutil.rmtree(folder)
        written.folder.rename(folder)
    return model.load(folder)


def probe_jpegs(validation: Samples) -> list[bytes]:
    """Pictures of the split, of every emoji in turn, as many as a model may carry.

    Raises:
        TrainingFailed: none of them can be read.
    """
    jpegs: list[bytes] = []
    room = model.MAX_PROBE_BYTES
    for number in _in_turn(validation.classes):
        try:
            jpeg = _small(validation.read(number))
        except (BadDataset, ImageError):
            continue
        room -= len(jpeg)
        if room < 0:
            break
        jpegs.append(jpeg)
        if len(jpegs) == model.MAX_PROBES:
            break
    if not jpegs:
        raise TrainingFailed(
            "No picture of the validation split can be read, and a model needs some to be checked "
            "with. Verify the data set, or build it anew."
        )
    return jpegs


def _in_turn(classes: Sequence[tuple[int, ...]]) -> Iterator[int]:
    """Every sample once: one of each emoji, then another of each, in a seeded order."""
    draw = np.random.default_rng(PROBE_SEED)
    by_emoji: dict[int, list[int]] = {}
    for number in draw.permutation(len(classes)).tolist():
        by_emoji.setdefault(classes[number][0], []).append(number)
    left = [by_emoji[emoji] for emoji in draw.permutation(sorted(by_emoji)).tolist()]
    while left:
        yield from [numbers.pop() for numbers in left]
        left = [numbers for numbers in left if numbers]


def _small(content: bytes) -> bytes:
    """The picture as a JPEG of a few kilobytes: itself, if it is one."""
    small = pixels.prescale(content)  # in any case: what no server could decode is no probe
    return content if content[:3] == b"\xff\xd8\xff" and len(content) <= MOST_BYTES else small


def _logits(
    net: network.Network, preprocessing: Preprocessing, jpegs: list[bytes]
) -> Iterator[np.ndarray]:
    for start in range(0, len(jpegs), BATCH):
        views = [model.view(preprocessing, jpeg) for jpeg in jpegs[start : start + BATCH]]
        yield network.look(net, np.stack(views))[0]


def prove(chosen: model.Model) -> model.Model:
    """Itself, when it may be served: see the module's docstring. Raises BadModel."""
    net = network.read(chosen.check())
    golden.check(chosen, lambda x_BHWC: network.look(net, x_BHWC), count=COMPARED)
    if "openvino.xml" in chosen.files:
        golden.check(chosen, open_exported(chosen, "exact"), count=COMPARED)
    return chosen


def held_out(evaluation: Metrics, prior: Metrics) -> None:
    """Refuses a model that on held-out samples is no better than naming the most frequent emoji.

    Its first five must hit more often than the prior's, beyond chance: the prior's value lies
    below the model's 95 % interval. Where the first five are half of all anyway, its first.

    Raises:
        UselessModel: it is not.
    """
    try:
        name = "top5" if prior["top5"][0] <= CROWDED else "top1"
        value, low, high = (float(number) for number in evaluation[name])
        least = float(prior[name][0])
    except (KeyError, IndexError, TypeError, ValueError):
        raise NotReady("The evaluation has no top5 and top1 of the model and the prior.") from None
    if not low > least:  # true for NaN, too
        raise UselessModel(
            f"On held-out samples the model's {name} is {value:.3f} ({low:.3f} to {high:.3f}), and "
            f"always naming the most frequent emoji gives {least:.3f}: it has learned nothing that "
            "is sure. Train longer, on more pictures, or look at the labels."
        )


def publish(root: Path, run_model: Path) -> registry.Live:
    """Puts a copy of a run's model into the registry; twice is no harm.

    Args:
        run_model: the model's folder, with the run's evaluation.json beside it.

    Raises:
        NotReady: the run has no model, or no evaluation.
        UselessModel: it is no better than the prior.
        BadModel: it is altered, or does not give the answers that it should.
        StorageFailed: the registry cannot be written. Its live model goes on in any case.
    """
    if not (run_model / model.MANIFEST).exists():
        raise NotReady(f"There is no model in {run_model} yet. Wait until the run has succeeded.")
    held_out(*_judgement(run_model.with_name(EVALUATION)))
    chosen = model.load(run_model)
    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=registry.STAGED) as staged:
            copy = Path(staged) / chosen.name
            copy.mkdir()
            for name in (*chosen.files, model.MANIFEST):
                shutil.copyfile(run_model / name, copy / name, follow_symlinks=False)
            prove(model.load(copy))
            return registry.publish(root, copy)


def _judgement(path: Path) -> tuple[Metrics, Metrics]:
    """The metrics on held-out samples, of the model and of the prior."""
    try:
        said: dict[str, Any] = json.loads(model.read_regular(path, 64 << 20))
        return said["test"][CALIBRATED]["metrics"], said["test"]["prior"]["metrics"]
    except OSError as error:
        why = error.strerror
    except (ValueError, KeyError, TypeError, RecursionError):
        why = "it does not hold the metrics of the model and of the prior"
    raise NotReady(f"{path} cannot be read: {why}. Only a model that was judged is published.")


def verify(root: Path, which: registry.Live) -> model.Model:
    """The model of the registry, proven. Raises BadModel."""
    return prove(registry.load(root, which))
