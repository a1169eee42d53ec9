import pytest

from services.shared.vocabulary import inventory
from services.trainer.atlas import literal
from services.trainer.atlas.literal import Literal


@pytest.mark.parametrize(
    ("emoji", "term"),
    [
        ("🍕", "pizza"),
        ("🍕", "#pizzatime"),
        ("🚗", "cars"),
        ("🔞", "18"),
        ("🚭", "no"),
        ("❤️", "#❤️"),
    ],
)
def test_names_and_keywords_are_literal(emoji: str, term: str) -> None:
    assert Literal([emoji]).term(0, term)


@pytest.mark.parametrize(("emoji", "term"), [("✊", "motocross"), ("💉", "tattoo"), ("💉", "#ink")])
def test_what_people_mean_is_not(emoji: str, term: str) -> None:
    assert not Literal([emoji]).term(0, term)


def test_emoji_of_one_name_are_relatives() -> None:
    related = literal.relatives(["🐱", "🍕"])
    names = [
        {inventory()[row].text for row in related[:, column].nonzero()[0]} for column in (0, 1)
    ]
    assert {"🐱", "🐈"} <= names[0]
    assert names[1] == {"🍕"}
