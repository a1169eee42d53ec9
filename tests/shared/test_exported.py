"""Each in a process of its own, as in service: beside torch, OpenVINO crashes now and then."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13

from services.shared import exported, golden, model
from services.shared.exported import open_exported


def apart(check: Callable[..., None], *arguments: Any) -> None:
    """What raises there raises here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(check, *arguments).result(timeout=120)


@pytest.mark.parametrize("precision", ["exact", "reduced"])
def test_the_starter_passes_the_gate_of_each_precision(starter: Path, precision: str) -> None:
    apart(passes, starter, precision)


def passes(starter: Path, precision: str) -> None:
    published = model.load(starter)
    golden.check(published, open_exported(published, precision), precision)


@pytest.mark.parametrize(("precision", "within"), [("exact", 1e-4), ("reduced", 0.05)])
def test_a_batch_is_answered_as_its_pictures_are_one_by_one(
    starter: Path, precision: str, within: float
) -> None:
    apart(answers_batches, starter, precision, within)


def answers_batches(starter: Path, precision: str, within: float) -> None:
    published = model.load(starter)
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    look = open_exported(published, precision)
    alone = [look(image[None])[0][0] for image in images]

    logits, maps = look(images)

    assert maps.shape == (3, published.architecture.features, 7, 7)
    np.testing.assert_allclose(logits, alone, atol=within)


@pytest.mark.parametrize("precision", ["exact", "reduced"])
def test_threads_change_no_answer(starter: Path, precision: str) -> None:
    apart(answers_alike, starter, precision)


def answers_alike(starter: Path, precision: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    narrow, wide = exported.open_each(model.load(starter), precision, [1, 2])
    np.testing.assert_allclose(narrow(image)[0], wide(image)[0], atol=1e-4)


def convolved(x: openvino.Node, times: int) -> openvino.Node:
    for _ in range(times):
        weights = opset13.constant(np.ones((3, 3, 1, 1), np.float32) / 3)
        x = opset13.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return x


def test_the_first_convolutions_keep_float32() -> None:
    apart(keeps_the_first)


def keeps_the_first() -> None:
    x = opset13.parameter([-1, 3, 8, 8], np.float32)
    y = convolved(x, 5)

    (first, kept), (rest, lowered) = exported._cut(openvino.Model([y], [x]))

    assert (kept, lowered) == ("f32", "bf16")
    kinds = [[op.get_type_name() for op in part.get_ops()] for part in (first, rest)]
    assert [kind.count("Convolution") for kind in kinds] == [exported.WHOLE, 2]


@pytest.mark.parametrize("case", ["few convolutions", "a way around the cut"])
def test_what_cannot_be_cut_is_lowered_as_a_whole(case: str) -> None:
    apart(stays_whole, case)


def stays_whole(case: str) -> None:
    x = opset13.parameter([-1, 3, 8, 8], np.float32)
    y = convolved(x, 2) if case == "few convolutions" else opset13.add(convolved(x, 5), x)
    network = openvino.Model([y], [x])

    ((whole, precision),) = exported._cut(network)

    assert whole is network
    assert precision == "bf16"
    look = openvino.Core().compile_model(whole, "CPU")
    assert look(np.ones((1, 3, 8, 8), np.float32))[0].shape == (1, 3, 8, 8)
