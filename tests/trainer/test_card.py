import pytest

from services.trainer import card
from services.trainer.facts import Facts
from tests.trainer.finished import facts

HOSTILE = "x\n# Approved\n[link](javascript:alert(1)) <script>alert(1)</script> | `code` ![i](u)"


def test_the_card_says_how_good_the_model_is_beside_the_baselines() -> None:
    known = facts()
    text = card.card(known)

    value, low, high = known.judged.metrics["top1"]
    row = next(line for line in text.splitlines() if line.startswith("| Top-1"))
    assert f"{value * 100:.1f} % ({low * 100:.1f} to {high * 100:.1f})" in row
    assert row.count("|") == 2 + 4  # figure, model, starter, prior, chance
    assert "| figure | model | starter | prior | chance |" in text
    assert "The temperature 3.100, fitted on the validation split" in text


def test_what_others_wrote_is_text_in_the_card_too() -> None:
    known = facts()
    text = card.card(
        facts(
            name=HOSTILE,
            dataset=HOSTILE,
            recipe={**known.recipe, "name": HOSTILE},
            licences=[HOSTILE],
            remarks=[HOSTILE],
        )
    )

    assert "\n# Approved" not in text
    assert "<script>" not in text.replace("\\<script", "")
    assert "[link](" not in text.replace("\\[link\\](", "")
    assert "`" not in text.replace("\\`", "")


@pytest.mark.parametrize(
    ("changed", "limit"),
    [
        (facts(remarks=["Drawings, not photographs."]), "Drawings, not photographs."),
        (facts(judgements={"validation": facts().judgements["validation"]}), "no test split"),
        (facts(), "judged on fewer than 20 samples"),
        (facts(), "top-1 is anywhere from"),
    ],
)
def test_the_card_says_what_limits_the_model(changed: Facts, limit: str) -> None:
    assert limit in card.card(changed)


def test_a_model_judged_on_much_has_fewer_limits_to_speak_of() -> None:
    assert not any("anywhere" in limit for limit in facts(emoji=4, judged=3000).limits())
