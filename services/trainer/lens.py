"""What looks with a model where nothing is trained: for ranking a folder, and for the atlas."""

import numpy as np

from services.shared import golden
from services.shared.cores import cores
from services.shared.golden import Look
from services.shared.model import Model


def opened(model: Model) -> Look:
    """The exported form, which is the fastest here, or eager PyTorch where it has none.

    Raises:
        BadModel: it gives other answers here than were published with it.
    """
    if "openvino.xml" in model.files:
        from services.shared.exported import open_exported

        look = open_exported(model, "exact", cores())
    else:
        from services.shared import network  # torch takes seconds to import

        net = network.read(model)

        def look(x_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return network.look(net, x_BHWC)

    golden.check(model, look)
    return look
