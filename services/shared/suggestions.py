"""From probabilities to suggestions: the last step, the same with a server and without."""

import numpy as np

from emojinet.v1 import emoji_pb2
from services.shared import vocabulary
from services.shared.vocabulary import Vocabulary

DEFAULT = 5


def best(probabilities_K: np.ndarray, most: int) -> np.ndarray:
    """The outputs with the greatest probabilities, at most so many, the greatest first."""
    count = min(most, len(probabilities_K))
    first = np.argpartition(-probabilities_K, count - 1)[:count]
    return first[np.argsort(-probabilities_K[first], kind="stable")]


def ranked(
    known: Vocabulary, probabilities_K: np.ndarray, *, most: int, least: float
) -> list[emoji_pb2.Suggestion]:
    """The emoji most likely first: at most `most`, 0 for 5, of at least the probability `least`."""
    outputs = best(probabilities_K, most or DEFAULT)
    return [
        emoji_pb2.Suggestion(
            emoji=known.emoji[output], name=vocabulary.name(known.emoji[output]), probability=each
        )
        for output, each in zip(outputs.tolist(), probabilities_K[outputs].tolist(), strict=True)
        if each >= least
    ]
