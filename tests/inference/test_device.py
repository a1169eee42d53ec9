"""What a device worker must prove before it may serve, and how it answers."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest

from services.inference import device
from services.inference.backends import timed
from services.shared import model
from services.shared.errors import BadModel
from services.shared.model import Model


@pytest.fixture
def published(tiny: Path) -> Model:
    return model.load(tiny)


def test_a_folder_that_was_replaced_meanwhile_is_noticed(published: Model) -> None:
    with pytest.raises(BadModel, match="replaced"):
        device.prepare(published.folder, "0" * 12, "timed:5ms", "exact")


def test_a_timed_device_says_what_its_batches_take_and_answers_the_prior(
    published: Model,
) -> None:
    hello, handle = device.prepare(published.folder, published.version, "timed:20ms+10ms", "exact")
    said = json.loads(hello)
    assert said["backend"] == "timed:20ms+10ms"
    assert said["seconds"]["1"] == pytest.approx(0.02)
    assert said["seconds"]["4"] == pytest.approx(0.05)
    edge = published.preprocessing.size_px
    record = device.ASK.pack(False, False, -1) + bytes(edge * edge * 3)
    began = time.perf_counter()
    reply = handle(memoryview(record * 2))
    elapsed = time.perf_counter() - began
    (took,) = device.TOOK.unpack_from(reply)
    size = device.SIZE.unpack_from(reply, device.TOOK.size)[0]
    assert 0.03 <= took <= elapsed
    assert len(reply) == device.TOOK.size + 2 * (device.SIZE.size + size)
    logits = np.frombuffer(reply, "<f4", size // 4, device.TOOK.size + device.SIZE.size)
    prior = published.vocabulary.prior()
    assert published.probabilities(logits[None])[0] == pytest.approx(prior, abs=1e-5)


@pytest.mark.parametrize("alone", [False, True])
def test_an_image_that_is_alone_is_computed_by_what_is_wider(published: Model, alone: bool) -> None:
    one = timed.open_timed(published, "timed:1ms")
    other = timed.open_timed(published, "timed:1000ms")
    edge = published.preprocessing.size_px
    record = device.ASK.pack(alone, False, -1) + bytes(edge * edge * 3)
    reply = device.Device(published, one, other, time.perf_counter).handle(memoryview(record))
    (took,) = device.TOOK.unpack_from(reply)
    assert (took >= 1) is alone


def test_none_of_these_takes_nothing_from_a_timed_prior(published: Model) -> None:
    with_none = dataclasses.replace(
        published, calibration=dataclasses.replace(published.calibration, none=True)
    )
    logits, _ = timed.open_timed(with_none, "timed:1ms")(np.zeros((1, 32, 32, 3), np.uint8))
    assert with_none.probabilities(logits).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "backend",
    [
        "timed:",
        "timed:20",
        "timed:0ms",
        "timed:20ms+",
        "timed:1msx0",
        "timed:-1ms",
        "timed:99999999ms",
        "timed:20msx4x4",
    ],
)
def test_a_timed_backend_that_makes_no_sense_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"timed:|BASE"):
        timed.parse(backend)
