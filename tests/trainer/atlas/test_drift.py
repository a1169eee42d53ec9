import numpy as np

from services.trainer.atlas import drift, signs
from services.trainer.atlas.corpus import Post
from services.trainer.atlas.drift import Drift
from services.trainer.atlas.literal import Literal
from tests.trainer.atlas.said import DAY, EMOJI, START, everyday, post, posts


def drifts(made: list[Post]) -> dict[str, Drift]:
    found = posts(made)
    of = signs.mentions(found, len(EMOJI))
    said = signs.words(found, of, Literal(EMOJI))
    return dict(zip(EMOJI, drift.drifts(found, of, [said], {}, len(EMOJI)), strict=True))


def test_a_change_is_dated_within_a_month() -> None:
    draw, made = np.random.default_rng(1), everyday()
    for n in range(40):
        seconds = START + draw.uniform(400, 700) * DAY
        made.append(post(9000 + n, 0, author=f"late {n}", terms=("tattoo",), seconds=seconds))
    found = drifts(made)
    assert [emoji for emoji, one in found.items() if one.drifted] == ["💉"]
    assert abs(found["💉"].seconds - START - 400 * DAY) < 30 * DAY
    assert found["💉"].changes[0].name == "tattoo"
    assert found["💉"].changes[0].before < 0.02 < 0.3 < found["💉"].changes[0].after
    assert found["💉"].p_value < 0.001


def test_what_never_changed_has_not_drifted() -> None:
    assert not any(one.drifted for one in drifts(everyday(seed=3)).values())


def test_one_author_who_changes_is_no_drift() -> None:
    made = everyday()
    for n in range(40):
        seconds = START + (600 + n) * DAY
        made.append(post(9000 + n, 0, author="busy", terms=("tattoo",), seconds=seconds))
    assert not drifts(made)["💉"].drifted


def test_posts_without_times_tell_of_no_drift() -> None:
    found = drifts([one._replace(seconds=float("nan")) for one in everyday()])
    assert {one.posts for one in found.values()} == {0}
    assert not any(one.drifted for one in found.values())
