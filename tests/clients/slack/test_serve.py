"""`emojinet slack` as a process."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from clients.cli import main
from clients.slack.serve import STOP_SECONDS
from tests.clients.commandline import COMMAND, clean, emojinet
from tests.clients.slack.workspace import SECRET, TOKEN, Workspace
from tests.clients.web.test_serve import until_alive


@pytest_asyncio.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace().open() as opened:
        yield opened


@pytest.fixture
def secrets(tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "secret").write_text(SECRET)
    return [f"--token-file={tmp_path / 'token'}", f"--signing-secret-file={tmp_path / 'secret'}"]


async def test_it_says_who_it_is_and_what_it_lacks_and_ends_at_sigterm(
    workspace: Workspace, secrets: list[str]
) -> None:
    workspace.scopes = "chat:write,commands"
    program = await asyncio.create_subprocess_exec(
        *COMMAND, "slack", "--port=0", f"--slack-url={workspace.url}/api/", *secrets,
        stderr=subprocess.PIPE, env=clean(),
    )  # fmt: skip
    assert program.stderr is not None
    try:
        lines = [(await program.stderr.readline()).decode() for _ in range(3)]
        url = re.search(r"http://[\d.]+:\d+", lines[2])
        assert url, lines
        await asyncio.to_thread(until_alive, url[0])
        program.terminate()
        assert await asyncio.wait_for(program.wait(), STOP_SECONDS + 10) == 0
        rest = (await program.stderr.read()).decode()
    finally:
        if program.returncode is None:
            program.kill()
    assert lines[0] == "I am emojini in the workspace Us.\n"
    assert lines[1].startswith(
        "The app lacks the scopes app_mentions:read, channels:history, files"
    )
    assert lines[2].rstrip().endswith("/slack/events")
    assert TOKEN not in "".join(lines) + rest


async def test_a_token_that_slack_does_not_know_is_told_of(
    workspace: Workspace, secrets: list[str]
) -> None:
    workspace.refuse("auth.test", "invalid_auth")
    done = await asyncio.to_thread(
        emojinet, "slack", "--port=0", f"--slack-url={workspace.url}/api/", *secrets
    )
    assert done.returncode == 1
    assert b"Slack refuses the bot's token: invalid_auth" in done.stderr
    assert TOKEN.encode() not in done.stderr


async def test_an_app_level_token_that_slack_does_not_know_is_told_of(
    workspace: Workspace, secrets: list[str], tmp_path: Path
) -> None:
    workspace.refuse("apps.connections.open", "not_allowed_token_type")
    (tmp_path / "app").write_text("xapp-0123456789")
    done = await asyncio.to_thread(
        emojinet, "slack", "--port=0", f"--slack-url={workspace.url}/api/", secrets[0],
        f"--app-token-file={tmp_path / 'app'}", EMOJINET_SLACK_SIGNING_SECRET_FILE="",
    )  # fmt: skip
    assert done.returncode != 0
    assert b"Slack refuses the app-level token: not_allowed_token_type" in done.stderr
    assert b"xapp-0123456789" not in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("token", "xapp-1-not-the-bots", "a bot's token, which begins with xoxb-"),
        ("token", "", "a bot's token"),
        ("secret", "not hexadecimal", "a signing secret, which is hexadecimal"),
    ],
)
def test_a_file_that_holds_another_secret_is_told_of_without_it(
    secrets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, content: str, told: str,
) -> None:  # fmt: skip
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit):
        main(["slack", *secrets])
    said = capsys.readouterr().err
    assert told in said
    assert not content or content not in said


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--posts=loud"], "--posts is one of reaction, answer, not"),
        (["--mentions=not"], "--mentions is one of reaction, answer, not 'not'"),
        (["--host=0.0.0.0"], "--tls-cert"),
        (["--slack-url=ftp://slack.com"], "scheme"),
        (["--allow-addresses=10.0.0.0/99"], "networks look like 10.0.0.0/8"),
    ],
)
def test_flags_that_cannot_be_are_wrong_use(
    secrets: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["slack", *secrets, "--slack-url=http://127.0.0.1:9/", *flags])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_without_a_way_for_events_to_come_it_says_which_there_are(
    secrets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["slack", secrets[0]])
    assert ended.value.code == 2
    assert "--app-token-file for Socket Mode" in capsys.readouterr().err
