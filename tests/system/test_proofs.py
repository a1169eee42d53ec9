"""The long proofs, in short: `make prove-crash`, `prove-scale` and `prove-atlas` run them whole."""

import asyncio
from pathlib import Path

import pytest

from tests.prove import atlas, crash, meant, scale

pytestmark = pytest.mark.system


def test_a_crawl_that_is_killed_finds_what_an_undisturbed_one_finds(tmp_path: Path) -> None:
    found = crash.prove(8, 80, tmp_path, seed=3)
    assert found["kills"] >= 8
    assert (found["lost"], found["duplicated"], found["torn"]) == (0, 0, 0)


def test_the_articles_crawl_uses_its_quota_and_is_never_refused(tmp_path: Path) -> None:
    found = asyncio.run(scale.prove(6000, tmp_path))
    assert found["posts"] >= 6000
    assert found["refused_calls"] == 0


@pytest.mark.timeout(400)
def test_planted_meanings_are_found_and_none_elsewhere(tmp_path: Path, starter: Path) -> None:
    kind = meant.Kind(emoji=20, by_words=3, by_pictures=1, drifting=2, posts=90, authors=400)
    found = atlas.prove(5, kind, tmp_path, starter.parents[1], tmp_path)
    assert found["average_precision"] >= 0.7
    assert found["false_flags"] <= 0.06
    assert found["drift_off_months"] <= 1
