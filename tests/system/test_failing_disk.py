"""Every write of the crawler's state fails once: it says so, loses nothing, and goes on."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_once_costs_nothing(code: int, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.system.failing_disk", str(tmp_path), str(code)]
    done = subprocess.run(
        ["fiu-run", "-x", *program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    writes, told = map(int, done.stdout.split())
    assert writes > 100
    assert told > writes / 2
