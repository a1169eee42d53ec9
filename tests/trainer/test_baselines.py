import numpy as np
import pytest

from services.shared.vocabulary import Vocabulary
from services.trainer.baselines import baselines, restricted


def test_the_prior_is_the_share_in_training() -> None:
    guesses = baselines(4, [6, 3, 1])

    assert guesses["prior"].shape == guesses["chance"].shape == (4, 3)
    assert guesses["prior"][2].tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert guesses["chance"][0].tolist() == pytest.approx([1 / 3] * 3)


def test_without_counts_the_prior_is_chance() -> None:
    assert baselines(2, [0, 0])["prior"].tolist() == [[0.5, 0.5]] * 2


def test_the_starter_is_there_only_where_it_was_asked() -> None:
    answers = np.full((2, 2), 0.5)

    assert "starter" not in baselines(2, [1, 1])
    assert baselines(2, [1, 1], answers)["starter"] is answers


def test_the_starter_answers_as_if_it_had_the_vocabulary_alone() -> None:
    known = Vocabulary(("🐶", "🐱", "🍕", "❤️"), (1, 1, 1, 1))
    asked = Vocabulary(("❤️", "🦀", "🐱"), (1, 1, 1))
    answers = np.array([[0.5, 0.1, 0.1, 0.3], [1.0, 0.0, 0.0, 0.0]])

    in_it = restricted(answers, known, asked)

    assert in_it[0].tolist() == pytest.approx([0.75, 0, 0.25])
    assert in_it[1].tolist() == pytest.approx([1 / 3] * 3)  # it believes in none of them
