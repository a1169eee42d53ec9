"""What all tests share: the real starter, built once, and a tiny model without a network."""

import fcntl
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import distributions
from io import BytesIO
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from services.shared import model, pixels, registry
from services.shared.model import Architecture, Calibration, Preprocessing, Probes
from services.shared.vocabulary import Vocabulary

# A shell's background job is deaf to Ctrl-C, and so would be what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis would fail an example of 200 ms, which any may take on a busy machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SHARED = Path(model.__file__).parent
TINY_EMOJI = ("🍕", "🐕", "❤️", "🌅", "🚗")
TINY_FEATURES = 6


@pytest.fixture(scope="session")
def starter(request: pytest.FixtureRequest) -> Path:
    """The folder of the published starter; do not write to it.

    Kept in pytest's cache for as long as neither our code nor a package changes.
    """
    cache: Path = request.config.cache.mkdir("starter")
    root = cache / _fingerprint()
    with (cache.parent / "starter.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        return _built(cache, root)


def _built(cache: Path, root: Path) -> Path:
    if (live := registry.live(root)) is None:
        for other in cache.iterdir():
            if other.stat().st_mtime < time.time() - 3600:  # else other tests may be at it
                shutil.rmtree(other, ignore_errors=True)
        # In a process of its own, as a server does it: torch warns, and stays in memory.
        command = [sys.executable, "-m", "services.shared.starter", str(root)]
        subprocess.run(command, check=True)
        live = registry.live(root)
    assert live is not None
    return registry.folder(root, live)


def _fingerprint() -> str:
    """Of everything that goes into the starter."""
    digest = hashlib.sha256()
    for path in sorted(SHARED.iterdir()):
        if path.suffix in (".py", ".tsv", ".md", ".safetensors"):
            digest.update(path.name.encode() + path.read_bytes())
    for package in sorted(f"{d.name}=={d.version}" for d in distributions()):
        digest.update(package.encode())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a valid model of five emoji without a network behind it; do not write to it.

    Good for its format, and for `timed:` devices, which only wait and answer its prior.
    """
    draw = np.random.default_rng(0)
    weights = {
        "head.weight": draw.normal(size=(len(TINY_EMOJI), TINY_FEATURES)).astype(np.float32),
        "head.bias": draw.normal(size=len(TINY_EMOJI)).astype(np.float32),
        "backbone.batches": np.array(7),
    }
    logits = draw.normal(size=(3, len(TINY_EMOJI))).astype(np.float32)
    return model.write(
        tmp_path_factory.mktemp("tiny") / "tiny",
        name="tiny",
        architecture=Architecture(
            backbone="test_efficientnet", features=TINY_FEATURES, head="linear"
        ),
        preprocessing=Preprocessing(
            size_px=32,
            crop=0.875,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            decode_version=pixels.VERSION,
        ),
        calibration=Calibration(temperature=1.5),
        vocabulary=Vocabulary(TINY_EMOJI, (50, 20, 15, 10, 5)),
        weights=weights,
        probes=Probes([_jpeg(draw, edge) for edge in (40, 60, 80)], logits),
        card="# tiny\n\nKnows nothing.\n",
        openvino={},
    ).folder


def _jpeg(draw: np.random.Generator, edge_px: int) -> bytes:
    file = BytesIO()
    Image.fromarray(draw.integers(0, 256, (edge_px, edge_px, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()
