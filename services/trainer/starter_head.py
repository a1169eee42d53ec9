"""The recipe of the starter's extra classes, which makes `services/shared/extras.safetensors`.

    python -m services.trainer.photos data/photos
    python -m services.trainer.drawings
    OMP_NUM_THREADS=1 python -m services.trainer.starter_head data/photos [MORE]

ImageNet's rows stay as they are, divided by a temperature; the extra rows are learned beside them,
so that one softmax over all classes is right. What is fitted afterwards is fitted on photographs
that nothing learned from, and `python -m tests.bench.starter` judges on yet others.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from services.shared import extras, starter
from services.shared.vocabulary import Vocabulary, inventory
from services.trainer import drawings, lessons, photos
from services.trainer.lessons import Lessons, School
from services.trainer.photos import Photo

TEMPERATURES = np.linspace(0.5, 1.5, 21)
BIASES = np.linspace(-4, 4, 33)
STEPS, BATCH, RATE, DECAY = 500, 4096, 0.02, 1e-5
FLOOR = 1e-6
BENEFIT = {"face": 3.0, "person": 3.0} | dict.fromkeys(lessons.HANDS, 1.0)
"""Added to the logits of people: in doubt, a person. Nothing else should be said of a face, and it
costs no other kind of photograph its first place; more for hands would cost what they hold."""

# N squares, F features, C classes, E extra ones, K outputs


class Rows(NamedTuple):
    """Of a classifier."""

    weight_CF: np.ndarray
    bias_C: np.ndarray

    def logits(self, features_NF: np.ndarray) -> np.ndarray:
        """One for each square and class (N, C)."""
        logits_NC: np.ndarray = features_NF @ self.weight_CF.T + self.bias_C
        return logits_NC


class Judged(NamedTuple):
    """Squares with the outputs that are right, to fit single numbers on."""

    features_NF: np.ndarray
    wanted_NK: np.ndarray

    def loss(self, logits_NC: np.ndarray, table_CK: np.ndarray) -> float:
        """The mean surprise that a wanted output is right."""
        belief_NC = np.exp(logits_NC - np.logaddexp.reduce(logits_NC, axis=1, keepdims=True))
        right_N = (belief_NC @ table_CK * self.wanted_NK).sum(1)
        return float(-np.log(right_N + FLOOR).mean())


def main() -> None:
    """Computes the features, fits, and writes the rows."""
    parser = argparse.ArgumentParser(prog="python -m services.trainer.starter_head")
    parser.add_argument("folders", type=Path, nargs="+", help="where photographs lie")
    parser.add_argument("--without", choices=[vendor.name for vendor in drawings.STARTERS])
    flags = parser.parse_args()
    net = lessons.imagenet()
    school = School(net, flags.folders)
    photos_NVF, nothing_NF = school.photos(), school.nothing()
    taught = len(nothing_NF) * 3 // 4

    weight, bias = (p.detach().numpy() for p in net.head.classifier.parameters())
    temperature = fit_temperature(Rows(weight, bias), known(school.shown, photos_NVF[:, 0]))
    imagenet = Rows(weight / temperature, bias / temperature)
    drawn = dict(school.drawing_lessons())
    taught_by = [
        *school.photo_lessons(photos_NVF),
        *(taught for vendor, taught in drawn.items() if vendor != flags.without),
        *school.hand_lessons(),
        school.nothing_lessons(nothing_NF[:taught]),
    ]
    extra = learn(taught_by, imagenet, len(school.names))
    if flags.without:
        print(recognised(imagenet, extra, drawn[flags.without]))
        return
    for name, benefit in BENEFIT.items():
        extra.bias_C[school.names.index(name)] += benefit
    extra.bias_C[school.names.index(extras.NOTHING)] += fit_nothing(
        imagenet, extra, school, unknown(school.shown, photos_NVF[:, 0], nothing_NF[taught:])
    )
    extras.write(
        extras.Rows(school.names, *extra, temperature), sources="\n".join(sources(school.shown))
    )
    print(f"temperature {temperature:.2f}; {extras.ROWS} has {extras.ROWS.stat().st_size:,} bytes")


def known(shown: list[Photo], seen_NF: np.ndarray) -> Judged:
    """Photographs of what ImageNet knows, none of them for testing."""
    judged = [
        index
        for index, photo in enumerate(shown)
        if photo.part != "test" and not photos.labels()[photo.label].name
    ]
    return Judged(seen_NF[judged], _wanted([shown[index] for index in judged]))


def unknown(shown: list[Photo], seen_NF: np.ndarray, nothing_NF: np.ndarray) -> Judged:
    """Photographs and noise that nothing learned from, none for testing; noise wants no emoji."""
    judged = [
        index
        for index, photo in enumerate(shown)
        if photo.part == "val" and photos.labels()[photo.label].kind in ("object", "scene")
    ]
    wanted_NK = _wanted([shown[index] for index in judged])
    none_NK = np.zeros((len(nothing_NF), wanted_NK.shape[1]))
    none_NK[:, -1] = 1
    return Judged(
        np.concatenate([seen_NF[judged], nothing_NF]), np.concatenate([wanted_NK, none_NK])
    )


def _wanted(shown: list[Photo]) -> np.ndarray:
    vocabulary = _vocabulary()
    wanted_NK = np.zeros((len(shown), len(vocabulary) + 1))
    for row_K, photo in zip(wanted_NK, shown, strict=True):
        for emoji in photos.labels()[photo.label].emoji:
            row_K[vocabulary.index(emoji)] = 1
    return wanted_NK[:, :]


def _vocabulary() -> Vocabulary:
    return Vocabulary(tuple(e.text for e in inventory()), (0,) * len(inventory()))


def fit_temperature(imagenet: Rows, judged: Judged) -> float:
    """Which makes acceptable emoji likeliest on photographs of what ImageNet knows."""
    logits_NC, table_CK = imagenet.logits(judged.features_NF), starter.table(_vocabulary(), [])
    losses = [judged.loss(logits_NC / temperature, table_CK) for temperature in TEMPERATURES]
    return float(TEMPERATURES[np.argmin(losses)])


def fit_nothing(imagenet: Rows, extra: Rows, school: School, judged: Judged) -> float:
    """How much more readily "nothing" should be said than was learned."""
    table_CK = starter.table(_vocabulary(), school.names)
    logits_NC = np.concatenate([rows.logits(judged.features_NF) for rows in (imagenet, extra)], 1)
    place = len(imagenet.bias_C) + school.names.index(extras.NOTHING)
    one_C = np.eye(logits_NC.shape[1])[place]
    losses = [judged.loss(logits_NC + bias * one_C, table_CK) for bias in BIASES]
    print(f"nothing: bias {BIASES[np.argmin(losses)]:+.2f}")
    return float(BIASES[np.argmin(losses)])


def learn(taught_by: list[Lessons], imagenet: Rows, count: int) -> Rows:
    """Extra rows that are right beside ImageNet's, and all unlikely where none of them is right."""
    x_NF = torch.from_numpy(np.concatenate([lesson.features_NF for lesson in taught_by]))
    y_N = torch.from_numpy(np.concatenate([lesson.targets_N for lesson in taught_by]))
    rest_N = torch.from_numpy(np.logaddexp.reduce(imagenet.logits(x_NF.numpy()), axis=1))
    counts_E = torch.bincount(y_N[y_N >= 0], minlength=count).float()
    rarity_E = (counts_E.mean() / counts_E.clamp(min=1)).sqrt()
    importance_N = torch.where(y_N >= 0, rarity_E[y_N], 1.0)
    weight_EF = torch.zeros(count, x_NF.shape[1], requires_grad=True)
    bias_E = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.Adam([weight_EF, bias_E], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    order = torch.Generator().manual_seed(lessons.SEED)
    for step in range(1, STEPS + 1):
        batch = torch.randint(len(y_N), (BATCH,), generator=order)
        # The last score is that of all ImageNet's classes; a target of -1 points at it.
        scores = torch.cat([x_NF[batch] @ weight_EF.T + bias_E, rest_N[batch, None]], 1)
        surprise_B = torch.nn.functional.cross_entropy(
            scores, y_N[batch] % (count + 1), reduction="none"
        )
        loss = (surprise_B * importance_N[batch]).mean() + DECAY * weight_EF.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return Rows(weight_EF.detach().numpy(), bias_E.detach().numpy())


def recognised(imagenet: Rows, extra: Rows, drawn: Lessons) -> str:
    """How many drawings, on white and in all views, are taken for what they are."""
    logits_NC = [rows.logits(drawn.features_NF) for rows in (extra, imagenet)]
    right_N = np.concatenate(logits_NC, 1).argmax(1) == drawn.targets_N
    on_white = right_N[:: lessons.DRAWING_VIEWS].mean()
    return f"{on_white:.1%} of {len(right_N) // lessons.DRAWING_VIEWS}; {right_N.mean():.1%} of all"


def sources(shown: list[Photo]) -> list[str]:
    """What the rows were made from, for whoever asks the file."""
    learned = {f"{photo.origin}: {photo.licence}" for photo in shown if photo.part == "train"}
    drawn = {f"npm:{vendor.package}: {vendor.licence}" for vendor in drawings.STARTERS}
    return sorted(learned | drawn)


if __name__ == "__main__":
    main()
