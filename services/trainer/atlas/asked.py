"""What is asked of an atlas, checked before anything is begun; needs nothing that takes long."""

import json
from collections.abc import Mapping

from services.shared.errors import MalformedRequest
from services.trainer import faces

SETTINGS = ("model", "compare", "faces")
MAX_TEXT = 400  # characters: a path, two segments


def settings(said: Mapping[str, str]) -> dict[str, str]:
    """The settings of a run as text; each is a JSON string.

    Raises:
        MalformedRequest: one is unknown, is no such string, or breaks its rule.
    """
    asked = {}
    for field, value in said.items():
        if field not in SETTINGS:
            raise MalformedRequest(
                f"An atlas has no setting {field:.80}; it has {', '.join(SETTINGS)}.",
                field=f"settings.{field:.80}",
            )
        try:
            text = json.loads(value)
        except (ValueError, RecursionError):
            text = None
        if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
            raise MalformedRequest(
                f'The setting {field} is a JSON string such as "keep", {MAX_TEXT} characters at '
                "most.",
                field=f"settings.{field}",
            )
        asked[field] = text
    if asked.get("compare"):
        segments(asked["compare"], "settings.compare")
    faces.check(asked.get("faces", "keep"), "settings.faces")
    return asked


def segments(text: str, field: str = "compare") -> tuple[str, str]:
    """The two segments of `segment=A,B`.

    Raises:
        MalformedRequest: it is something else.

    >>> segments("segment=brand,category")
    ('brand', 'category')
    """
    by, _, names = text.partition("=")
    parts = names.split(",")
    if by != "segment" or len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise MalformedRequest(
            f"`compare` is segment=A,B with two different segments, and not {text!r:.80}.",
            field=field,
        )
    return parts[0], parts[1]
