import tracemalloc

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from inference import grpc_service_pb2 as pb
from services.inference.oip import tensors
from services.shared.errors import MalformedRequest
from tests.inference.oip.requests import floats, pictures, squares, texts

EDGE = 4
elements = st.lists(st.binary(max_size=20), min_size=1, max_size=64)
bytes_squares = st.binary(min_size=EDGE * EDGE * 3, max_size=EDGE * EDGE * 3)


@given(elements)
def test_elements_come_back_as_they_were_packed(contents: list[bytes]) -> None:
    assert tensors.unpack(tensors.pack(contents), len(contents)) == contents


@given(st.binary(max_size=60), st.integers(0, 5))
@example(b"\xff\xff\xff\xffabc", 1)
@example(b"\x00\x00\x00\x00", 2)
def test_any_bytes_are_packed_elements_or_refused(packed: bytes, count: int) -> None:
    try:
        found = tensors.unpack(packed, count)
    except MalformedRequest:
        return
    assert len(found) == count
    assert tensors.pack(found) == packed


@given(elements, st.booleans(), st.booleans())
def test_pictures_arrive_as_they_were_sent(
    contents: list[bytes], raw: bool, as_column: bool
) -> None:
    request = pictures(*contents, raw=raw)
    if as_column:
        request.inputs[0].shape.append(1)
    assert tensors.read(request, EDGE) == (contents, False)


@given(st.lists(bytes_squares, min_size=1, max_size=3), st.booleans())
def test_squares_arrive_as_the_decoder_gave_them(rgbs: list[bytes], raw: bool) -> None:
    values = np.frombuffer(b"".join(rgbs), np.uint8).reshape(-1, EDGE, EDGE, 3)
    assert tensors.read(squares(values, raw=raw), EDGE) == (rgbs, True)


def test_values_between_whole_numbers_are_rounded() -> None:
    values = np.full((1, EDGE, EDGE, 3), 254.4)
    values[0, 0, 0] = 0.6, 254.6, 1.4
    (rgb,), _ = tensors.read(squares(values), EDGE)
    assert (rgb[:3], set(rgb[3:])) == (bytes([1, 255, 1]), {254})


@pytest.mark.parametrize("value", [-0.01, 255.01, float("nan"), float("inf"), float("-inf")])
def test_a_value_that_no_pixel_has_is_refused_with_its_picture(value: float) -> None:
    values = np.full((3, EDGE, EDGE, 3), 7.0)
    values[1, 2, 3, 1] = value
    with pytest.raises(MalformedRequest, match=r"PIXELS\[1\] holds values from .* 0 to 255"):
        tensors.read(squares(values), EDGE)


def test_pixels_scaled_to_one_are_refused_rather_than_seen_as_black() -> None:
    values = np.linspace(0, 1, EDGE * EDGE * 3).reshape(1, EDGE, EDGE, 3)
    with pytest.raises(MalformedRequest, match="0 to 1"):
        tensors.read(squares(values), EDGE)
    assert tensors.read(squares(np.rint(values)), EDGE).decoded  # as dark as can be


def altered(request: pb.ModelInferRequest, **fields: object) -> pb.ModelInferRequest:
    """With fields of its only input changed."""
    tensor = request.inputs[0]
    for name, value in fields.items():
        if name == "shape":
            tensor.ClearField("shape")
            tensor.shape.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, name, value)
    return request


def both() -> pb.ModelInferRequest:
    request = pictures(b"a")
    request.inputs.add().CopyFrom(squares(np.zeros((1, EDGE, EDGE, 3))).inputs[0])
    return request


def with_raw(request: pb.ModelInferRequest, *raw: bytes) -> pb.ModelInferRequest:
    request.raw_input_contents.extend(raw)
    return request


def packed_as(raw: bytes) -> pb.ModelInferRequest:
    request = pictures(b"a")
    request.raw_input_contents[0] = raw
    return request


def shared() -> pb.ModelInferRequest:
    request = pictures(b"a", raw=False)
    request.inputs[0].parameters["shared_memory_region"].string_param = "frames"
    return request


def typed_in_another_field() -> pb.ModelInferRequest:
    request = pictures(b"a", raw=False)
    request.inputs[0].contents.int_contents.append(1)
    return request


