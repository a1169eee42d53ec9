"""A model's exported form, run by OpenVINO on the CPU: two and a half times as fast as eager
PyTorch, and without torch installed."""

import numpy as np
import openvino

from services.shared.errors import BadModel
from services.shared.golden import Look
from services.shared.model import Model

PRECISIONS = {"exact": "f32", "reduced": "bf16"}


def open_exported(model: Model, precision: str) -> Look:
    """The model's exported form, compiled for one thread of this machine's CPU."""
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "ENABLE_CPU_PINNING": False,  # workers of one machine would be pinned to the same core
    }
    try:
        network = core.read_model(
            model=model.read("openvino.xml"), weights=model.read("openvino.bin")
        )
        request = core.compile_model(network, "CPU", options).create_infer_request()
    except RuntimeError as error:
        raise BadModel(
            f"OpenVINO cannot run the model {model.folder}: {_last_line(error)}",
            path=str(model.folder),
        ) from None

    if len(network.outputs) != 2:
        raise BadModel(
            f"The OpenVINO form of {model.folder} has {len(network.outputs)} outputs, not logits "
            "and a feature map. Publish the model again.",
            path=str(model.folder),
        )

    def look(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = request.infer({0: x_BHWC}, share_inputs=True, share_outputs=True)
        return result[0].copy(), result[1]

    return look


def _last_line(error: RuntimeError) -> str:
    """What went wrong; the lines before say where in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it does not say why"
