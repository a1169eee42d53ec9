"""Real photographs that Python packages ship: for the starter's probe set, the demo and tests."""

import importlib.util
from pathlib import Path
from typing import NamedTuple


class Photograph(NamedTuple):
    """A file in an installed package."""

    package: str
    path: str
    shows: str


PHOTOGRAPHS = (
    Photograph("skimage", "data/chelsea.png", "a cat"),
    Photograph("skimage", "data/coffee.png", "a cup of coffee"),
    Photograph("skimage", "data/rocket.jpg", "a rocket on its launch pad"),
    Photograph("skimage", "data/motorcycle_left.png", "a motorcycle"),
    Photograph("skimage", "data/astronaut.png", "an astronaut"),
    Photograph("skimage", "data/camera.png", "a man with a camera, in grey"),
    Photograph("skimage", "data/coins.png", "coins"),
    Photograph("skimage", "data/clock_motion.png", "a moving clock"),
    Photograph("skimage", "data/moon.png", "the moon's surface"),
    Photograph("skimage", "data/hubble_deep_field.jpg", "galaxies"),
    Photograph("skimage", "data/grass.png", "grass"),
    Photograph("skimage", "data/brick.png", "bricks"),
    Photograph("skimage", "data/gravel.png", "gravel"),
    Photograph("skimage", "data/page.png", "a printed page"),
    Photograph("skimage", "data/retina.jpg", "a retina"),
    Photograph("sklearn", "datasets/images/china.jpg", "a Chinese palace"),
    Photograph("sklearn", "datasets/images/flower.jpg", "a flower"),
    Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a woman in uniform"),
)


def installed() -> list[Path]:
    """The photographs of the packages that are installed here, in a fixed order."""
    found = []
    for photograph in PHOTOGRAPHS:
        spec = importlib.util.find_spec(photograph.package)  # finds without importing
        if spec and spec.origin:
            path = Path(spec.origin).parent / photograph.path
            if path.is_file():
                found.append(path)
    return found
