"""Whether what runs a model gives the answers that were published with it: its golden outputs."""

from collections.abc import Callable

import numpy as np

from services.shared import model as models
from services.shared.errors import BadModel, ImageError
from services.shared.model import Model

GOLDEN = 16  # probes compared at every start; `reduced` compares all of them
TOLERANCE = 1e-4  # of a probability
Look = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From RGB images (B, H, W, 3) in 0..255 to logits (B, K) and the last feature map (B, F, h, w).

The map is valid until the next look: copy what should outlive it.
"""


def check(model: Model, look: Look, precision: str = "exact", count: int = GOLDEN) -> None:
    """Holds probabilities against the published ones.

    `exact` must agree within 1e-4 on the first `count` probes. `reduced` may differ where the
    model itself wavers: the first place must agree on 96 % of all probes, on 99 % where the
    published margin is at least 0.05, and always where it is at least 0.20.

    Raises:
        BadModel: it does not; this machine must not serve it so.
    """
    if precision == "exact":
        published, computed = _both(model, look, count)
        worst = float(np.abs(computed - published).max())
        if worst > TOLERANCE:
            raise _bad(
                model,
                "gives other answers here than were published with it: a probability differs by "
                f"{worst:.1g}, more than 1e-4",
            )
        return
    published, computed = _both(model, look, models.MAX_PROBES)
    agrees = computed.argmax(1) == published.argmax(1)
    first_two = np.sort(published, axis=1)[:, -2:]
    margin = first_two[:, -1] - first_two[:, 0]
    for least, share in ((0.0, 0.96), (0.05, 0.99), (0.20, 1.0)):
        of = agrees[margin >= least]
        if len(of) and of.mean() < share:
            raise BadModel(
                f"--precision reduced agrees with float32 on {of.mean():.3f} of the probes with a "
                f"margin of at least {least}, less than {share}. Use --precision exact.",
                path=str(model.folder),
            )


def _both(model: Model, look: Look, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Published and computed probabilities (N, emoji) of the first probes."""
    probes = model.probes()
    try:
        views = [models.view(model.preprocessing, jpeg) for jpeg in probes.jpegs[:count]]
    except ImageError as error:
        raise _bad(model, f"has a broken probe: {str(error).rstrip('.')}") from None
    seen = [look(view[None]) for view in views]
    logits, maps = (np.concatenate(part) for part in zip(*seen, strict=True))
    if logits.shape[1:] != (model.outputs,) or maps.shape[1] != model.architecture.features:
        raise _bad(
            model,
            f"computes {logits.shape[1]} logits from {maps.shape[1]} features, not "
            f"{model.outputs} from {model.architecture.features}, as it is described",
        )
    computed = model.probabilities(logits)
    if not np.isfinite(computed).all():
        raise _bad(model, "gives values that are not finite")
    return model.probabilities(probes.logits[:count]), computed


def _bad(model: Model, what: str) -> BadModel:
    return BadModel(f"The model {model.folder} {what}.", path=str(model.folder))
