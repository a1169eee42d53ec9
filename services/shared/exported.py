"""A model's exported form, run by OpenVINO on the CPU: two and a half times as fast as eager
PyTorch, and without torch installed."""

from collections.abc import Callable, Sequence

import numpy as np
import openvino

from services.shared.errors import BadModel
from services.shared.golden import Look
from services.shared.model import Model

WHOLE = 3  # convolutions that keep float32 where the others do not
OPTIONS = {
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,  # workers of one machine would be pinned to the same core
}
Run = Callable[[np.ndarray], list[np.ndarray]]
"""From a network's input to its outputs, which are valid until the next run."""


def open_exported(model: Model, precision: str, threads: int = 1) -> Look:
    """The model's exported form, compiled for so many threads of this machine's CPU."""
    (look,) = open_each(model, precision, [threads])
    return look


def open_each(model: Model, precision: str, threads: Sequence[int]) -> list[Look]:
    """The same, once for each number of threads.

    `reduced` computes in bfloat16, except for the first convolutions: rounding what they see of
    the picture is the most of what bfloat16 does to an answer. Of the starter's probes, 0.964
    instead of 0.927 keep their first place, for 8 % more time.
    """
    edge_px = model.preprocessing.size_px
    try:
        network = openvino.Core().read_model(
            model=model.read("openvino.xml"), weights=model.read("openvino.bin")
        )
        network.reshape([-1, edge_px, edge_px, 3])
        outputs = len(network.outputs)
        parts = _cut(network) if precision == "reduced" else [(network, "f32")]
        looks = [_look([_compiled(part, kind, many) for part, kind in parts]) for many in threads]
    except RuntimeError as error:
        raise BadModel(
            f"OpenVINO cannot run the model {model.folder}: {_last_line(error)}",
            path=str(model.folder),
        ) from None

    if outputs != 2:
        raise BadModel(
            f"The OpenVINO form of {model.folder} has {outputs} outputs, not logits "
            "and a feature map. Publish the model again.",
            path=str(model.folder),
        )
    return looks


def _look(runs: Sequence[Run]) -> Look:
    """One after the other."""

    def look(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [x_BHWC]
        for run in runs:
            found = run(found[0])
        return found[0].copy(), found[1]

    return look


def _cut(network: openvino.Model) -> list[tuple[openvino.Model, str]]:
    """The first convolutions and the rest, with their precisions; all of it if none can be cut."""
    convolutions = [
        node for node in network.get_ordered_ops() if "Convolution" in node.get_type_name()
    ]
    if len(convolutions) <= WHOLE:
        return [(network, "bf16")]
    between = convolutions[WHOLE].input_value(0)
    users = between.get_target_inputs()
    entry = openvino.opset13.parameter(between.get_partial_shape(), between.get_element_type())
    first = openvino.Model([between], network.get_parameters())
    for user in users:
        user.replace_source_output(entry.output(0))
    try:
        rest = openvino.Model(network.get_results(), [entry])
    except RuntimeError:  # something else leads from the picture to the rest
        for user in users:
            user.replace_source_output(between)
        return [(network, "bf16")]
    return [(first, "f32"), (rest, "bf16")]


def _compiled(network: openvino.Model, kind: str, threads: int) -> Run:
    options = OPTIONS | {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(network, "CPU", options).create_infer_request()
    count = len(network.outputs)

    def run(x: np.ndarray) -> list[np.ndarray]:
        result = request.infer({0: x}, share_inputs=True, share_outputs=True)
        return [result[output] for output in range(count)]

    return run


def _last_line(error: RuntimeError) -> str:
    """What went wrong; the lines before say where in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it does not say why"