BLACK = np.zeros((2, EDGE, EDGE, 3))
WRONG = {
    "no input": (pb.ModelInferRequest(), "inputs must be one"),
    "both inputs": (both(), "inputs must be one"),
    "unknown input": (altered(pictures(b"a"), name="input_0"), "not 'input_0'"),
    "wrong datatype": (altered(pictures(b"a"), datatype="UINT8"), "must be of BYTES, not"),
    "half floats": (altered(squares(BLACK), datatype="FP16"), "must be of FP32, not"),
    "no shape": (altered(pictures(b"a"), shape=[]), "must be of shape"),
    "no pictures": (pictures(), "N from 1 to 64, not [0]"),
    "too many": (pictures(*[b"a"] * 65), "N from 1 to 64, not [65]"),
    "negative": (altered(pictures(b"a"), shape=[-1]), "not [-1]"),
    "overflow": (altered(pictures(b"a"), shape=[2**40, 2**40]), "must be of shape"),
    "overflow of pixels": (altered(squares(BLACK), shape=[2**62, EDGE, EDGE, 3]), "of shape"),
    "many dimensions": (altered(pictures(b"a"), shape=[1] * 10**6), "[1, 1, 1, 1, 1, 1]"),
    "channels first": (altered(squares(BLACK), shape=[2, 3, EDGE, EDGE]), "[N, 4, 4, 3]"),
    "another edge": (squares(np.zeros((1, 5, 5, 3))), "[N, 4, 4, 3]"),
    "two raw for one": (with_raw(pictures(b"a"), b""), "must be one, as the input is, not 2"),
    "raw beside typed": (with_raw(pictures(b"a", raw=False), b"a"), "must be absent"),
    "nothing sent": (altered(pictures(raw=False), shape=[2]), "must have 2 bytes_contents"),
    "typed, too few": (altered(pictures(b"a", raw=False), shape=[2]), "and has 1"),
    "typed elsewhere": (typed_in_another_field(), "and also int_contents"),
    "raw, too short": (altered(squares(BLACK), shape=[1, EDGE, EDGE, 3]), "192 bytes, not 384"),
    "overrun": (
        packed_as(b"\xff\xff\xff\xffa"),
        "element 0 has 4294967295 bytes, and sends 1",
    ),
    "ends early": (altered(pictures(b"a"), shape=[2]), "before element 1 of 2"),
    "bytes left": (altered(pictures(b"a", b"b"), shape=[1]), "sends 5 bytes behind"),
    "shared memory": (shared(), "shared memory"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_breaks_a_rule_is_refused_and_named(fault: str) -> None:
    request, words = WRONG[fault]
    tracemalloc.start()
    try:
        with pytest.raises(MalformedRequest) as caught:
            tensors.read(request, EDGE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert caught.value.metadata["field"]
    assert len(str(caught.value)) < 300
    assert peak < 100_000  # whatever the shape says


names = st.sampled_from(["IMAGE", "PIXELS", "", "other"])
datatypes = st.sampled_from(["BYTES", "FP32", "", "INT8"])
sizes = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 70) | st.sampled_from([EDGE, 3])
contents = st.builds(
    pb.InferTensorContents,
    bytes_contents=st.lists(st.binary(max_size=8), max_size=4),
    fp32_contents=st.lists(st.floats(width=32), max_size=50),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=datatypes,
    shape=st.lists(sizes, max_size=5) | st.just([1, EDGE, EDGE, 3]) | st.just([1]),
    contents=st.none() | contents,
)
asks = st.builds(
    pb.ModelInferRequest,
    inputs=st.lists(inputs, max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=200), max_size=2),
)


def read_or_refused(request: pb.ModelInferRequest) -> None:
    try:
        found = tensors.read(request, EDGE)
    except MalformedRequest:
        return
    assert 1 <= len(found.pictures) <= 64
    if found.decoded:
        assert {len(rgb) for rgb in found.pictures} == {EDGE * EDGE * 3}
    assert sum(map(len, found.pictures)) <= request.ByteSize()


@given(asks)
def test_any_request_is_read_or_refused(request: pb.ModelInferRequest) -> None:
    read_or_refused(request)


@given(st.binary(max_size=300))
def test_any_bytes_that_are_a_request_are_read_or_refused(wire: bytes) -> None:
    try:
        request = pb.ModelInferRequest.FromString(wire)
    except DecodeError:
        return
    read_or_refused(request)


rows = st.lists(st.text(max_size=5), min_size=2, max_size=2)


@given(st.lists(rows, min_size=1, max_size=4), st.booleans())
def test_texts_leave_as_they_were(table: list[list[str]], raw: bool) -> None:
    response = pb.ModelInferResponse()
    tensors.add_texts(response, "EMOJI", table, raw)
    assert texts(response, "EMOJI") == table
    assert len(response.raw_output_contents) == raw
    assert response.outputs[0].HasField("contents") == (not raw)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8), st.booleans())
def test_floats_leave_as_they_were(row: list[float], raw: bool) -> None:
    response = pb.ModelInferResponse()
    tensors.add_floats(response, "PROBABILITY", np.array([row, row]), raw)
    assert floats(response, "PROBABILITY").tolist() == [row, row]
    assert len(response.raw_output_contents) == raw


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ({"int64_param": 7}, 7),
        ({"uint64_param": 2**64 - 1}, 2**64 - 1),
        ({"int64_param": 0}, 0),
        (None, 0),
    ],
)
def test_a_whole_number_is_read_from_either_field(
    parameter: dict[str, int] | None, value: int
) -> None:
    parameters = {} if parameter is None else {"timeout": pb.InferParameter(**parameter)}  # type: ignore[arg-type]
    assert tensors.whole(parameters, "timeout") == value


@pytest.mark.parametrize(
    "parameter",
    [{"int64_param": -1}, {"string_param": "7"}, {"bool_param": True}, {"double_param": 7.0}, {}],
)
def test_a_parameter_that_is_no_whole_number_is_refused(parameter: dict[str, object]) -> None:
    parameters = {"timeout": pb.InferParameter(**parameter)}  # type: ignore[arg-type]
    with pytest.raises(MalformedRequest, match="timeout must be a whole number"):
        tensors.whole(parameters, "timeout")
