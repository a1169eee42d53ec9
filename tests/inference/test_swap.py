"""The proof of the swap, in short: `make prove-swap` runs it whole, at 60 % load."""

from pathlib import Path

import pytest

from tests.prove import swap


@pytest.mark.system
@pytest.mark.alone
def test_models_change_under_load_and_nobody_notices(starter: Path, tmp_path: Path) -> None:
    found = swap.prove(6, tmp_path, starter, share=0.3)
    assert (found["swaps"], found["bad"]) == (6, 3)
    assert found["calls"] > 100
    assert found["mixed_answers"] == 0, found["what_is_mixed"]
    assert found["failed_calls"] == 0, found["why"]
