"""What has come already: Slack sends again what it thinks was lost, and so may who overheard it."""

import time
from collections import OrderedDict

MAX = 20_000
SECONDS = 3600.0  # Slack's last attempt comes some six minutes after the first


class Seen:
    """Remembers so many keys, for so long; the oldest are forgotten first."""

    def __init__(self, most: int = MAX, seconds: float = SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._until: OrderedDict[object, float] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return self._until.get(key, 0.0) > time.monotonic()

    def add(self, key: object) -> None:
        """Remembers it from now on."""
        self._until[key] = time.monotonic() + self._seconds
        self._until.move_to_end(key)
        while len(self._until) > self._most:
            self._until.popitem(last=False)

    def first(self, key: object) -> bool:
        """Whether it comes for the first time; from now on it does not."""
        if key in self:
            return False
        self.add(key)
        return True
