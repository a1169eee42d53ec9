"""What a model must beat: guesses that look at nothing, and the starter that has seen no post."""

# N samples, K emoji of the vocabulary, I emoji of the starter's inventory

from collections.abc import Sequence

import numpy as np

from services.shared.vocabulary import Vocabulary


def baselines(
    count: int, counts_K: Sequence[int] | np.ndarray, starter_NK: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Probabilities (N, K) of `chance` (each emoji alike), `prior` (as often as in training), and
    `starter` (its answers for this vocabulary) when there are any.
    """
    outputs = len(counts_K)
    share_K = np.asarray(counts_K, np.float32)
    total = share_K.sum()
    chance_K = np.full(outputs, 1 / outputs, np.float32)
    guesses = {
        "chance": np.broadcast_to(chance_K, (count, outputs)),
        "prior": np.broadcast_to(share_K / total if total else chance_K, (count, outputs)),
    }
    return guesses if starter_NK is None else guesses | {"starter": starter_NK}


def restricted(probabilities_NI: np.ndarray, known: Vocabulary, asked: Vocabulary) -> np.ndarray:
    """A model's answers as it would give them had it only the emoji asked for, (N, K) float32.

    Emoji that it does not know get nothing. Where it believes in none of those asked for, and that
    is all it can say, each gets the same.

    Args:
        known: the vocabulary of the model.
        asked: the vocabulary that it is compared in.
    """
    places = [known.index(emoji) for emoji in asked.emoji]
    there = [column for column, place in enumerate(places) if place is not None]
    answers_NK = np.zeros((len(probabilities_NI), len(asked)), np.float32)
    answers_NK[:, there] = probabilities_NI[:, [place for place in places if place is not None]]
    total_N = answers_NK.sum(1)
    answers_NK[total_N <= 0] = 1
    return answers_NK / answers_NK.sum(1, keepdims=True)
