from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from inference import grpc_service_pb2 as pb
from services.inference.gate import Seen
from services.inference.oip import outputs
from services.shared import model
from services.shared.errors import MalformedRequest
from services.shared.queue import Served
from tests.conftest import TINY_EMOJI
from tests.inference.oip.requests import asking, floats, texts

SERVED = Served(b"", 0, 1, 0.0, 0.0)


def seen(*probabilities: float) -> Seen:
    return Seen(np.array(probabilities, np.float32), np.arange(6, dtype=np.float32), None, SERVED)


def answered(tiny: Path, request: pb.ModelInferRequest, *ones: Seen) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    outputs.fill(response, outputs.wanted(request), model.load(tiny), list(ones), True)
    return response


def listed(response: pb.ModelInferResponse) -> list[tuple[str, str, Sequence[int]]]:
    return [(o.name, o.datatype, list(o.shape)) for o in response.outputs]


PAIR = seen(0.1, 0.2, 0.4, 0.05, 0.25), seen(0.9, 0.02, 0.03, 0.04, 0.01)


def test_all_outputs_are_given_where_none_is_named(tiny: Path) -> None:
    response = answered(tiny, pb.ModelInferRequest(), *PAIR)
    assert listed(response) == [
        ("PROBABILITY", "FP32", [2, 5]),
        ("EMOJI", "BYTES", [2, 5]),
        ("EMBEDDING", "FP32", [2, 6]),
    ]
    assert np.array_equal(floats(response, "PROBABILITY")[1], PAIR[1].probabilities_K)
    assert texts(response, "EMOJI") == [
        ["❤️", "🚗", "🐕", "🍕", "🌅"],
        ["🍕", "🌅", "❤️", "🐕", "🚗"],
    ]
    assert floats(response, "EMBEDDING").tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_what_is_named_is_given_alone_and_in_that_order(tiny: Path) -> None:
    request = asking(pb.ModelInferRequest(), "EMBEDDING", "PROBABILITY")
    names = [name for name, _, _ in listed(answered(tiny, request, *PAIR))]
    assert names == ["EMBEDDING", "PROBABILITY"]


def test_classes_are_score_index_and_label_as_triton_writes_them(tiny: Path) -> None:
    request = asking(pb.ModelInferRequest(), "PROBABILITY", classes=2)
    response = answered(tiny, request, *PAIR)
    assert listed(response) == [("PROBABILITY", "BYTES", [2, 2])]
    assert texts(response, "PROBABILITY") == [
        ["0.400000:2:❤️", "0.250000:4:🚗"],
        ["0.900000:0:🍕", "0.040000:3:🌅"],
    ]


def test_more_classes_than_there_are_is_all_of_them(tiny: Path) -> None:
    request = asking(pb.ModelInferRequest(), "PROBABILITY", classes=2**40)
    (row,) = texts(answered(tiny, request, PAIR[0]), "PROBABILITY")
    assert {text.split(":")[2] for text in row} == set(TINY_EMOJI)


@pytest.mark.parametrize(
    ("names", "classes", "words"),
    [
        (["SCORE"], 0, "not 'SCORE'"),
        (["EMOJI", "EMOJI"], 0, "name EMOJI once"),
        (["EMOJI"], 3, "classification is of PROBABILITY, not of EMOJI"),
        (["PROBABILITY"], -1, "classification must be a whole number"),
    ],
)
def test_an_output_that_is_not_there_is_refused(names: list[str], classes: int, words: str) -> None:
    with pytest.raises(MalformedRequest, match=words):
        outputs.wanted(asking(pb.ModelInferRequest(), *names, classes=classes))


def test_an_output_cannot_go_through_shared_memory() -> None:
    request = asking(pb.ModelInferRequest(), "EMOJI")
    request.outputs[0].parameters["shared_memory_region"].string_param = "frames"
    with pytest.raises(MalformedRequest, match="shared memory"):
        outputs.wanted(request)
