import time
from pathlib import Path

import pytest

from services.shared import fresh, tokens
from services.shared.errors import FileUnreadable
from services.shared.roles import OPERATE, SUGGEST
from services.shared.tokens import Tokens

PAGE, ADMIN = "page" * 11, "admin" * 9


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_token_has_the_role_of_its_line(tmp_path: Path) -> None:
    lines = [tokens.line(SUGGEST, PAGE, "page"), "", "# people", tokens.line(OPERATE, ADMIN, "")]
    known = Tokens(write(tmp_path / "tokens", *lines))

    assert known.role(PAGE) == SUGGEST
    assert known.role(ADMIN) == OPERATE
    assert [known.role(token) for token in ("", PAGE[:-1], PAGE + "x", PAGE.upper(), "é")] == (
        [None] * 5
    )


def test_the_file_has_no_token_itself(tmp_path: Path) -> None:
    assert PAGE not in tokens.line(SUGGEST, PAGE, "page")


@pytest.mark.parametrize(
    "line",
    [PAGE, f"suggest {PAGE}", f"admin {'0' * 64}", "suggest", f"suggest {'0' * 64} a b"],
)
def test_a_line_that_is_wrong_is_told_by_its_number_and_not_by_what_it_holds(
    tmp_path: Path, line: str
) -> None:
    path = write(tmp_path / "tokens", "# mine", line)
    with pytest.raises(FileUnreadable, match=r"tokens: line 2 is not `role sha256 \[name\]`") as e:
        Tokens(path)
    assert PAGE not in str(e.value)


def test_a_file_of_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"\xff\x00suggest")
    with pytest.raises(FileUnreadable, match="line 1"):
        Tokens(tmp_path / "tokens")


def test_a_file_that_changes_is_read_anew_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fresh, "LOOK_SECONDS", 0.01)
    path = write(tmp_path / "tokens", tokens.line(SUGGEST, PAGE, "page"))
    known = Tokens(path)

    write(path, tokens.line(OPERATE, ADMIN, "admin"))
    time.sleep(0.02)
    assert (known.role(PAGE), known.role(ADMIN)) == (None, OPERATE)

    write(path, "nonsense")
    time.sleep(0.02)
    assert known.role(ADMIN) == OPERATE
    path.unlink()
    time.sleep(0.02)
    assert known.role(ADMIN) == OPERATE
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert all("What was read before goes on." in message for message in told)


@pytest.mark.parametrize("content", ["", "short", f"{PAGE} {PAGE}", f"{PAGE}\r\nx: y", "é" * 20])
def test_a_callers_file_holds_one_token_that_may_stand_in_a_header(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(FileUnreadable, match="does not hold one token") as caught:
        tokens.kept(tmp_path / "token")
    assert PAGE not in str(caught.value)


def test_white_space_around_a_callers_token_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{PAGE}\n\n")
    assert tokens.kept(tmp_path / "token").now() == PAGE
