"""Who may speak to the bot: Slack, now, and once."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from clients.slack import app
from tests.clients.slack.workspace import (
    SECRET,
    Events,
    Workspace,
    bot,
    callback,
    message,
    signature,
)

BODY = json.dumps({"type": "url_verification", "challenge": "abc", "token": "x"})


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[Events]:
    async with Workspace().open() as workspace, bot(workspace, "127.0.0.1:9") as events:
        yield events


async def test_slack_may_make_sure_that_it_is_us(slack: Events) -> None:
    status, text = await slack.send(BODY)
    assert status == 200
    assert "abc" in text


@pytest.mark.parametrize("age_seconds", [301, 3600, -302])
async def test_an_old_signature_is_refused(slack: Events, age_seconds: float) -> None:
    assert (await slack.send(BODY, age_seconds=age_seconds))[0] == 401


async def test_a_signature_of_four_minutes_ago_is_not_old(slack: Events) -> None:
    assert (await slack.send(BODY, age_seconds=240))[0] == 200


async def test_an_altered_body_is_refused(slack: Events) -> None:
    signed = signature(BODY.encode())
    assert (await slack.send(BODY.replace("abc", "abd"), headers=signed))[0] == 401


async def test_the_signature_of_another_secret_is_refused(slack: Events) -> None:
    assert (await slack.send(BODY, secret=SECRET[::-1]))[0] == 401


async def test_an_altered_time_is_refused(slack: Events) -> None:
    later = {
        "X-Slack-Request-Timestamp": signature(b"", age_seconds=-60)["X-Slack-Request-Timestamp"]
    }
    assert (await slack.send(BODY, headers=later))[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Signature": ""},
        {"X-Slack-Signature": "v0="},
        {"X-Slack-Signature": "v1=" + "0" * 64},
        {"X-Slack-Signature": "v0=" + "é" * 64},
        {"X-Slack-Request-Timestamp": ""},
        {"X-Slack-Request-Timestamp": "now"},
        {"X-Slack-Request-Timestamp": "1e9"},
        {"X-Slack-Request-Timestamp": "٣"},
        {"X-Slack-Request-Timestamp": "9" * 5000},
    ],
)
async def test_what_is_no_signature_is_refused(slack: Events, headers: dict[str, str]) -> None:
    assert (await slack.send(BODY, headers=headers))[0] == 401


async def test_a_replayed_request_is_refused_and_does_nothing(slack: Events) -> None:
    body = json.dumps(callback(message("no picture")))
    signed = signature(body.encode())
    assert (await slack.send(body, headers=signed))[0] == 200
    assert (await slack.send(body, headers=signed))[0] == 401


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b"[" * 100_000, b"[]", b"null", b'"x"'])
async def test_nonsense_that_is_signed_harms_nobody(slack: Events, body: bytes) -> None:
    status, _ = await slack.send(body)
    assert 400 <= status < 500
    assert (await slack.send(BODY))[0] == 200


async def test_a_body_without_end_is_refused(slack: Events) -> None:
    assert (await slack.send(b"x" * (app.MAX_BODY_BYTES + 1)))[0] == 413


async def test_nobody_reads_anything_but_health(slack: Events) -> None:
    async with aiohttp.ClientSession() as session, session.get(slack.url + app.PATH) as response:
        assert response.status == 405
