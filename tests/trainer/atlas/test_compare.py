import pytest

from services.shared.errors import MalformedRequest
from services.trainer.atlas import asked, compare
from services.trainer.atlas.corpus import Post
from tests.trainer.atlas.said import posts


def sided(segment: str, author: str, *emoji: int) -> Post:
    return Post("", author, float("nan"), segment, emoji, ("sale",) if segment == "brand" else ())


def test_a_brand_that_uses_an_emoji_more_is_told_so() -> None:
    made = [sided("brand", f"b {n}", 0, *([1] * (n < 60))) for n in range(100)]
    made += [sided("category", f"c {n}", 0, *([1] * (n < 20))) for n in range(100)]
    found = compare.compared(posts(made), ("brand", "category"))
    assert (found.posts, found.authors) == ((100, 100), (100, 100))
    lines = {(line.emoji, line.term): line for line in found.lines}
    assert lines[1, ""].lift.value == pytest.approx(3, abs=0.1)
    assert lines[1, ""].lift.low > 1.5
    assert lines[1, ""].authors == (60, 20)
    assert lines[0, ""].lift.low < 1 < lines[0, ""].lift.high
    assert lines[0, "sale"].lift.low > 1


def test_whoever_posts_much_counts_little() -> None:
    made = [sided("brand", "busy", 0, 1) for _ in range(100)]
    made += [sided("brand", f"b {n}", 0) for n in range(100)]
    made += [sided("category", f"c {n}", 0, *([1] * (n < 5))) for n in range(100)]
    lines = {
        line.emoji: line for line in compare.compared(posts(made), ("brand", "category")).lines
    }
    assert lines[1].lift.low < 1


def test_a_segment_that_is_not_there_is_named_with_those_that_are() -> None:
    made = [sided("brand", f"b {n}", 0) for n in range(10)]
    with pytest.raises(MalformedRequest, match=r"'own'\. There are: brand"):
        compare.compared(posts(made), ("brand", "own"))


@pytest.mark.parametrize("text", ["a,b", "segment=a", "segment=a,a", "segment=,b", "author=a,b"])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest, match="segment=A,B"):
        asked.segments(text)
