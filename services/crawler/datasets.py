"""The data sets of a service: frozen from crawls, listed, and rid of what is taken down."""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import dataset, manifest
from services.crawler.crawls import Crawls
from services.crawler.database import Database
from services.crawler.dataset import Find, Frozen
from services.crawler.frontier import Frontier
from services.crawler.keep import author_hash
from services.crawler.sources import NAMES
from services.crawler.splits import Shares
from services.crawler.tools import Tools
from services.shared import errors, shards, vocabulary
from services.shared.errors import AlreadyExists, EmojinetError, MalformedRequest, UnknownDataset
from services.shared.queue import internal
from services.shared.vocabulary import Vocabulary

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
LIVE = (states.STATE_PENDING, states.STATE_RUNNING)
MEMBERS_AT_ONCE = 5000  # rows: others write to the database in between

log = logging.getLogger(__name__)


class Datasets:
    """All data sets of one data folder."""

    def __init__(self, tools: Tools, crawls: Crawls) -> None:
        self._tools, self._database, self._crawls = tools, tools.database, crawls
        self._folder = tools.folder / "datasets"
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._compacting = asyncio.Lock()

    def go_on(self) -> None:
        """Continues what an earlier process of this service began: freezing, and taking down."""
        dataset.sweep(self._folder)
        self._tools.removals.apply()
        self._tools.removals.sweep()
        for (name,) in self._database.rows("SELECT name FROM dataset WHERE state IN (?, ?)", *LIVE):
            self._begin(name)

    def create(self, request: pb.CreateDatasetRequest) -> pb.Dataset:
        """A new data set, being frozen from now on.

        Raises:
            MalformedRequest: a field breaks its rule.
            AlreadyExists, UnknownCrawl, NotReady: its name is taken, or what it names is not there.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        name = request.name or f"{stamp}-{secrets.token_hex(2)}"
        _check(request, name)
        if self._database.row("SELECT 1 FROM dataset WHERE name = ?", name):
            raise AlreadyExists(f"There is a data set {name!r}; choose another name.", name=name)
        self._vocabulary(request)
        if next(self._tools.frontier.found(request.crawls), None) is None:
            raise errors.NotReady("These crawls have stored no pictures (yet).")
        self._database.run(
            "INSERT INTO dataset (name, request, state, created) VALUES (?, ?, ?, ?)",
            name,
            request.SerializeToString(),
            states.STATE_PENDING,
            time.time(),
        )
        self._begin(name)
        return self.get(name)

    def get(self, name: str) -> pb.Dataset:
        """A data set as it is now. Raises UnknownDataset."""
        found = self._found("WHERE name = ?", name)
        if not found:
            raise UnknownDataset(
                f"There is no data set {name!r}; `emojinet dataset list`.", name=name
            )
        return found[0]

    def list(self) -> Sequence[pb.Dataset]:
        """All of them, the newest first."""
        return self._found("ORDER BY created DESC, name DESC")

    async def remove(self, request: pb.RemoveContentRequest) -> pb.RemoveContentResponse:
        """Takes content down, at once and for ever.

        Raises:
            MalformedRequest: `content` names nothing.
            BadDataset: it is gone, but not from a data set that is damaged.
        """
        removals = self._tools.removals
        with self._database.transaction():
            match request.WhichOneof("content"):
                case "post":
                    _check_source(request.post.source, request.post.uri)
                    removals.remove_post(request.post.source, request.post.uri)
                case "author":
                    _check_source(request.author.source, request.author.author)
                    author = request.author
                    hashed = author_hash(author.source, author.author, self._tools.key)
                    removals.remove_author(author.source, hashed)
                case "image_sha256" if SHA256.fullmatch(request.image_sha256):
                    removals.remove_image(bytes.fromhex(request.image_sha256))
                case _:
                    raise MalformedRequest(
                        "`content` is a post, an author, or a SHA-256 of 64 hexadecimal digits.",
                        field="content",
                    )
        gone = removals.apply()
        if gone.failures:
            raise gone.failures[0]
        if request.compact:
            async with self._compacting:
                await self._compact()
        return pb.RemoveContentResponse(
            removed_images=gone.images, excluded_samples=gone.samples, datasets=gone.datasets
        )

    async def close(self) -> None:
        """Stops freezing; the next process begins anew what is not complete."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    # -- freezing ---------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._live(name), name=name)

    async def _live(self, name: str) -> None:
        """Freezes a data set and stores what became of it."""
        try:
            self._set(name, states.STATE_RUNNING)
            request = self.get(name).request
            known = self._vocabulary(request)
            frozen = await asyncio.to_thread(self._freeze, name, request, known)
            self._tools.removals.apply()  # what was taken down while it was written
            self._set(name, states.STATE_SUCCEEDED, frozen=frozen)
            log.info("%s: frozen, %s", name, dict(frozen.samples))
        except EmojinetError as error:
            self._fail(name, error)
        except Exception as error:
            self._fail(name, internal(error))

    def _freeze(self, name: str, request: pb.CreateDatasetRequest, known: Vocabulary) -> Frozen:
        """In a thread of its own, with a connection of its own."""
        with contextlib.closing(Database(self._database.path)) as database:
            folder, frontier = self._folder / name, Frontier(database)
            if folder.exists():  # the process died between naming it and saying so
                said = shards.facts(folder)
                frozen = Frozen(said["digest"], said["samples"])
            else:
                frozen = dataset.write(
                    folder,
                    self._finds(frontier, request),
                    vocabulary=known,
                    funnel=[
                        (count.stage, count.outcome, count.count)
                        for count in frontier.funnel(request.crawls).counts
                    ],
                    rules=frontier.crawl(request.crawls[0]).request.rules,
                    name=name,
                    shares=Shares(request.validation_share or 0.1, request.test_share or 0.1),
                )
            _enter_members(database, name, folder)
            return frozen

    def _finds(self, frontier: Frontier, request: pb.CreateDatasetRequest) -> Iterator[Find]:
        for sample, posts in frontier.found(request.crawls):
            yield Find(*sample, self._tools.store.path(sample.sha256), posts)

    def _vocabulary(self, request: pb.CreateDatasetRequest) -> Vocabulary:
        """What the crawls collected: all the same, or everything."""
        known = set()
        for name in request.crawls:
            asked = self._crawls.get(name).request
            if asked.mode != pb.CRAWL_MODE_COLLECT:
                raise MalformedRequest(f"{name} has collected nothing.", field="crawls")
            known.add(self._crawls.vocabulary(asked))
        first = known.pop()
        if first is None or known:
            every = tuple(emoji.text for emoji in vocabulary.inventory())
            return Vocabulary(every, (0,) * len(every))
        return first

    async def _compact(self) -> None:
        for (name,) in self._database.rows(
            "SELECT DISTINCT dataset FROM member WHERE excluded = 1"
        ):
            frozen = await asyncio.to_thread(dataset.compact, self._folder / name)
            left = shards.excluded(self._folder / name)  # since it began
            with self._database.transaction():
                self._set(name, states.STATE_SUCCEEDED, frozen=frozen)
                self._database.run(
                    "DELETE FROM member WHERE dataset = ? AND excluded = 1 "
                    "AND key NOT IN (SELECT value FROM json_each(?))",
                    name,
                    json.dumps(sorted(left)),
                )

    # -- what is known of them --------------------------------------------------------------------

    def _fail(self, name: str, error: EmojinetError) -> None:
        log.warning("%s: %s", name, error)
        with contextlib.suppress(errors.StorageFailed):  # begun anew by the next process
            self._set(name, states.STATE_FAILED, error=errors.to_proto(error).SerializeToString())

    def _set(
        self, name: str, state: states.State, *, error: bytes = b"", frozen: Frozen | None = None
    ) -> None:
        self._database.run(
            "UPDATE dataset SET state = ?, error = ?, digest = ?, samples = ?, ended = ? "
            "WHERE name = ?",
            state,
            error,
            frozen and frozen.digest,
            frozen and json.dumps(dict(frozen.samples)),
            None if state in LIVE else time.time(),
            name,
        )

    def _found(self, condition: str, *values: object) -> Sequence[pb.Dataset]:
        rows = self._database.rows(
            "SELECT name, request, state, error, digest, samples, created, ended, "
            "(SELECT count(DISTINCT key) FROM member WHERE dataset = name AND excluded = 1) "
            f"FROM dataset {condition}",
            *values,
        )
        return [self._described(*row) for row in rows]

    def _described(self, *row: Any) -> pb.Dataset:
        name, request, state, error, digest, samples, created, ended, excluded = row
        found = pb.Dataset(
            name=name,
            request=pb.CreateDatasetRequest.FromString(request),
            state=state,
            digest=digest or "",
            samples=json.loads(samples or "{}"),
            excluded=excluded,
            uri=str((self._folder / name).resolve()),
        )
        found.create_time.FromMilliseconds(int(created * 1000))
        if ended:
            found.end_time.FromMilliseconds(int(ended * 1000))
        if error:
            found.error.ParseFromString(error)
        with contextlib.suppress(OSError, ValueError):
            for count in json.loads(Path(found.uri, "funnel.json").read_bytes()):
                found.funnel.counts.add(**count)
        return found


