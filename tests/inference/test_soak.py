"""The proof of the soak, in short: `make prove-soak` runs it whole."""

from pathlib import Path

import pytest

from tests.prove import soak


@pytest.mark.system
def test_a_leak_is_noticed_and_no_call_fails(starter: Path, tmp_path: Path) -> None:
    subjects, found = soak.prove(1 / 3, tmp_path, starter)
    assert found["failed_calls"] == 0, found["why"]
    assert found["cancelled"] > 10
    assert found["calls"] == subjects[1].fates.total() > 500
    assert found["control_fails"], found
    # Twenty seconds are all warm-up: what is not the leak's own would not be enough.
    assert found["control_excess_mb"] - found["excess_mb"] > soak.ALLOWED_MB, found
