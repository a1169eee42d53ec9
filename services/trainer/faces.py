"""Faces in pictures that are shown to others. Only `keep` is there yet."""

from PIL import Image

from services.shared.errors import MalformedRequest


def treated(picture: Image.Image, how: str) -> Image.Image | None:
    """The picture as it may be shown: `keep` leaves it; none where it is to be dropped.

    Raises:
        MalformedRequest: there is no detector yet for another way.
    """
    if how != "keep":
        raise MalformedRequest(
            f"`faces` is keep: nothing finds faces to {how:.20} here.", field="faces"
        )
    return picture
