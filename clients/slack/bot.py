"""What the bot does with a post and with a command: looks at the pictures, and says it in emoji."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from clients.client import AsyncClient
from clients.remote import Remote
from clients.slack import names
from clients.slack.files import Files
from clients.slack.post import Post, links
from emojinet.v1 import emoji_pb2
from services.shared import errors
from services.shared.errors import EmojinetError

MAX_PICTURES = 10  # of one post
AT_ONCE = 8  # pictures of everybody that are held in memory
FETCH_SECONDS = SUGGEST_SECONDS = 20.0
MAX_NAME = 80
COMMAND = "/emojini"
USAGE = f"`{COMMAND} https://…` answers with emoji for the picture that is there."
HELP = (
    "Post a picture and mention me with it, or mention me with a picture's address, "
    f"and I answer with emoji. {USAGE}"
)
AWAY = "I cannot look at pictures just now. Try again in a while."
# Nobody has to be told again of what is done, and nobody is left to be told of what is gone.
DONE = ("already_reacted",)
GONE = ("message_not_found", "channel_not_found", "is_archived", "not_in_channel", "thread_locked")
IN_WORDS = ("invalid_name", "too_many_emoji", "too_many_reactions")  # what no reaction can say

log = logging.getLogger(__name__)


class How(StrEnum):
    """In what way a post is answered."""

    REACTION = "reaction"
    ANSWER = "answer"
    NOT = "not"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manners:
    """How the bot behaves."""

    posts: How = How.REACTION
    """With pictures that are just posted where it is."""
    mentions: How = How.ANSWER
    top: int = 5
    min_probability: float = 0.05


class Look(NamedTuple):
    """What came of one picture."""

    name: str
    found: Sequence[emoji_pb2.Suggestion] = ()
    error: EmojinetError | None = None


class Bot:
    """Answers in one workspace."""

    def __init__(
        self,
        slack: AsyncWebClient,
        client: AsyncClient,
        files: Files,
        remote: Remote,
        manners: Manners,
    ) -> None:
        self._slack, self._client = slack, client
        self._files, self._remote, self._manners = files, remote, manners
        self._room = asyncio.Semaphore(AT_ONCE)

    def how(self, post: Post) -> How:
        """In what way the post is to be answered."""
        return self._manners.mentions if post.mentions_me else self._manners.posts

    def concerns(self, post: Post) -> bool:
        """Whether there is something to look at, and somebody wants that."""
        if self.how(post) is How.NOT:
            return False
        return bool(post.files or post.urls) if post.mentions_me else any(map(_shows, post.files))

    async def answer(self, post: Post) -> None:
        """Looks at everything in a post, and answers it."""
        pictures = [file for file in post.files if _shows(file)]
        urls = post.urls if post.mentions_me else ()  # of a page as a rule, where nobody asks
        wanted = [self._file(file) for file in pictures] + [self._url(url) for url in urls]
        for unwanted in wanted[MAX_PICTURES:]:
            unwanted.close()
        looks = await asyncio.gather(*wanted[:MAX_PICTURES])
        lines = []
        if post.mentions_me:
            lines = [f"{_named(f)} is no picture." for f in post.files if not _shows(f)]
            if len(wanted) > MAX_PICTURES:
                lines.append(f"Those are {len(wanted)}; I look at {MAX_PICTURES} at a time.")
        told = [await self._told(post, look, len(wanted) > 1) for look in looks]
        await self._say(post, [line for line in (*told, *lines) if line])

    async def help(self, post: Post) -> None:
        """Says what one has to do, to whom mentions it with nothing to look at."""
        await self._say(post, [HELP])

    async def command(self, text: str, response_url: str) -> None:
        """Answers `/emojini URL`, to whom has asked alone: an address may be private."""
        url, *_ = links(text)
        look = await self._url(url)
        line = _error(look.error) if look.error else _emoji(look)
        answering = AsyncWebhookClient(response_url, retry_handlers=self._slack.retry_handlers)
        answer = await answering.send(text=line, response_type="ephemeral")
        if answer.status_code != 200:
            log.warning("Slack answered %d to an answer to %s", answer.status_code, COMMAND)

    async def _told(self, post: Post, look: Look, among_others: bool) -> str:
        """Reacts where a reaction says it, and returns what is to be said in words, if anything."""
        name = f"{_escaped(look.name)}: " if among_others and look.name else ""
        if look.error is not None:
            if not post.mentions_me and not _is_the_pictures(look.error):
                return ""  # nobody has asked; whoever looks after it reads it in the log
            return name + _error(look.error)
        if self.how(post) is How.ANSWER:
            return name + _emoji(look)
        if not look.found:
            return ""
        first = look.found[0].emoji
        return await self._reacted(post, first) or ""

    async def _reacted(self, post: Post, emoji: str) -> str | None:
        """Reacts to a post; what cannot be a reaction is to be said in words."""
        if (name := names.reaction(emoji)) is None:
            return emoji
        try:
            await self._slack.reactions_add(channel=post.channel, timestamp=post.ts, name=name)
        except SlackApiError as error:
            why = error.response.get("error")
            if why in IN_WORDS:
                return emoji
            if why == "missing_scope":
                lacks = error.response.get("needed") or "reactions:write"
                return f"{emoji} (as a reaction, if my app had the scope {lacks})"
            if why not in DONE:
                raise
        return None

    async def _say(self, post: Post, lines: Sequence[str]) -> None:
        if lines:
            await self._slack.chat_postMessage(
                channel=post.channel,
                thread_ts=post.thread,
                text="\n".join(lines),
                unfurl_links=False,
                unfurl_media=False,
            )

    async def _file(self, file: Mapping[str, Any]) -> Look:
        return await self._looked(_name(file), self._files.picture(file))

    async def _url(self, url: str) -> Look:
        return await self._looked("", self._remote.picture(url, FETCH_SECONDS))

    async def _looked(self, name: str, fetching: Awaitable[bytes | EmojinetError]) -> Look:
        async with self._room:
            content = await fetching
            if isinstance(content, EmojinetError):
                return Look(name, error=content)
            try:
                response = await self._client.suggest(
                    [content],
                    timeout=SUGGEST_SECONDS,
                    max_suggestions=self._manners.top,
                    min_probability=self._manners.min_probability,
                )
            except EmojinetError as error:
                log.warning("no answer from the inference service: %s", error)
                return Look(name, error=error)
        (result,) = response.results
        if result.HasField("error"):
            return Look(name, error=errors.from_proto(result.error))
        return Look(name, found=result.suggestions.suggestions)


def _shows(file: Mapping[str, Any]) -> bool:
    """Whether a file is a picture, or is not said to be anything else."""
    return str(file.get("mimetype") or "image/").startswith("image/")


def _name(file: Mapping[str, Any]) -> str:
    return str(file.get("title") or file.get("name") or "A file")[:MAX_NAME]


def _named(file: Mapping[str, Any]) -> str:
    return _escaped(_name(file))


def _escaped(text: str) -> str:
    """So that a file called <!channel> calls nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _emoji(look: Look) -> str:
    shares = (f"{each.emoji} {each.probability:.0%}" for each in look.found)
    return "   ".join(shares) or "no emoji comes to my mind."


def _is_the_pictures(error: EmojinetError) -> bool:
    """Whether the picture is what is wrong, and its people may want to know."""
    kinds = (errors.ImageError, errors.UrlRefused, errors.UrlFailed)
    return isinstance(error, (*kinds, errors.FileNotFound, errors.FileUnreadable))


def _error(error: EmojinetError) -> str:
    """What went wrong, in words for people who know nothing of our servers."""
    if _is_the_pictures(error) or isinstance(error, errors.Overloaded):
        return _escaped(str(error))
    return AWAY
