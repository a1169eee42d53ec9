"""What Slack calls an emoji: a reaction goes by a short name, of emoji-data, which Slack made.

>>> reaction("❤️"), reaction("👍🏽"), reaction("🇩🇪"), reaction("❌️")
('heart', '+1::skin-tone-4', 'de', 'x')
>>> reaction("no emoji") is None
True
"""

import re
from functools import cache
from importlib.resources import files

# From emoji-data's emoji.json; the package that has it in PyPI also installs one called `tests`.
TABLE = files("clients.slack") / "names.tsv"
_STYLE = "\ufe0f"
_TONES = re.compile("[\U0001f3fb-\U0001f3ff]")
_LIGHTEST = 0x1F3FB - 2  # which Slack counts from 2 on, as Fitzpatrick did


def reaction(emoji: str) -> str | None:
    """The name of a reaction; None for an emoji that Slack does not know."""
    tones = _TONES.findall(emoji)
    name = _names().get(_TONES.sub("", emoji).replace(_STYLE, ""))
    if name is None or not tones:
        return name
    return f"{name}::skin-tone-{ord(tones[0]) - _LIGHTEST}" if len(tones) == 1 else None


@cache
def _names() -> dict[str, str]:
    _, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {emoji: name for emoji, name in (line.split("\t") for line in lines)}
