"""How many cores are ours."""

import os
from pathlib import Path


def cores() -> int:
    """How many CPUs this process may use: its affinity, and the quota of its container."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no quota: "max", or no such file
        return allowed
