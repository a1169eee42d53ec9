"""What the server says of its model: tensors, how it is run, and what it has done."""

from typing import NamedTuple

from inference import grpc_service_pb2 as pb
from services.inference.oip.outputs import EMBEDDING, EMOJI, PROBABILITY
from services.inference.oip.tensors import IMAGE, PIXELS
from services.inference.server import MAX_IMAGES, Serving
from services.inference.statistics import Total
from services.shared.model import Model
from services.shared.suggestions import DEFAULT

TYPES = {"BYTES": pb.TYPE_STRING, "FP32": pb.TYPE_FP32}


class Tensor(NamedTuple):
    """One input or output."""

    name: str
    datatype: str
    dims: list[int]
    """Of one picture."""
    holds: str


def inputs(model: Model) -> list[Tensor]:
    """What it takes: exactly one of these."""
    edge, share = model.preprocessing.size_px, model.preprocessing.crop
    upright = f"upright sRGB, its shorter edge scaled to {round(edge / share)}, the middle {edge}"
    return [
        Tensor(IMAGE, "BYTES", [], "Pictures as files: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."),
        Tensor(
            PIXELS,
            "FP32",
            [edge, edge, 3],
            f"Instead of IMAGE what our decoder would make of it: {upright} square; rows from the "
            "top, pixels from the left, red, green, blue; 0 to 255, rounded to whole numbers.",
        ),
    ]


def outputs(model: Model) -> list[Tensor]:
    """What it gives."""
    known = len(model.vocabulary)
    return [
        Tensor(PROBABILITY, "FP32", [known], "Of each emoji, in the order of `labels`."),
        Tensor(EMOJI, "BYTES", [min(DEFAULT, known)], "The most likely emoji first, in UTF-8."),
        Tensor(EMBEDDING, "FP32", [model.architecture.features], "The mean of the feature map."),
    ]


def metadata(model: Model) -> pb.ModelMetadataResponse:
    """For ModelMetadata; a -1 before the dimensions of each tensor is the batch."""
    response = pb.ModelMetadataResponse(
        name=model.name, versions=[model.version], platform="emojinet", properties=_words(model)
    )
    for listed, tensors in ((response.inputs, inputs(model)), (response.outputs, outputs(model))):
        for name, datatype, dims, _ in tensors:
            listed.add(name=name, datatype=datatype, shape=[-1, *dims])
    return response


def config(serving: Serving) -> pb.ModelConfig:
    """For ModelConfig, as far as clients read it."""
    model, gate = serving.model, serving.gate
    found = pb.ModelConfig(
        name=model.name,
        platform="emojinet",
        backend=gate.backend,
        max_batch_size=MAX_IMAGES,
        instance_group=[pb.ModelInstanceGroup(name=gate.backend, count=gate.slots)],
        dynamic_batching=pb.ModelDynamicBatching(
            preferred_batch_size=[len(gate.curve.relative)],
            priority_levels=2,
            default_priority_level=1,
        ),
    )
    for name, datatype, dims, _ in inputs(model):
        one = found.input.add(name=name, data_type=TYPES[datatype], dims=dims or [1], optional=True)
        if name == PIXELS:
            one.format = pb.ModelInput.FORMAT_NHWC
        else:
            one.reshape.SetInParent()  # Triton's way to say: an input may be [N] as well as [N, 1]
    for name, datatype, dims, _ in outputs(model):
        found.output.add(name=name, data_type=TYPES[datatype], dims=dims)
    for name, words in (_words(model) | {"labels": " ".join(model.vocabulary.emoji)}).items():
        found.parameters[name].string_value = words
    return found


def statistics(serving: Serving) -> pb.ModelStatistics:
    """For ModelStatistics; batches are counted as they ran, whoever had asked for them."""
    done, batches = serving.statistics, serving.gate.queue.batches
    return pb.ModelStatistics(
        name=serving.model.name,
        version=serving.model.version,
        last_inference=int(done.last_time * 1000),
        inference_count=sum(size * count for size, (count, _) in batches.items()),
        execution_count=sum(count for count, _ in batches.values()),
        inference_stats=pb.InferStatistics(
            success=_duration(done.success),
            fail=_duration(done.fail),
            queue=_duration(done.queue),
            compute_input=_duration(done.compute_input),
            compute_infer=_duration(done.compute_infer),
            compute_output=_duration(done.compute_output),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=_duration(Total(*batches[size])))
            for size in sorted(batches)
        ],
    )


def _words(model: Model) -> dict[str, str]:
    return {tensor.name: tensor.holds for tensor in inputs(model) + outputs(model)}


def _duration(total: Total) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=int(total.seconds * 1e9))
