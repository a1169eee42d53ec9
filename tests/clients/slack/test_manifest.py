"""The manifest to paste asks for what the code uses, and for no more."""

import re
from pathlib import Path
from typing import Any

import yaml

from clients.slack import app
from clients.slack.bot import COMMAND

DOCUMENT = (Path(__file__).parents[3] / "docs" / "slack.md").read_text()


def manifest() -> dict[str, Any]:
    (found,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    parsed = yaml.safe_load(found)
    assert isinstance(parsed, dict)
    return parsed


def test_it_names_the_scopes_that_the_code_uses() -> None:
    assert manifest()["oauth_config"] == {"scopes": {"bot": list(app.SCOPES)}}


def test_it_names_the_events_that_the_code_listens_to() -> None:
    events = manifest()["settings"]["event_subscriptions"]
    assert events["bot_events"] == list(app.EVENTS.values())
    assert events["request_url"].endswith(app.PATH)


def test_it_names_the_command() -> None:
    (command,) = manifest()["features"]["slash_commands"]
    assert command["command"] == COMMAND
    assert command["url"].endswith(app.PATH)


def test_it_fits_the_lengths_that_slack_allows() -> None:
    told = manifest()
    assert len(told["display_information"]["name"]) <= 35
    assert len(told["display_information"]["description"]) <= 140
    assert len(told["features"]["bot_user"]["display_name"]) <= 80


def test_every_method_that_is_called_has_its_scope() -> None:
    source = "".join(path.read_text() for path in Path(app.__file__).parent.glob("*.py"))
    called = set(re.findall(r"\._slack\.([a-z]+_[A-Za-z]+)\(", source))
    assert called == {"chat_postMessage", "reactions_add", "files_info"}
