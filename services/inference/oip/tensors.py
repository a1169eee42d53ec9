"""What travels as tensors: from the wire to pictures, and from what was seen to the wire.

A request says a shape and sends elements, typed in `contents` or packed in `raw_input_contents`;
a stranger may say one thing and send another. Nothing is allocated by what a shape says, only by
what was sent.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from inference import grpc_service_pb2 as pb
from services.inference.server import MAX_IMAGES
from services.shared.errors import MalformedRequest

IMAGE, PIXELS = "IMAGE", "PIXELS"
DATATYPES = {IMAGE: "BYTES", PIXELS: "FP32"}
CONTENTS = {IMAGE: "bytes_contents", PIXELS: "fp32_contents"}
LENGTH = struct.Struct("<I")
MEMORY = "shared_memory_region"

Tensor: TypeAlias = pb.ModelInferRequest.InferInputTensor


class Sent(NamedTuple):
    """The pictures of a request."""

    pictures: list[bytes]
    decoded: bool
    """Whether they are the RGB bytes of squares, rather than encoded."""


def read(request: pb.ModelInferRequest, edge_px: int) -> Sent:
    """The pictures that a request sends for a model that looks at squares of this edge.

    Raises:
        MalformedRequest: it breaks a rule of the protocol, or of the model's inputs.
    """
    tensor = _only(request)
    count = _count(tensor, edge_px)
    raw = _raw(request)
    if tensor.name == IMAGE:
        return Sent(_pictures(tensor, raw, count), False)
    return Sent(_squares(tensor, raw, count, edge_px), True)


def add_floats(response: pb.ModelInferResponse, name: str, values: np.ndarray, raw: bool) -> None:
    """Appends an output of FP32."""
    values = values.astype("<f4", copy=False)
    output = response.outputs.add(name=name, datatype="FP32", shape=values.shape)
    if raw:
        response.raw_output_contents.append(values.tobytes())
    else:
        output.contents.fp32_contents.extend(values.ravel().tolist())


def add_texts(
    response: pb.ModelInferResponse, name: str, rows: Sequence[Sequence[str]], raw: bool
) -> None:
    """Appends an output of BYTES, its elements UTF-8; all rows are of one length."""
    texts = [text.encode() for row in rows for text in row]
    output = response.outputs.add(name=name, datatype="BYTES", shape=[len(rows), len(rows[0])])
    if raw:
        response.raw_output_contents.append(pack(texts))
    else:
        output.contents.bytes_contents.extend(texts)


def pack(elements: Sequence[bytes]) -> bytes:
    """Elements of BYTES, each behind its length.

    >>> pack([b"ab", b""])
    b'\\x02\\x00\\x00\\x00ab\\x00\\x00\\x00\\x00'
    """
    return b"".join(part for element in elements for part in (LENGTH.pack(len(element)), element))


def unpack(packed: bytes, count: int) -> list[bytes]:
    """The `count` elements that `pack` was given; raises MalformedRequest for other bytes."""
    elements, start = [], 0
    for index in range(count):
        begin = start + LENGTH.size
        if begin > len(packed):
            raise malformed(IMAGE, f"ends before element {index} of {count}")
        (length,) = LENGTH.unpack_from(packed, start)
        start = begin + length
        if start > len(packed):
            room = len(packed) - begin
            raise malformed(
                IMAGE, f"says that element {index} has {length} bytes, and sends {room}"
            )
        elements.append(packed[begin:start])
    if start < len(packed):
        raise malformed(IMAGE, f"sends {len(packed) - start} bytes behind its {count} elements")
    return elements


def whole(parameters: Mapping[str, pb.InferParameter], name: str) -> int:
    """The parameter as a whole number; 0 where it is absent."""
    if name not in parameters:
        return 0
    kind = parameters[name].WhichOneof("parameter_choice")
    value = getattr(parameters[name], kind) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise malformed(name, "must be a whole number, 0 or more")
    return value


def unshared(parameters: Mapping[str, pb.InferParameter], name: str) -> None:
    """Raises MalformedRequest where a tensor should go through shared memory."""
    if MEMORY in parameters:
        raise malformed(name, "cannot go through shared memory here: send its contents")


def malformed(field: str, fault: str) -> MalformedRequest:
    """The refusal of a request for what its tensor or parameter does."""
    return MalformedRequest(f"{field[:40]} {fault}.", field=field[:40])


def _only(request: pb.ModelInferRequest) -> Tensor:
    if len(request.inputs) != 1:
        raise malformed("inputs", f"must be one: either {IMAGE} or {PIXELS}")
    tensor = request.inputs[0]
    if tensor.name not in DATATYPES:
        raise malformed("inputs", f"must be {IMAGE} or {PIXELS}, not {tensor.name[:40]!r}")
    if tensor.datatype != DATATYPES[tensor.name]:
        found = tensor.datatype[:40]
        raise malformed(tensor.name, f"must be of {DATATYPES[tensor.name]}, not of {found!r}")
    unshared(tensor.parameters, tensor.name)
    return tensor


def _count(tensor: Tensor, edge_px: int) -> int:
    """How many pictures its shape says; raises MalformedRequest when it is none of the input's."""
    shapes: list[list[int]] = [[], [1]] if tensor.name == IMAGE else [[edge_px, edge_px, 3]]
    shape = list(tensor.shape[:6])  # whoever sends a million dimensions need not read them again
    if not shape or shape[1:] not in shapes or not 1 <= shape[0] <= MAX_IMAGES:
        right = " or ".join(str(["N", *rest]).replace("'", "") for rest in shapes)
        raise malformed(
            tensor.name, f"must be of shape {right} with N from 1 to {MAX_IMAGES}, not {shape}"
        )
    return shape[0]