def _enter_members(database: Database, name: str, folder: Path) -> None:
    """Notes which pictures are in which sample; some may have been taken down meanwhile."""
    members = manifest.members(folder)
    while some := list(islice(members, MEMBERS_AT_ONCE)):
        with database.transaction():
            for sha256, key in some:
                database.run(
                    "INSERT OR IGNORE INTO member VALUES "
                    "(?1, ?2, ?3, NOT EXISTS (SELECT 1 FROM sample WHERE sha256 = ?1))",
                    sha256,
                    name,
                    key,
                )


def _check(request: pb.CreateDatasetRequest, name: str) -> None:
    if not NAME.fullmatch(name):
        raise MalformedRequest(
            "`name` is up to 64 letters, digits, `-` and `_`, a letter or digit first.",
            field="name",
        )
    if not request.crawls:
        raise MalformedRequest("`crawls` names at least one crawl.", field="crawls")
    for field in ("validation_share", "test_share"):
        if not 0 <= getattr(request, field) <= 0.5:
            raise MalformedRequest(f"`{field}` is from 0 to 0.5.", field=field)


def _check_source(source: str, what: str) -> None:
    if source not in NAMES.values() or not what:
        raise MalformedRequest(
            f"`source` is one of {', '.join(NAMES.values())}, with what it names.", field="source"
        )
