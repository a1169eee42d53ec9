"""Every emoji that we suggest has the name by which Slack knows it."""

import pytest

from clients.slack import names
from services.shared import vocabulary


def test_every_emoji_of_the_inventory_has_a_name() -> None:
    found = {emoji.text: names.reaction(emoji.text) for emoji in vocabulary.inventory()}
    assert [text for text, name in found.items() if name is None] == []
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("emoji", "name"),
    [
        ("👍", "+1"),
        ("❤️", "heart"),
        ("❤", "heart"),
        ("🍕", "pizza"),
        ("🇺🇸", "us"),
        ("🇩🇪", "de"),
        ("👋🏿", "wave::skin-tone-6"),
        ("✊🏻", "fist::skin-tone-2"),
        ("1️⃣", "one"),
        ("👩‍🚀", "female-astronaut"),
        ("👩🏽‍🚀", "female-astronaut::skin-tone-4"),
        ("🐛", "bug"),
        ("x", None),
        ("", None),
        ("🏽", None),
    ],
)
def test_it_is_slacks_own_name(emoji: str, name: str | None) -> None:
    assert names.reaction(emoji) == name
