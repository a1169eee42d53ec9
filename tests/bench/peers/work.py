"""What a worker of any peer does with a picture.

Peers start their workers themselves, so the environment says what they do: BENCH_MODEL is the
model's folder, BENCH_BACKEND `openvino` or `eager`, BENCH_DECODE `ours` or `pillow`, BENCH_SETUP
`tuned` or `documented`, and BENCH_WORKERS a folder in which each worker leaves its process id.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.shared import model as models
from services.shared import suggestions
from services.shared.golden import Look
from services.shared.model import Model
from tests.bench.textbook import textbook

Decode = Callable[[bytes], np.ndarray]
Answer = list[tuple[str, float]]
Infer = Callable[[np.ndarray], list[Answer]]
TOP = suggestions.DEFAULT
DOCUMENTED = "documented"


def setup() -> str:
    """How the peer is to be set up."""
    return os.environ["BENCH_SETUP"]


def announce() -> None:
    """This process is a worker: its CPU time is not the server's."""
    (Path(os.environ["BENCH_WORKERS"]) / str(os.getpid())).touch()


def decoder() -> Decode:
    """From a file to the square that the model looks at."""
    preprocessing = models.load(Path(os.environ["BENCH_MODEL"])).preprocessing
    size_px, fraction = preprocessing.size_px, preprocessing.crop
    if os.environ["BENCH_DECODE"] == "pillow":
        return lambda content: textbook(content, size_px=size_px, fraction=fraction)
    return lambda content: models.view(preprocessing, content)


def inferrer() -> Infer:
    """From squares (B, H, W, 3) to the five most likely emoji of each."""
    model = models.load(Path(os.environ["BENCH_MODEL"]))
    look = opened(model)

    def infer(x_BHWC: np.ndarray) -> list[Answer]:
        return [named(model, p_K) for p_K in model.probabilities(look(x_BHWC)[0])]

    return infer


def opened(model: Model) -> Look:
    """What runs the model: eager with as many threads as the set-up gives it."""
    if os.environ["BENCH_BACKEND"] == "openvino":
        from services.shared.exported import open_exported

        return open_exported(model, "exact")
    import torch

    from services.shared import network

    if setup() != DOCUMENTED:
        torch.set_num_threads(1)
    net = network.read(model)
    return lambda x_BHWC: network.look(net, x_BHWC)


def named(model: Model, p_K: np.ndarray) -> Answer:
    """The most likely emoji with their probabilities, the first first."""
    emoji = model.vocabulary.emoji
    return [(emoji[output], float(p_K[output])) for output in suggestions.best(p_K, TOP)]
