"""The Slack bot against a stand-in workspace, and servers that answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from clients.slack import app
from clients.slack.app import Secrets
from clients.slack.bot import MAX_PICTURES, How
from services.shared import errors, photographs
from tests.clients.slack.workspace import (
    CHANNEL,
    JPEG,
    ME,
    TOKEN,
    Workspace,
    bot,
    callback,
    mention,
    message,
)
from tests.clients.standin import Standin, fail
from tests.inference.running import inference

CAT = next(path for path in photographs.installed() if path.name == "chelsea.png")
PIZZA = "🍕 75%   ❤️ 12%   🐕 6%"


@pytest_asyncio.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace().open() as opened:
        yield opened


def texts(workspace: Workspace) -> list[str]:
    return [call["text"] for call in workspace.called("chat.postMessage")]


async def answered(workspace: Workspace, count: int = 1) -> list[str]:
    await workspace.until(lambda: len(texts(workspace)) >= count)
    return texts(workspace)


async def reacted(workspace: Workspace, count: int = 1) -> list[str]:
    await workspace.until(lambda: len(workspace.called("reactions.add")) >= count)
    return [call["name"] for call in workspace.called("reactions.add")]


# -- answers --------------------------------------------------------------------------------------


async def test_a_mention_with_a_picture_is_answered_in_its_thread(workspace: Workspace) -> None:
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            asked = mention(files=[workspace.picture()])
            assert (await slack.event(asked))[0] == 200
            assert await answered(workspace) == [PIZZA]
    (call,) = workspace.called("chat.postMessage")
    assert (call["channel"], call["thread_ts"]) == (CHANNEL, asked["ts"])
    assert workspace.fetched == [("cat.jpg", f"Bearer {TOKEN}")]
    assert server.requests[0].images[0].content == JPEG


async def test_a_mention_within_a_thread_is_answered_there(workspace: Workspace) -> None:
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=[workspace.picture()], thread_ts="1.5"))
            await answered(workspace)
    assert workspace.called("chat.postMessage")[0]["thread_ts"] == "1.5"


async def test_a_picture_that_is_posted_gets_its_first_emoji_as_a_reaction(
    workspace: Workspace,
) -> None:
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            posted = message(files=[workspace.picture()])
            await slack.event(posted)
            assert await reacted(workspace) == ["pizza"]
    (call,) = workspace.called("reactions.add")
    assert (call["channel"], call["timestamp"]) == (CHANNEL, posted["ts"])
    assert texts(workspace) == []


async def test_a_real_server_answers_too(workspace: Workspace, tiny: Path) -> None:
    async with inference(tiny) as running, bot(workspace, running.address) as slack:
        await slack.event(mention(files=[workspace.picture("cat.png", CAT.read_bytes())]))
        (text,) = await answered(workspace)
    assert text.startswith("🍕 50%   🐕 20%")


async def test_a_flag_turns_it_round(workspace: Workspace) -> None:
    manners: dict[str, Any] = {"posts": How.ANSWER, "mentions": How.REACTION, "top": 1}
    with Standin() as server:
        async with bot(workspace, server.address, **manners) as slack:
            await slack.event(mention(files=[workspace.picture()]))
            assert await reacted(workspace) == ["pizza"]
            await slack.event(message(files=[workspace.picture()]))
            await answered(workspace)
    assert server.requests[0].max_suggestions == 1


async def test_posts_may_be_left_alone(workspace: Workspace) -> None:
    with Standin() as server:
        async with bot(workspace, server.address, posts=How.NOT) as slack:
            await slack.event(message(files=[workspace.picture()]))
            await slack.event(mention(files=[workspace.picture()]))
            await answered(workspace)
    assert len(server.requests) == 1


async def test_several_pictures_each_have_their_answer_or_what_is_wrong_with_them(
    workspace: Workspace,
) -> None:
    files = [
        workspace.picture("a.jpg"),
        workspace.picture("b.jpg", b"no picture"),
        workspace.picture("<!channel> & co"),
        {"name": "notes.pdf", "mimetype": "application/pdf"},
    ]
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=files))
            (text,) = await answered(workspace)
    assert text.splitlines() == [
        f"a.jpg: {PIZZA}",
        "b.jpg: The bytes are no image.",
        f"&lt;!channel&gt; &amp; co: {PIZZA}",
        "notes.pdf is no picture.",
    ]


async def test_more_pictures_than_it_looks_at_are_told_of(workspace: Workspace) -> None:
    files = [workspace.picture(f"{number}.jpg") for number in range(MAX_PICTURES + 2)]
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=files))
            (text,) = await answered(workspace)
    assert len(server.requests) == MAX_PICTURES
    assert text.splitlines()[-1] == f"Those are {MAX_PICTURES + 2}; I look at 10 at a time."


async def test_the_url_of_a_mention_is_looked_at_without_the_token(workspace: Workspace) -> None:
    workspace.picture("far.jpg")
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(f"<{workspace.url}/files/far.jpg|far.jpg>"))
            assert await answered(workspace) == [PIZZA]
    assert workspace.fetched == [("far.jpg", "")]


async def test_a_mention_with_nothing_to_look_at_is_told_how_it_is_done(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PAUSE_SECONDS", 0.0)
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention("hello"))
            (text,) = await answered(workspace)
    assert text.startswith("Post a picture and mention me with it")


async def test_a_mention_whose_picture_only_the_other_event_has_is_answered_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PAUSE_SECONDS", 1.0)
    posted = message(f"<@{ME}> look", [workspace.picture()])
    bare = {key: value for key, value in posted.items() if key not in ("files", "subtype")}
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event({**bare, "type": "app_mention"})
            await slack.event(posted)
            await answered(workspace)
            await asyncio.sleep(1.5)
    assert texts(workspace) == [PIZZA]


@pytest.mark.parametrize("error", ["invalid_name", "too_many_reactions"])
async def test_what_cannot_be_a_reaction_is_said_in_words(workspace: Workspace, error: str) -> None:
    workspace.refuse("reactions.add", error)
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(message(files=[workspace.picture()]))
            assert await answered(workspace) == ["🍕"]


async def test_a_reaction_that_is_there_already_is_no_failure(workspace: Workspace) -> None:
    workspace.refuse("reactions.add", "already_reacted")
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(message(files=[workspace.picture(), workspace.picture("b.jpg")]))
            await reacted(workspace, 2)
            await asyncio.sleep(0.1)
    assert texts(workspace) == []


# -- the command ----------------------------------------------------------------------------------


async def test_the_command_answers_who_has_asked_alone(workspace: Workspace) -> None:
    workspace.picture("far.jpg")
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            status, text = await slack.command(
                f"{workspace.url}/files/far.jpg", f"{workspace.url}/respond"
            )
            assert (status, text) == (200, "")
            await workspace.until(lambda: workspace.responses)
    assert workspace.responses == [{"text": PIZZA, "response_type": "ephemeral"}]


async def test_the_command_without_a_url_says_how_it_is_used(workspace: Workspace) -> None:
    async with bot(workspace, "127.0.0.1:9") as slack:
        status, text = await slack.command("pizza", f"{workspace.url}/respond")
    assert status == 200
    assert "`/emojini https://…`" in text


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://10.0.0.1/a.jpg"])
async def test_the_command_opens_no_address_of_a_private_network(
    workspace: Workspace, url: str
) -> None:
    async with bot(workspace, "127.0.0.1:9") as slack:
        await slack.command(url, f"{workspace.url}/respond")
        await workspace.until(lambda: workspace.responses)
    assert "not of the public internet" in workspace.responses[0]["text"]


# -- what is left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"subtype": "message_changed"},
        {"subtype": "message_deleted"},
        {"subtype": "bot_message"},
        {"subtype": "channel_join"},
        {"bot_id": "BBOT", "user": ME},
        {"bot_id": "BOTHER"},
        {"bot_profile": {"id": "BOTHER"}},
        {"user": ME},
        {"edited": {"user": "U1", "ts": "1.2"}},
        {"hidden": True},
        {"files": "nonsense"},
        {"files": [None, 5]},
        {"ts": None},
    ],
)
async def test_bots_changes_and_nonsense_are_left_alone(
    workspace: Workspace, more: dict[str, Any]
) -> None:
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            status, _ = await slack.event({**message(files=[workspace.picture()]), **more})
            assert status == 200
            await slack.event(message(files=[workspace.picture()]))
            await reacted(workspace)
    assert len(server.requests) == 1


# -- Slack's rules --------------------------------------------------------------------------------


async def test_an_event_is_acknowledged_long_before_its_work_is_done(workspace: Workspace) -> None:
    with Standin(before=lambda number, context: time.sleep(4)) as server:
        async with bot(workspace, server.address) as slack:
            began = time.monotonic()
            assert (await slack.event(mention(files=[workspace.picture()])))[0] == 200
            assert time.monotonic() - began < 1
            assert await answered(workspace) == [PIZZA]
            assert time.monotonic() - began > 4


async def test_what_slack_sends_again_is_done_once(workspace: Workspace) -> None:
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            asked = mention(files=[workspace.picture()])
            for attempt in range(4):
                sent = await slack.event(asked, "Ev0", retry=attempt, reason="http_timeout")
                assert sent[0] == 200
            await slack.event({**asked, "type": "message", "subtype": "file_share"})
            await answered(workspace)
            await asyncio.sleep(0.2)
    assert len(texts(workspace)) == len(server.requests) == 1


async def test_a_command_that_comes_again_is_done_once(workspace: Workspace) -> None:
    url = workspace.picture()["url_private"]
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            for attempt in range(3):
                status, _ = await slack.command(
                    url, f"{workspace.url}/respond", trigger_id="7.7", retry=attempt
                )
                assert status == 200
            await workspace.until(lambda: workspace.responses)
            await asyncio.sleep(0.2)
    assert len(workspace.responses) == len(server.requests) == 1


async def test_too_much_at_once_is_for_slack_to_send_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.slack.behind.MAX", 1)
    with Standin(before=lambda number, context: time.sleep(1)) as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=[workspace.picture()]))
            asked = mention(files=[workspace.picture()])
            assert (await slack.event(asked, "Ev1"))[0] == 503
            await answered(workspace)
            await asyncio.sleep(0.1)
            assert (await slack.event(asked, "Ev1", retry=1))[0] == 200
            assert len(await answered(workspace, 2)) == 2


async def test_slack_that_is_busy_is_waited_for(workspace: Workspace) -> None:
    workspace.busy("chat.postMessage", 1)
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            began = time.monotonic()
            await slack.event(mention(files=[workspace.picture()]))
            await answered(workspace, 2)
            assert time.monotonic() - began >= 1


async def test_at_its_end_it_finishes_what_it_has_acknowledged(workspace: Workspace) -> None:
    with Standin(before=lambda number, context: time.sleep(1)) as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=[workspace.picture()]))
    assert texts(workspace) == [PIZZA]


async def test_it_lives_without_any_server(workspace: Workspace) -> None:
    async with (
        bot(workspace, "127.0.0.1:9") as slack,
        slack._session.get(f"{slack.url}/healthz") as response,
    ):
        assert response.status == 200


# -- trouble --------------------------------------------------------------------------------------


async def test_who_mentions_it_hears_that_the_service_is_away_and_nobody_else(
    workspace: Workspace,
) -> None:
    async with bot(workspace, "127.0.0.1:9") as slack:
        await slack.event(message(files=[workspace.picture()]))
        await slack.event(mention(files=[workspace.picture()]))
        assert await answered(workspace) == [
            "I cannot look at pictures just now. Try again in a while."
        ]
        await asyncio.sleep(0.3)
    assert len(texts(workspace)) == 1


async def test_a_busy_service_says_so(workspace: Workspace) -> None:
    busy = errors.Overloaded("Others are ahead. Try again in 1 s.", retry_seconds=100.0)
    with Standin(before=lambda number, context: fail(context, busy)) as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=[workspace.picture()]))
            assert await answered(workspace) == ["Others are ahead. Try again in 1 s."]


async def test_a_missing_scope_is_named(workspace: Workspace) -> None:
    workspace.refuse("reactions.add", "missing_scope", needed="reactions:write")
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(message(files=[workspace.picture()]))
            (text,) = await answered(workspace)
    assert "reactions:write" in text


async def test_the_log_never_has_the_tokens(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    workspace.refuse("chat.postMessage", "channel_not_found")
    with Standin() as server:
        async with bot(workspace, server.address) as slack:
            await slack.event(mention(files=[workspace.picture()]))
            await workspace.until(lambda: texts(workspace))
            await asyncio.sleep(0.1)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "channel_not_found" in said
    assert TOKEN not in said
    assert TOKEN not in repr(Secrets(token=TOKEN))


# -- Socket Mode ----------------------------------------------------------------------------------


async def test_socket_mode_does_the_same_without_a_public_address(workspace: Workspace) -> None:
    secrets = Secrets(token=TOKEN, app_token="xapp-0123456789")
    with Standin() as server:
        async with bot(workspace, server.address, secrets) as slack:
            await workspace.until(lambda: workspace.socket)
            assert workspace.socket is not None
            body = callback(mention(files=[workspace.picture()]))
            for attempt in range(2):
                envelope = {"type": "events_api", "envelope_id": f"E{attempt}", "payload": body}
                await workspace.socket.send_json({**envelope, "retry_attempt": attempt})
            assert await answered(workspace) == [PIZZA]
            await workspace.until(lambda: len(workspace.acknowledged) == 2)
            assert (await slack.send("{}"))[0] == 404  # nothing listens for HTTP
    assert [told["envelope_id"] for told in workspace.acknowledged] == ["E0", "E1"]
    assert len(texts(workspace)) == 1
    opened = [c.token for c in workspace.calls if c.method == "apps.connections.open"]
    assert opened == ["xapp-0123456789"]
