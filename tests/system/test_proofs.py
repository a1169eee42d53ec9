"""The long proofs, in short: `make prove-crash` and `make prove-scale` run them whole."""

import asyncio
from pathlib import Path

import pytest

from tests.prove import crash, scale

pytestmark = pytest.mark.system


def test_a_crawl_that_is_killed_finds_what_an_undisturbed_one_finds(tmp_path: Path) -> None:
    found = crash.prove(8, 80, tmp_path, seed=3)
    assert found["kills"] >= 8
    assert (found["lost"], found["duplicated"], found["torn"]) == (0, 0, 0)


def test_the_articles_crawl_uses_its_quota_and_is_never_refused(tmp_path: Path) -> None:
    found = asyncio.run(scale.prove(6000, tmp_path))
    assert found["posts"] >= 6000
    assert found["refused_calls"] == 0
