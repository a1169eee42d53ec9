"""Files of a workspace: the token goes to Slack's own hosts, and what is wrong is said kindly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from yarl import URL

from clients.pictures import LIMIT_BYTES
from clients.slack import app, files
from clients.slack.files import Files
from services.shared import errors
from services.shared.errors import EmojinetError
from tests.clients.slack.workspace import JPEG, TOKEN, Workspace
from tests.clients.web.serving import LOOPBACK

HOME = "https://slack.com/api/"


@pytest_asyncio.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with Workspace().open() as opened:
        yield opened


async def fetched(workspace: Workspace, file: dict[str, Any]) -> bytes | EmojinetError:
    slack = app.web_client(TOKEN, f"{workspace.url}/api/")
    async with Files(slack, LOOPBACK) as way:
        return await way.picture(file)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://files.slack.com/files-pri/T1-F1/cat.jpg", True),
        ("https://slack.com/files-pri/T1-F1/cat.jpg", True),
        ("https://us.slack.com/files-pri/T1-F1/cat.jpg", True),
        ("https://files.slack.com.evil.com/cat.jpg", False),
        ("https://evilslack.com/cat.jpg", False),
        ("https://files.slack-gov.com/cat.jpg", False),
        ("http://files.slack.com/cat.jpg", False),
        ("https://files.slack.com:8443/cat.jpg", False),
        ("https://slack.com.:443/cat.jpg", False),
        ("https://127.0.0.1/cat.jpg", False),
    ],
)
async def test_the_token_goes_to_slacks_own_hosts_alone(url: str, own: bool) -> None:
    assert Files(app.web_client(TOKEN, HOME)).is_own(URL(url)) is own


async def test_another_host_is_not_even_asked(workspace: Workspace) -> None:
    async with Workspace().open("127.0.0.2") as elsewhere:
        file = elsewhere.picture()
        assert isinstance(await fetched(workspace, file), errors.UrlRefused)
    assert elsewhere.fetched == []


async def test_a_redirect_elsewhere_is_not_followed(workspace: Workspace) -> None:
    async with Workspace().open("127.0.0.2") as elsewhere:
        target = elsewhere.picture()["url_private"]

        async def lead(request: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(target)

        told = await fetched(workspace, workspace.file("cat.jpg", lead))
    assert isinstance(told, errors.FileUnreadable)
    assert elsewhere.fetched == []


async def test_a_redirect_within_slack_is_followed(workspace: Workspace) -> None:
    async def lead(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/files/origin.jpg")

    workspace.picture("origin.jpg")
    assert await fetched(workspace, workspace.file("cat.jpg", lead)) == JPEG
    assert workspace.fetched[1] == ("origin.jpg", f"Bearer {TOKEN}")


async def test_redirects_come_to_an_end(workspace: Workspace) -> None:
    async def lead(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/files/cat.jpg")

    assert isinstance(
        await fetched(workspace, workspace.file("cat.jpg", lead)), errors.FileUnreadable
    )
    assert len(workspace.fetched) == files.REDIRECTS + 1


@pytest.mark.parametrize("status", [200, 403])
async def test_the_page_to_sign_in_at_means_that_a_scope_is_missing(
    workspace: Workspace, status: int
) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>", content_type="text/html")

    told = await fetched(workspace, workspace.file("cat.jpg", page))
    assert isinstance(told, errors.FileUnreadable)
    assert "scope files:read" in str(told)


async def test_one_that_says_it_is_too_large_is_not_fetched(workspace: Workspace) -> None:
    told = await fetched(workspace, {**workspace.picture(), "size": LIMIT_BYTES + 1})
    assert isinstance(told, errors.ImageTooLarge)
    assert workspace.fetched == []


async def test_one_that_is_larger_than_it_says_is_read_no_further(workspace: Workspace) -> None:
    file = workspace.picture("big.jpg", bytes(LIMIT_BYTES + 1))
    assert isinstance(await fetched(workspace, {**file, "size": 5}), errors.ImageTooLarge)


@pytest.mark.parametrize("facts", [{"size": LIMIT_BYTES + 1}, {"mimetype": "image/heic"}])
async def test_of_what_the_server_cannot_take_slacks_own_small_form_is(
    workspace: Workspace, facts: dict[str, Any]
) -> None:
    small = workspace.picture("small.jpg")["url_private"]
    file = {**workspace.picture("big.heic", b"big"), **facts, files.THUMBNAIL: small}
    assert await fetched(workspace, file) == JPEG


async def test_one_that_drips_is_given_up(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SECONDS", 0.3)

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    told = await fetched(workspace, workspace.file("cat.jpg", drip))
    assert isinstance(told, errors.UrlFailed)


async def test_slack_that_is_busy_is_asked_again_when_it_says(workspace: Workspace) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        if len(workspace.fetched) == 1:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"})
        return web.Response(body=JPEG, content_type="image/jpeg")

    began = asyncio.get_running_loop().time()
    assert await fetched(workspace, workspace.file("cat.jpg", busy)) == JPEG
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_file_of_another_organisation_is_asked_for_first(workspace: Workspace) -> None:
    whole = workspace.picture()
    workspace.answers["files.info"].append(web.json_response({"ok": True, "file": whole}))
    told = {"id": "F7", "file_access": "check_file_info", "mimetype": "image/jpeg"}
    assert await fetched(workspace, told) == JPEG
    assert workspace.called("files.info")[0]["file"] == "F7"


async def test_a_scope_that_slack_names_is_named(workspace: Workspace) -> None:
    workspace.refuse("files.info", "missing_scope", needed="files:read")
    told = await fetched(workspace, {"id": "F7", "file_access": "check_file_info"})
    assert "scope files:read" in str(told)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"mode": "tombstone"}, errors.FileNotFound),
        ({"mode": "hidden_by_limit"}, errors.FileNotFound),
        ({"is_external": True, "url_private": "https://drive.google.com/x"}, errors.FileUnreadable),
        ({"url_private": None}, errors.FileUnreadable),
        ({"url_private": "file:///etc/passwd"}, errors.UrlRefused),
        ({"url_private": "https://user@slack.com/x"}, errors.UrlRefused),
    ],
)
async def test_what_is_not_there_or_not_slacks_is_not_fetched(
    workspace: Workspace, facts: dict[str, Any], kind: type[EmojinetError]
) -> None:
    assert isinstance(await fetched(workspace, {**workspace.picture(), **facts}), kind)
    assert workspace.fetched == []
