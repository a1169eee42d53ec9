"""Eager PyTorch: the measure of the others; on a GPU the backend of choice."""

import numpy as np
import torch

from services.shared import network
from services.shared.errors import BadModel
from services.shared.golden import Look
from services.shared.model import Model


def open_torch(model: Model, precision: str, threads: int = 1) -> Look:
    """The network on the first GPU, else on so many threads of the CPU."""
    if precision != "exact":
        raise BadModel(
            "Backend torch is exact only; --precision reduced needs --backend openvino.",
            path=str(model.folder),
        )
    torch.set_num_threads(threads)
    net = network.read(model)
    if not torch.cuda.is_available():
        return lambda x_BHWC: network.look(net, x_BHWC)
    return _on_cuda(net)


def _on_cuda(net: network.Network) -> Look:
    """Untested: no machine of the project has had a GPU. Bytes travel, floats are made there."""
    net = net.cuda()

    @torch.inference_mode()
    def look(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pinned = torch.from_numpy(x_BHWC).pin_memory()
        logits, feature_map = net(pinned.to("cuda", non_blocking=True))
        return logits.cpu().numpy(), feature_map.cpu().numpy()

    return look
