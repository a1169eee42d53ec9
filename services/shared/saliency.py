"""Where in a picture a model sees an emoji: the head's row for it, times the feature map.

For a linear head that is the class activation map (Zhou et al. 2016, arXiv 1512.04150). For a
projected head the row is the gradient of the emoji's log-probability by the pooled features.
"""

import io

import numpy as np
from PIL import Image

from services.shared.model import FLOOR, Model

# F features, h w cells of the feature map, C classes, K outputs


class Explainer:
    """Explains one model's suggestions."""

    def __init__(self, model: Model) -> None:
        weights = model.weights()
        prefix = "head.classifier." if model.architecture.head == "projected" else "head."
        self._weight, self._bias = weights[prefix + "weight"], weights[prefix + "bias"]
        self._table_CK = weights.get("head.table_CK")

    def explain(self, map_Fhw: np.ndarray, output: int) -> np.ndarray:
        """How much each cell (h, w) speaks for the output, from 0 to 1; all 0 where none does."""
        evidence_hw = np.einsum("f,fhw->hw", self._row(map_Fhw.mean((1, 2)), output), map_Fhw)
        positive_hw = np.maximum(evidence_hw, 0)
        return positive_hw / max(float(positive_hw.max()), 1e-9)

    def _row(self, x_F: np.ndarray, output: int) -> np.ndarray:
        if self._table_CK is None:
            return self._weight[output]
        logits_C = self._weight @ x_F + self._bias
        belief_C = np.exp(logits_C - logits_C.max())
        belief_C /= belief_C.sum()
        share_C = belief_C * self._table_CK[:, output]
        total = share_C.sum()
        return (share_C - total * belief_C) / (total + FLOOR) @ self._weight


def to_png(evidence_hw: np.ndarray, edge_px: int) -> bytes:
    """A grey square PNG of the evidence, enlarged smoothly."""
    grey = Image.fromarray((evidence_hw * 255).astype(np.uint8))
    file = io.BytesIO()
    grey.resize((edge_px, edge_px), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
