"""Times as people write them on a command line."""

import re

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """The seconds of a time such as 60s, 5m, 1.5h or 2d. Raises ValueError.

    >>> seconds("1.5h")
    5400.0
    """
    parts = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text)
    if not parts:
        raise ValueError(f"{text!r} is no time such as 60s, 5m, 1h or 2d.")
    return float(parts[1]) * SECONDS[parts[2]]
