"""Requests of the Open Inference Protocol, made as its clients make them."""

from collections.abc import Sequence

import numpy as np

from inference import grpc_service_pb2 as pb
from services.inference.oip import tensors

Tensor = pb.ModelInferRequest.InferInputTensor


def pictures(*contents: bytes, name: str = "tiny", raw: bool = True) -> pb.ModelInferRequest:
    """Encoded pictures."""
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="IMAGE", datatype="BYTES", shape=[len(contents)])
    if raw:
        request.raw_input_contents.append(tensors.pack(contents))
    else:
        tensor.contents.bytes_contents.extend(contents)
    return request


def squares(values: np.ndarray, name: str = "tiny", raw: bool = True) -> pb.ModelInferRequest:
    """Squares (N, S, S, 3) that have been decoded already."""
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="PIXELS", datatype="FP32", shape=values.shape)
    if raw:
        request.raw_input_contents.append(values.astype("<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(values.ravel().tolist())
    return request


def asking(request: pb.ModelInferRequest, *names: str, classes: int = 0) -> pb.ModelInferRequest:
    """The request with these outputs asked for."""
    for name in names:
        output = request.outputs.add(name=name)
        if classes:
            output.parameters["classification"].int64_param = classes
    return request


def floats(response: pb.ModelInferResponse, name: str) -> np.ndarray:
    """An output of FP32, packed or typed."""
    index = [output.name for output in response.outputs].index(name)
    output = response.outputs[index]
    assert output.datatype == "FP32"
    if response.raw_output_contents:
        values = np.frombuffer(response.raw_output_contents[index], "<f4")
    else:
        values = np.array(output.contents.fp32_contents, "<f4")
    return values.reshape(output.shape)


def texts(response: pb.ModelInferResponse, name: str) -> list[list[str]]:
    """An output of BYTES, packed or typed."""
    index = [output.name for output in response.outputs].index(name)
    output = response.outputs[index]
    assert output.datatype == "BYTES"
    rows, columns = output.shape
    found: Sequence[bytes] = output.contents.bytes_contents
    if response.raw_output_contents:
        found = tensors.unpack(response.raw_output_contents[index], rows * columns)
    return [
        [text.decode() for text in found[start : start + columns]]
        for start in range(0, rows * columns, columns)
    ]
