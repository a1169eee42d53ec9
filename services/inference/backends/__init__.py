"""What runs a model's forward pass: one file each, all of the same kind, `Look`."""

from collections.abc import Callable

import numpy as np

Look = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From RGB images (B, H, W, 3) in 0..255 to logits (B, K) and the last feature map (B, F, h, w).

The map is valid until the next look: copy what should outlive it.
"""
