"""Temperature scaling (Guo et al. 2017): one number that makes a network's confidence honest.

It divides the logits, so the order of the emoji stays. It is fitted on the validation split only:
fitted on what the model is judged on, it would flatter it.
"""

# N samples, K outputs

import numpy as np

from services.shared.errors import TrainingFailed

LEAST, MOST = 0.01, 100.0  # what `model.Calibration` takes


def probabilities(logits_NK: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The softmax of the logits, (N, K) float32."""
    scaled = logits_NK.astype(np.float32) / np.float32(temperature)
    scaled -= scaled.max(1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(1, keepdims=True)
    return scaled


def temperature(logits_NK: np.ndarray, truth_NK: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood, a sample's emoji sharing its row.

    The likelihood's logarithm is concave in 1 / temperature: its slope, the mean difference between
    the logits that the truth and that the model expects, changes sign once, and is bisected. One
    sample more, of any emoji, keeps a model that errs nowhere from believing that it never will.

    Raises:
        TrainingFailed: a logit is not finite.
    """
    if not np.isfinite(logits_NK).all():
        raise TrainingFailed("The model's logits are not finite: it cannot be calibrated.")
    truth = truth_NK.astype(np.float32)
    logits = logits_NK.astype(np.float32)
    doubt = 1 / (len(truth) + 1)
    true = (logits * (truth / truth.sum(1, keepdims=True))).sum(1).mean(dtype=float)
    wanted = (1 - doubt) * true + doubt * logits.mean(dtype=float)
    low, high = np.log(LEAST), np.log(MOST)
    while high - low > 1e-4:
        middle = (low + high) / 2
        believed = probabilities(logits, float(np.exp(middle)))
        expected = float((believed * logits).sum(1).mean(dtype=float))
        # A model that expects less than the truth gives is too modest: cool it.
        low, high = (low, middle) if expected < wanted else (middle, high)
    return float(np.clip(np.exp((low + high) / 2), LEAST, MOST))
