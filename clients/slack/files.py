"""Files of a workspace, fetched with the bot's token, which goes to Slack and to nobody else."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from yarl import URL

from clients.pictures import LIMIT_BYTES
from services.shared import addresses, guarded
from services.shared.errors import (
    EmojinetError,
    FileNotFound,
    FileUnreadable,
    ImageTooLarge,
    UrlFailed,
    UrlRefused,
)

SECONDS = 30.0
ATTEMPTS = 3
REDIRECTS = 3
MAX_CONNECTIONS = 16
THUMBNAIL = "thumb_1024"  # Slack's own small form of a picture, as JPEG or PNG
FOREIGN_FORMATS = ("image/heic", "image/heif")  # which the server may not decode
SCOPE = "files:read"
MISSING = (
    "Slack does not let me have it: my app lacks the scope {}. Whoever looks after it can add that "
    "under OAuth & Permissions, and has to install the app again then."
)


class Files:
    """The way to a workspace's files, to be entered before use.

    Args:
        slack: has the token, and where Slack's API is: hosts beside and below it are Slack's.
        allow: networks that are none of the public internet and yet may be asked.
    """

    def __init__(self, slack: AsyncWebClient, allow: Sequence[addresses.Network] = ()) -> None:
        self._slack, self._allow = slack, allow
        self._home = URL(slack.base_url)

    async def __aenter__(self) -> Self:
        self._session = guarded.session(self._allow, MAX_CONNECTIONS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def picture(self, file: Mapping[str, Any]) -> bytes | EmojinetError:
        """A picture's bytes, within its time; or what is wrong with it, in words for a person."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self._fetched(self._address(await self._known(file)))
        except TimeoutError:
            return UrlFailed(f"Slack did not give me the file within {SECONDS:.0f} s.")
        except EmojinetError as error:
            return error
        except SlackApiError as error:
            return _refusal(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return UrlFailed(f"The file cannot be fetched: {guarded.cause(error)}.")

    def is_own(self, url: URL) -> bool:
        """Whether it is Slack's: of the API's host or below its domain, and spoken to the same way.

        files.slack.com is below slack.com, files.slack-gov.com below slack-gov.com.
        """
        host, home = url.raw_host or "", self._home.raw_host or ""
        beside = url.scheme == self._home.scheme and url.port == self._home.port
        return beside and (host == home or host.endswith(f".{home}"))

    async def _known(self, file: Mapping[str, Any]) -> Mapping[str, Any]:
        """The file's facts, which Slack leaves out of messages from other organisations."""
        if file.get("file_access") != "check_file_info":
            return file
        found = (await self._slack.files_info(file=str(file.get("id")))).get("file")
        return found if isinstance(found, dict) else {}

    def _address(self, file: Mapping[str, Any]) -> URL:
        if file.get("mode") in ("tombstone", "hidden_by_limit"):
            raise FileNotFound("Slack does not have the file any more.")
        if file.get("is_external") or file.get("mode") == "external":
            raise FileUnreadable("The file is kept outside Slack; post the picture itself.")
        size = file.get("size")
        too_large = isinstance(size, int) and size > LIMIT_BYTES
        small = file.get(THUMBNAIL) if too_large or _is_foreign(file) else None
        if too_large and not small:
            raise _too_large()
        found = small or file.get("url_private_download") or file.get("url_private")
        if not isinstance(found, str):
            raise FileUnreadable("Slack does not say where the file is; I may not read it.")
        return self._checked(found)

    def _checked(self, url: str | URL) -> URL:
        parsed = addresses.check_url(url)
        if not self.is_own(parsed):
            raise UrlRefused("The file is not on one of Slack's own hosts, and I stay there.")
        return parsed

    async def _fetched(self, url: URL) -> bytes:
        headers = {"Authorization": f"Bearer {self._slack.token}", "Accept-Encoding": "identity"}
        redirects, attempts = 0, 1
        while True:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                pause = _pause_seconds(response)
                target = guarded.redirect(response)
                if pause is None and target is None:
                    return await _content(response)
            if target is not None:
                # The page to sign in at is on Slack's hosts, too; it is no picture.
                if redirects == REDIRECTS or not self.is_own(target):
                    raise FileUnreadable(MISSING.format(SCOPE))
                url, redirects = target, redirects + 1
            elif attempts == ATTEMPTS:
                raise UrlFailed("Slack is too busy to give me the file.")
            else:
                attempts += 1
                await asyncio.sleep(pause or 0.0)


def _pause_seconds(response: aiohttp.ClientResponse) -> float | None:
    """After which to ask again, where Slack says so."""
    if response.status != 429:
        return None
    told = response.headers.get("Retry-After", "")
    return min(float(told), SECONDS) if told.isdecimal() else 1.0


async def _content(response: aiohttp.ClientResponse) -> bytes:
    if response.status in (401, 403) or response.content_type == "text/html":
        raise FileUnreadable(MISSING.format(SCOPE))  # what it sends is the page to sign in at
    if response.status == 404:
        raise FileNotFound("Slack does not have the file any more.")
    if response.status != 200:
        raise UrlFailed(f"Slack answered {response.status}.", status=str(response.status))
    content, whole = await guarded.read(response, LIMIT_BYTES)
    if not whole:
        raise _too_large()
    return content


def _is_foreign(file: Mapping[str, Any]) -> bool:
    return file.get("mimetype") in FOREIGN_FORMATS


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(
        f"The picture has more than {LIMIT_BYTES >> 20} MiB; post it smaller.",
        limit=str(LIMIT_BYTES),
    )


def _refusal(error: SlackApiError) -> EmojinetError:
    if error.response.get("error") == "missing_scope":
        return FileUnreadable(MISSING.format(error.response.get("needed") or SCOPE))
    return FileUnreadable(f"Slack does not let me have the file: {error.response.get('error')}.")
