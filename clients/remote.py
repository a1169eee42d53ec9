"""Pictures that URLs lead to, fetched from the public internet alone."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import aiohttp

from clients.pictures import LIMIT_BYTES
from services.shared import addresses, guarded
from services.shared.errors import EmojinetError, ImageTooLarge, UrlFailed, UrlRefused

SCHEMES = ("http", "https")
HEADERS = {"Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity"}
MAX_CONNECTIONS = 32


class Remote:
    """The guarded way to the web, to be entered before use.

    Args:
        allow: networks that are none of the public internet and yet may be asked.
    """

    def __init__(self, allow: Sequence[addresses.Network] = ()) -> None:
        self._allow = allow

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

    async def picture(self, url: str, timeout_seconds: float) -> bytes | EmojinetError:
        """What the URL leads to, within so many seconds; or what is wrong with it."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._fetched(url)
        except TimeoutError:
            return UrlFailed(f"The picture did not come within {timeout_seconds:.1f} s.")
        except EmojinetError as error:
            return error
        except aiohttp.TooManyRedirects:
            return UrlFailed("The URL redirects too often.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if guarded.is_refused(error):
                return UrlRefused(
                    "The URL leads to an address that is not of the public internet, or to a port "
                    "other than 80 and 443. Send the picture itself instead."
                )
            return UrlFailed(f"The picture cannot be fetched: {guarded.cause(error)}.")

    async def _fetched(self, url: str) -> bytes:
        parsed = addresses.check_url(url)
        if parsed.scheme not in SCHEMES:
            raise UrlRefused(f"The URL's scheme is {parsed.scheme!r}; it must be http or https.")
        async with guarded.opened(self._session, parsed, HEADERS) as response:
            if response.status != 200:
                status = str(response.status)
                raise UrlFailed(f"The URL's host answered {status}.", status=status)
            content, whole = await guarded.read(response, LIMIT_BYTES)
        if not whole:
            raise ImageTooLarge(
                f"The URL leads to more than {LIMIT_BYTES >> 20} MiB.", limit=str(LIMIT_BYTES)
            )
        return content