def _raw(request: pb.ModelInferRequest) -> bytes | None:
    """The packed elements of the only input; None where it is typed."""
    if not request.raw_input_contents:
        return None
    if request.inputs[0].HasField("contents"):
        raise malformed("contents", "must be absent where there are raw_input_contents")
    if len(request.raw_input_contents) != 1:
        found = len(request.raw_input_contents)
        raise malformed("raw_input_contents", f"must be one, as the input is, not {found}")
    return request.raw_input_contents[0]


def _pictures(tensor: Tensor, raw: bytes | None, count: int) -> list[bytes]:
    if raw is not None:
        return unpack(raw, count)
    _check_typed(tensor, count)
    return list(tensor.contents.bytes_contents)


def _squares(tensor: Tensor, raw: bytes | None, count: int, edge_px: int) -> list[bytes]:
    """The RGB bytes of each square."""
    values = edge_px**2 * 3
    if raw is None:
        _check_typed(tensor, count * values)
        pixels = np.array(tensor.contents.fp32_contents, np.float32)
    elif len(raw) != count * values * 4:
        raise malformed(PIXELS, f"must have {count * values * 4} bytes, not {len(raw)}")
    else:
        pixels = np.frombuffer(raw, "<f4")
    return _rgbs(pixels.reshape(count, values))


def _rgbs(pixels: np.ndarray) -> list[bytes]:
    """Whole numbers of one byte, as the decoder gives them: the device takes nothing else."""
    with np.errstate(invalid="ignore"):
        lows, highs = pixels.min(1), pixels.max(1)
    for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if not (low >= 0 and high <= 255):  # false for NaN, too
            fault = f"holds values from {low:g} to {high:g}; they go from 0 to 255"
            raise malformed(f"{PIXELS}[{index}]", fault)
        if high <= 1 and (pixels[index] % 1).any():  # it would be seen as black, without a word
            raise malformed(f"{PIXELS}[{index}]", "was scaled to 0 to 1; values go from 0 to 255")
    return [row.tobytes() for row in np.rint(pixels).astype(np.uint8)]


def _check_typed(tensor: Tensor, count: int) -> None:
    field = CONTENTS[tensor.name]
    others = [found.name for found, _ in tensor.contents.ListFields() if found.name != field]
    found = len(getattr(tensor.contents, field))
    if others or found != count:
        also = f" and also {others[0]}" if others else ""
        fault = f"must have {count} {field}, and has {found}{also}; or send raw_input_contents"
        raise malformed(tensor.name, fault)
