import numpy as np
import pytest
from PIL import Image, ImageCms

from services.shared import colour
from tests import corpus, craft

SWAPPED = craft.icc(craft.GREEN_XYZ, craft.RED_XYZ, craft.BLUE_XYZ)


def test_16_bit_greys_are_scaled_and_rounded() -> None:
    greys = np.arange(256, dtype=np.uint16)[np.newaxis]

    shown = colour.in_srgb(Image.fromarray(greys * 257), None)

    assert np.asarray(shown)[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_leave_the_others_as_they_are(odd: float) -> None:
    image = Image.fromarray(np.array([[0, 0.5, 1, odd]], np.float32))

    shown = colour.in_srgb(image, None)

    assert np.asarray(shown)[0, :3, 0].tolist() == [0, 128, 255]


def test_numbers_that_are_all_the_same_are_shown() -> None:
    image = Image.fromarray(np.array([[-7, -7]], np.float32))

    assert colour.in_srgb(image, None).mode == "RGB"


def test_srgb_by_any_name_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    assert colour._conversion(profile, "RGB") is None
    assert colour._conversion(SWAPPED, "RGB") is not None


def test_a_profile_too_large_to_be_honest_is_ignored() -> None:
    large = SWAPPED + bytes(colour.MAX_PROFILE_BYTES)

    assert colour.in_srgb(corpus.picture(), large) == corpus.picture()
    assert colour.in_srgb(corpus.picture(), SWAPPED) != corpus.picture()
