"""Where a run's time went: accounts that add up to the time since its process began."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

ACCOUNTS = ("start", "data_wait", "compute", "checkpoint", "evaluate", "publish")
# What one does about the account that took the most.
REMEDIES = {
    "start": "starting: imports, checking and opening the data set; a longer run has less of it",
    "data_wait": "waiting for pictures: pre-scale them, cache features, or give it more cores",
    "compute": "computing: freeze more, choose a smaller network or picture, or use a GPU",
    "checkpoint": "writing checkpoints: write fewer, or to a faster disk",
    "evaluate": "evaluating: evaluate less often",
    "publish": "building the model: a longer run has less of it",
}


def age() -> Callable[[], float]:
    """A clock that says how many seconds ago this process began; where /proc is, else: from now.

    An interpreter that has just imported torch is seconds old.
    """
    since = time.monotonic()
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # The 22nd field, in ticks since the machine started; the second may hold anything.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        since -= time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return lambda: time.monotonic() - since


class Ledger:
    """Charges every instant to exactly one account, from the beginning of the process on.

    What is charged to none is `start`. Of the thread that made it, and of no other.

    >>> ledger = Ledger(iter([1.0, 3.0, 4.0, 6.0, 6.0]).__next__)
    >>> with ledger.charge("compute"):
    ...     with ledger.charge("data_wait"):
    ...         pass
    >>> spent = ledger.seconds
    >>> spent["start"], spent["compute"], spent["data_wait"]
    (1.0, 4.0, 1.0)
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or age()
        self._account, self._since = "start", 0.0
        self._spent = dict.fromkeys(ACCOUNTS, 0.0)
        self._thread = get_ident()

    @contextmanager
    def charge(self, account: str) -> Iterator[None]:
        """Charges to the account, until it is left; one within another pauses it."""
        outer = self._turn(account)
        try:
            yield
        finally:
            self._turn(outer)

    def _turn(self, account: str) -> str:
        """Charges to another account from now on; returns the one before."""
        if get_ident() != self._thread:
            raise RuntimeError("A ledger belongs to the thread that made it.")
        if account not in self._spent:
            raise KeyError(account)
        before, now = self._account, self._now()
        self._spent[before] += now - self._since
        self._account, self._since = account, now
        return before

    @property
    def seconds(self) -> dict[str, float]:
        """By account, until now; with what earlier processes of the run have spent."""
        self._turn(self._account)
        return dict(self._spent)

    def restore(self, seconds: Mapping[str, float]) -> None:
        """Adds what earlier processes of the run have spent; accounts of no known name are none."""
        for account in ACCOUNTS:
            self._spent[account] += seconds.get(account, 0.0)

    def bottleneck(self) -> str:
        """Which account took the most, in one sentence, with what one does about it."""
        spent = self.seconds
        most, total = max(spent, key=spent.__getitem__), sum(spent.values())
        share = spent[most] / total if total > 0 else 0.0
        return f"{share:.0%} of {total:.1f} s went to {REMEDIES[most]}."
