import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared import model, photographs, pixels
from services.shared.errors import UndecodableImage
from services.trainer.augment import CHANCES, train_view
from services.trainer.recipe import Augment

PREPROCESSING = model.Preprocessing(
    size_px=224, crop=0.875, mean=(0.5,) * 3, std=(0.5,) * 3, decode_version=pixels.VERSION
)
PHOTO = pixels.prescale(photographs.installed()[0].read_bytes())
EVERY = tuple(Augment)


def view(strength: Augment, chances: np.ndarray, content: bytes = PHOTO) -> np.ndarray:
    return train_view(PREPROCESSING, content, chances, strength)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(CHANCES)


def ramp(width: int, height: int) -> bytes:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = (
        np.linspace(0, 250, width),
        np.linspace(0, 250, height)[:, None],
    )
    return pixels.jpeg(image, quality=95)


def test_without_augmentation_training_sees_what_the_server_sees() -> None:
    assert (view(Augment.NONE, np.empty(0)) == model.view(PREPROCESSING, PHOTO)).all()


@pytest.mark.parametrize("strength", EVERY)
def test_the_chances_alone_decide(strength: Augment) -> None:
    first, again, other = (view(strength, drawn(seed)) for seed in (1, 1, 2))

    assert (first == again).all()
    assert (first == other).all() == (strength is Augment.NONE)


@settings(max_examples=40)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=CHANCES, max_size=CHANCES),
    st.sampled_from(EVERY),
)
def test_any_picture_and_any_chances_make_a_square(
    width: int, height: int, chances: list[float], strength: Augment
) -> None:
    square = view(strength, np.array(chances), ramp(width, height))

    assert square.shape == (224, 224, 3)
    assert square.dtype == np.uint8


def test_a_crop_shows_a_part_perhaps_mirrored() -> None:
    mirrored = shares = 0.0
    for seed in range(200):
        square = view(Augment.CROP, drawn(seed), ramp(384, 256)).astype(float)
        across = square[:, -1, 0].mean() - square[:, 0, 0].mean()
        down = square[-1, :, 1].mean() - square[0, :, 1].mean()
        mirrored += across < 0
        shares += abs(across) * down / 250**2
        assert down > 0

    assert mirrored / 200 == pytest.approx(0.5, abs=0.1)
    assert shares / 200 == pytest.approx(0.67, abs=0.05)


def test_prescaled_and_original_look_alike() -> None:
    original = photographs.installed()[2].read_bytes()
    for seed in range(5):
        one, other = (
            view(Augment.CROP, drawn(seed), content)
            for content in (original, pixels.prescale(original))
        )
        assert abs(one.astype(int) - other).mean() < 3


def test_strong_hides_greys_and_tilts_some() -> None:
    chances = np.full(CHANCES, 0.5)
    plain = view(Augment.STRONG, chances)
    for place, value in ((8, 0.05), (9, 0.0), (10, 0.1)):
        changed = chances.copy()
        changed[place] = value
        other = view(Augment.STRONG, changed)
        assert (other != plain).any()
        if place == 8:
            assert np.ptp(other.astype(int), axis=2).max() <= 1


def test_a_broken_picture_is_its_own_fault() -> None:
    for strength in EVERY:
        with pytest.raises(UndecodableImage):
            view(strength, drawn(0), PHOTO[:2000])
