import pytest

from tests.trainer.atlas.said import DAY, START, everyday, meanings, post


def test_a_meaning_in_a_tenth_of_the_posts_is_found_and_named() -> None:
    made = everyday()
    made += [post(9000 + n, 0, author=f"inked {n}", terms=("tattoo", "#ink")) for n in range(14)]
    found = meanings(made)
    assert [emoji for emoji, one in found.items() if one.flagged] == ["💉"]
    assert {sign.name for sign in found["💉"].signs[:2]} == {"tattoo", "#ink"}
    assert found["💉"].signs[0].log_odds.low > 1
    social = found["💉"].social
    assert social.low < 14 / 134 < social.high
    assert max(found, key=lambda emoji: found[emoji].score) == "💉"


def test_everyday_words_mean_nothing() -> None:
    for seed in range(4):
        assert not any(one.flagged for one in meanings(everyday(seed=seed)).values())


def test_what_one_author_always_says_is_no_meaning() -> None:
    made = everyday()
    made += [post(9000 + n, 0, author="busy", terms=("sale", "#shop")) for n in range(60)]
    assert not meanings(made)["💉"].flagged


def test_a_campaign_of_several_accounts_in_one_week_is_no_meaning() -> None:
    made = everyday()
    terms = ("buy", "now", "only", "#today")
    made += [
        post(9000 + n, 0, author=f"account {n}", terms=terms, seconds=START + n % 5 * DAY)
        for n in range(30)
    ]
    assert not meanings(made)["💉"].flagged


@pytest.mark.parametrize("word", ["syringe", "syringes", "#vaccination", "#doctorlife", "💉"])
def test_what_the_emoji_is_called_is_literal(word: str) -> None:
    made = everyday()
    made += [post(9000 + n, 0, author=f"nurse {n}", terms=(word,)) for n in range(30)]
    found = meanings(made)["💉"]
    assert not found.flagged
    assert found.literal == pytest.approx(30 / 150, abs=0.02)


def test_what_another_emoji_of_the_post_is_called_is_literal() -> None:
    made = everyday()
    made += [post(9000 + n, 0, 1, author=f"a {n}", terms=("pizza",)) for n in range(30)]
    assert not meanings(made)["💉"].flagged


def test_an_emoji_of_three_posts_is_not_judged() -> None:
    made = [one for one in everyday() if one.emoji != (0,)]
    made += [post(9000 + n, 0, author=f"inked {n}", terms=("tattoo",)) for n in range(3)]
    found = meanings(made)["💉"]
    assert (found.posts, found.judged, found.flagged) == (3, False, False)


def test_a_single_author_is_not_judged() -> None:
    made = [one._replace(author="only") for one in everyday()]
    assert not any(one.judged for one in meanings(made).values())


def test_posts_of_nobody_known_are_judged_one_by_one() -> None:
    made = everyday() + [post(9000 + n, 0, author="", terms=("tattoo",)) for n in range(14)]
    made = [one._replace(author="") for one in made]
    assert meanings(made)["💉"].flagged
