"""Work behind an acknowledgement: Slack waits three seconds, and pictures may take longer."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from slack_sdk.errors import SlackApiError

from clients.slack.bot import GONE
from services.shared.queue import internal

MAX = 100  # of which more wait at Slack, which tries again after a minute, and after five
SECONDS = 120.0  # for one, with all that Slack asks to wait
STOP_SECONDS = 15.0

log = logging.getLogger(__name__)


class Behind:
    """All work that is under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether there is so much of it that more should come later."""
        return len(self._tasks) >= MAX

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it, and logs how it failed where it did."""
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Lets it come to its end, for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.cancel()


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            await work
    except TimeoutError:
        log.warning("given up after %.0f s: Slack or the network is too slow", SECONDS)
    except SlackApiError as error:
        told = error.response
        if told.get("error") in GONE:
            log.info("nobody is left to answer to: %s", told.get("error"))
        elif told.get("error") == "missing_scope":
            log.error("Slack refuses: the app lacks the scope %s", told.get("needed"))
        else:
            log.error("Slack refuses: %s", told.get("error"))
    except Exception as error:
        internal(error)
