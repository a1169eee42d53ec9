import base64
import dataclasses
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from services.shared import pixels
from services.shared.errors import BadDataset
from services.shared.vocabulary import Vocabulary
from services.trainer import report
from services.trainer.evaluate import evaluate
from tests.trainer.finished import facts, judgement

HOSTILE = (
    """</title></pre><script>alert(1)</script><img src=x onerror=alert(2)>"'{{ 7*7 }}\u202e$x$"""
)
ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "span", "br"} | {
    *("div", "ul", "li", "figure", "img", "figcaption", "table", "tr", "th", "td", "i", "code"),
    *("details", "summary", "pre"),
}


class Page(HTMLParser):
    """What is in a page: tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def ordinary() -> str:
    """Drawing it takes a second."""
    return report.page(facts(price_per_hour=3.6))


def test_a_report_is_one_file_that_fetches_and_runs_nothing(tmp_path: Path) -> None:
    path = report.write(tmp_path, facts())

    page = Page(path.read_text(encoding="utf-8"))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 5 << 20
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("href", "srcdoc") for name in attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert {"default-src 'none'", "img-src data:"} <= {rule.strip() for rule in policy.split(";")}
    assert "script-src" not in policy  # so none may run


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    known = facts()
    hostile = facts(
        name=HOSTILE,
        dataset=HOSTILE,
        digest=HOSTILE,
        command=HOSTILE,
        bottleneck=HOSTILE,
        recipe={**known.recipe, "backbone": HOSTILE, HOSTILE: HOSTILE},
        samples={"train": 1, HOSTILE: 2},
        seconds={HOSTILE: 1.0},
        versions={HOSTILE: HOSTILE},
        licences=[HOSTILE],
        remarks=[HOSTILE],
        created=HOSTILE,
    )

    page = Page(report.page(hostile))

    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count("<script>alert(1)</script>") >= 12
    assert "49" not in page.text.split("onerror=alert(2)")[1][:20]
    assert "\u202e" not in page.text


@pytest.mark.system
def test_a_setting_without_end_and_one_that_is_no_text_do_no_harm() -> None:
    page = report.page(facts(recipe={**facts().recipe, "x": "y" * 10**6, "z": "\ud800\x00"}))

    assert len(page) < 2 << 20
    page.encode()


def test_it_says_first_how_good_the_model_is_and_what_it_beats() -> None:
    known = facts()
    page = Page(ordinary())
    first = round(known.judged.metrics["top1"].value * 100)

    summary = " ".join(page.text.split("What limits it")[0].split())
    assert f"its first suggestion is right for {first}," in summary
    assert "Starter (the starter, which has seen no post)" in summary
    assert "Prior (always the most frequent emoji)" in summary
    for heading in ("Frequent and rare", "keep silent", "What it confuses", "How it learned"):
        assert heading in page.text


def test_a_thousand_images_cost_time_and_with_a_price_money() -> None:
    page = Page(ordinary())

    assert "A thousand images cost 11.11 s" in page.text
    assert "0.0111 at 3.60 an hour" in page.text


def test_pictures_are_encoded_anew_and_small() -> None:
    page = Page(ordinary())

    images = [a["src"] or "" for tag, a in page.tags if tag == "img"]
    pictures = [src for src in images if src.startswith("data:image/jpeg")]
    shape = pixels.decode(base64.b64decode(pictures[0].partition(",")[2])).shape
    assert shape == (report.THUMBNAIL_PX, report.THUMBNAIL_PX, 3)


@pytest.mark.system
def test_pictures_stop_where_the_room_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PICTURE_BYTES", 20_000)

    page = report.page(facts())

    assert 0 < page.count("data:image/jpeg") < 10


@pytest.mark.system
def test_a_picture_that_cannot_be_read_is_left_out() -> None:
    def broken(row: int) -> bytes:
        raise BadDataset("The shard is cut short.", path="x")

    assert "data:image/jpeg" not in report.page(facts(example=broken))
    assert "data:image/jpeg" not in report.page(facts(example=lambda row: b"no picture"))
    assert "data:image/jpeg" not in report.page(facts(example=None))


@pytest.mark.system
def test_an_old_report_gives_way_and_the_same_facts_give_the_same_page(tmp_path: Path) -> None:
    (tmp_path / report.NAME).write_text("old")

    report.write(tmp_path, facts())

    assert (tmp_path / report.NAME).read_text(encoding="utf-8") == report.page(facts())


@pytest.mark.system
def test_a_perfect_model_of_two_emoji_without_baselines_or_losses_has_a_report() -> None:
    known = Vocabulary(("🐶", "🐱"), (5, 0))
    truth = np.eye(2, dtype=bool)[[0, 1, 0]]
    perfect = evaluate(truth.astype(float), truth, counts_K=known.counts, resamples=5)
    only = {"model": perfect, "calibrated": perfect}

    page = report.page(
        facts(
            vocabulary=known,
            judgements={"validation": only},
            losses=[],
            seconds={},
            images=0,
            command="",
        )
    )

    assert "every first suggestion was right" in page
    assert "There is no test split" in page


@pytest.mark.system
def test_hundreds_of_emoji_fit_into_the_page() -> None:
    known = facts(emoji=500)
    test = judgement(known.vocabulary, 2000, 3, 5)

    page = report.page(dataclasses.replace(known, judgements={"test": test}))

    assert len(page.encode()) < 5 << 20
    assert page.count('class="emoji"') == test["calibrated"].met
