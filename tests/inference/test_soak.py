"""The proof of the soak, in short: `make prove-soak` runs it whole."""

from pathlib import Path

import pytest

from tests.prove import soak

LEAKED_MB = 400.0  # twenty seconds are all warm-up, in which servers differ by up to 80 MB


@pytest.mark.system
@pytest.mark.alone
def test_a_leak_is_noticed_and_no_call_fails(starter: Path, tmp_path: Path) -> None:
    subjects, found = soak.prove(1 / 3, tmp_path, starter, leaked_mb=LEAKED_MB)
    assert found["failed_calls"] == 0, found["why"]
    assert found["cancelled"] > 10
    assert found["calls"] == subjects[1].fates.total() > 500
    assert found["control_fails"], found
    assert found["control_excess_mb"] - found["excess_mb"] > soak.ALLOWED_MB, found
