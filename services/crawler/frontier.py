"""What is known of crawls: where each stands, its posts, and its pictures still to be fetched.

Reading is exactly once: the posts of a page are stored with the cursor that follows them. Fetching
is at least once, and its result is stored once: what was in flight when the process died is
fetched again.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler.database import Database
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.shared.errors import UnknownCrawl
from services.shared.watching import LIVE

STORED, DUPLICATE = "stored", "duplicate"  # outcomes of pictures that became samples
FOUND_AT_ONCE = 1000  # digests in memory


class Queued(NamedTuple):
    """A picture to be fetched."""

    id: int
    image: PostImage
    attempts: int
    """Made so far, in vain."""


class Sample(NamedTuple):
    """What is known of a stored picture."""

    sha256: bytes
    """Of the bytes as they were fetched."""
    pdq: bytes
    quality: int
    width: int
    """Of the upright original, in pixels."""
    height: int


class Fate(NamedTuple):
    """What became of a picture in one attempt."""

    id: int
    outcome: str = ""
    """Why it is no sample; empty if it is one, or is to be tried again."""
    sample: Sample | None = None
    """What it is, if it is one; its file is in the store."""
    attempts: int = 0
    """Made so far, if it is to be tried again."""
    due_seconds: float = 0.0
    """When to do so, since 1970."""


class Settled(NamedTuple):
    """What the fates of some pictures came to."""

    tally: Counter[str]
    """Of the outcomes that are final."""
    unwanted: Sequence[bytes]
    """Digests of pictures that nobody wants any more: their posts are gone since."""


class Frontier:
    """The crawls of one data folder."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transaction = database.transaction

    # -- crawls -----------------------------------------------------------------------------------

    def create(self, name: str, request: pb.StartCrawlRequest) -> None:
        """A new crawl, pending."""
        self._database.run(
            "INSERT INTO crawl (name, request, state, created) VALUES (?, ?, ?, ?)",
            name,
            request.SerializeToString(),
            states.STATE_PENDING,
            time.time(),
        )

    def crawl(self, name: str) -> pb.Crawl:
        """A crawl as it is now, without its vocabulary.

        Raises:
            UnknownCrawl: there is none of that name.
        """
        found = self._crawls("WHERE name = ?", name)
        if not found:
            raise UnknownCrawl(f"There is no crawl {name!r}; `emojinet crawl list`.", name=name)
        return found[0]

    def crawls(self) -> list[pb.Crawl]:
        """All of them, the newest first."""
        return self._crawls("ORDER BY created DESC, name DESC")

    def _crawls(self, condition: str, *values: object) -> list[pb.Crawl]:
        found = []
        for name, request, state, error, created, ended in self._database.rows(
            f"SELECT name, request, state, error, created, ended FROM crawl {condition}", *values
        ):
            crawl = pb.Crawl(
                name=name,
                state=state,
                request=pb.StartCrawlRequest.FromString(request),
                funnel=self.funnel([name]),
            )
            crawl.create_time.FromMilliseconds(int(created * 1000))
            if ended:
                crawl.end_time.FromMilliseconds(int(ended * 1000))
            if error:
                crawl.error.ParseFromString(error)
            found.append(crawl)
        return found

    def set_state(self, name: str, state: states.State, error: bytes = b"") -> None:
        """Where the crawl stands from now on, unless it has ended.

        Args:
            error: a serialised `google.rpc.Status`, where there is something wrong.
        """
        self._database.run(
            "UPDATE crawl SET state = ?, error = ?, ended = ? "
            "WHERE name = ? AND state IN (?, ?, ?)",
            state,
            error,
            None if state in LIVE else time.time(),
            name,
            *LIVE,
        )

    def live(self) -> list[str]:
        """The crawls to go on with, the oldest first."""
        rows = self._database.rows(
            "SELECT name FROM crawl WHERE state IN (?, ?, ?) ORDER BY created", *LIVE
        )
        return [name for (name,) in rows]

    def funnel(self, crawls: Sequence[str]) -> pb.Funnel:
        """What became of the posts and pictures of these crawls, the most frequent fate first."""
        marks = ", ".join("?" * len(crawls))
        rows = self._database.rows(
            f"SELECT stage, outcome, sum(count) FROM tally WHERE crawl IN ({marks}) "
            "GROUP BY stage, outcome ORDER BY stage DESC, sum(count) DESC, outcome",
            *crawls,
        )
        return pb.Funnel(
            counts=[pb.FunnelCount(stage=s, outcome=o, count=count) for s, o, count in rows]
        )

    # -- reading ----------------------------------------------------------------------------------

    def cursor(self, crawl: str) -> tuple[str, bool]:
        """Where to go on reading, and whether everything was read."""
        row = self._database.row("SELECT cursor, read_all FROM crawl WHERE name = ?", crawl)
        return (row[0], bool(row[1])) if row else ("", False)

    def advance(self, crawl: str, cursor: str, tally: Counter[str]) -> None:
        """Takes note of a page: to be called in the transaction that stores its posts."""
        self._database.run("UPDATE crawl SET cursor = ? WHERE name = ?", cursor, crawl)
        self._count(crawl, "post", tally)

    def finish_reading(self, crawl: str) -> None:
        """There are no more posts."""
        self._database.run("UPDATE crawl SET read_all = 1 WHERE name = ?", crawl)

    def posts_read(self, crawl: str) -> int:
        """How many posts were judged so far."""
        row = self._database.row(
            "SELECT sum(count) FROM tally WHERE crawl = ? AND stage = 'post'", crawl
        )
        return (row and row[0]) or 0

    def add(self, crawl: str, kept: Kept) -> bool:
        """Stores a post and queues its pictures; false if the crawl has the post already."""
        post = self._database.insert(
            "INSERT OR IGNORE INTO post "
            "(crawl, source, uri, author, time, segment, mentions, hashtags, words) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            crawl,
            *kept[:5],
            *(json.dumps(part, ensure_ascii=False) for part in kept[5:8]),
        )
        if not post:
            return False
        for image in kept.images:
            self._database.run(
                "INSERT OR IGNORE INTO image (crawl, url, cid, host) VALUES (?, ?, ?, ?)",
                crawl,
                image.url,
                image.cid,
                _host(image.url),
            )
            self._database.run(
                "INSERT OR IGNORE INTO shown SELECT id, ? FROM image WHERE crawl = ? AND url = ?",
                post,
                crawl,
                image.url,
            )
        self._count_kept(crawl, kept)
        return True

    def _count_kept(self, crawl: str, kept: Kept) -> None:
        emoji = {mention.emoji for mention in kept.mentions}
        self.count_emoji(crawl, dict.fromkeys(emoji, len(kept.images)))
        if kept.author:
            self._database.run(
                "INSERT INTO author_count VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = count + excluded.count",
                crawl,
                kept.author,
                len(kept.images),
            )

    def count_emoji(self, crawl: str, counts: dict[str, int]) -> None:
        """Adds to what was counted of emoji: posts by a ranking, pictures by a collecting."""
        for emoji, count in counts.items():
            self._database.run(
                "INSERT INTO emoji_count VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = count + excluded.count",
                crawl,
                emoji,
                count,
            )

    def emoji_counts(self, crawl: str) -> dict[str, int]:
        """What was counted of each emoji."""
        return dict(
            self._database.rows("SELECT emoji, count FROM emoji_count WHERE crawl = ?", crawl)
        )

    def author_count(self, crawl: str, author: bytes) -> int:
        """Pictures of the author in this crawl."""
        row = self._database.row(
            "SELECT count FROM author_count WHERE crawl = ? AND author = ?", crawl, author
        )
        return row[0] if row else 0

    # -- fetching ---------------------------------------------------------------------------------

    def pending(self, crawl: str, limit: int = 1) -> int:
        """Pictures that still have to be fetched, counted as far as `limit`."""
        row = self._database.row(
            "SELECT count(*) FROM (SELECT 1 FROM image WHERE crawl = ? AND state = 0 LIMIT ?)",
            crawl,
            limit,
        )
        return row[0] if row else 0

    def hosts(self, crawl: str) -> list[str]:
        """Where pictures still have to be fetched from."""
        # One step in the index for each host: `SELECT DISTINCT` would read every entry.
        rows = self._database.rows(
            "WITH RECURSIVE next (host) AS ("
            "SELECT min(host) FROM image WHERE crawl = :crawl AND state = 0 UNION ALL "
            "SELECT (SELECT min(host) FROM image WHERE crawl = :crawl AND state = 0 "
            "AND host > next.host) FROM next WHERE next.host IS NOT NULL) "
            "SELECT host FROM next WHERE host IS NOT NULL".replace(":crawl", "?1"),
            crawl,
        )
        return [host for (host,) in rows]

    def fresh(self, crawl: str, host: str, after: int, limit: int) -> list[Queued]:
        """Pictures that were never tried, in the order in which they were found."""
        return self._queued(
            "attempts = 0 AND id > ? ORDER BY id LIMIT ?", crawl, host, after, limit
        )

    def again(self, crawl: str, host: str, now_seconds: float, limit: int) -> list[Queued]:
        """Pictures whose time has come to be tried again, in the order in which it came."""
        condition = "attempts > 0 AND due <= ? ORDER BY due LIMIT ?"
        return self._queued(condition, crawl, host, now_seconds, limit)

    def _queued(self, condition: str, crawl: str, host: str, *values: object) -> list[Queued]:
        rows = self._database.rows(
            "SELECT id, url, cid, attempts FROM image "
            f"WHERE state = 0 AND crawl = ? AND host = ? AND {condition}",
            crawl,
            host,
            *values,
        )
        return [Queued(id, PostImage(url, cid), attempts) for id, url, cid, attempts in rows]

    def sample(self, sha256: bytes) -> Sample | None:
        """What is known of a stored picture; none if it is not stored."""
        row = self._database.row("SELECT * FROM sample WHERE sha256 = ?", sha256)
        return Sample(*row) if row else None

    def settle(self, crawl: str, fates: Iterable[Fate]) -> Settled:
        """Stores what became of pictures: to be called in a transaction."""
        tally: Counter[str] = Counter()
        unwanted = []
        for fate in fates:
            if not fate.outcome and not fate.sample:
                self._database.run(
                    "UPDATE image SET attempts = ?, due = ? WHERE id = ?",
                    fate.attempts,
                    fate.due_seconds,
                    fate.id,
                )
            elif self._database.run(
                "UPDATE image SET state = ?, sha256 = ? WHERE id = ? AND state = 0",
                1 if fate.sample else 2,
                fate.sample and fate.sample.sha256,
                fate.id,
            ):
                tally[fate.outcome or self._add_sample(fate.sample)] += 1
            elif fate.sample:
                unwanted.append(fate.sample.sha256)
        self._count(crawl, "image", tally)
        return Settled(tally, unwanted)

    def _add_sample(self, sample: Sample | None) -> str:
        assert sample
        marks = "INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?, ?)"
        return STORED if self._database.run(marks, *sample) else DUPLICATE

    def _count(self, crawl: str, stage: str, tally: Counter[str]) -> None:
        for outcome, count in tally.items():
            self._database.run(
                "INSERT INTO tally VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = count + excluded.count",
                crawl,
                stage,
                outcome,
                count,
            )

    # -- what was found ---------------------------------------------------------------------------

    def found(self, crawls: Sequence[str]) -> Iterator[tuple[Sample, list[Kept]]]:
        """Every stored picture of these crawls with all their posts that show it, by its digest."""
        marks = ", ".join("?" * len(crawls))
        query = (
            "SELECT DISTINCT sha256 FROM image INDEXED BY image_sha256 "  # or it sorts each time
            f"WHERE sha256 > ? AND state = 1 AND crawl IN ({marks}) "
            f"ORDER BY sha256 LIMIT {FOUND_AT_ONCE}"
        )
        sha256 = b""
        while digests := self._database.rows(query, sha256, *crawls):
            for (sha256,) in digests:
                sample = self.sample(sha256)
                posts = self._showing(sha256, crawls)
                if sample and posts:
                    yield sample, posts

    def _showing(self, sha256: bytes, crawls: Sequence[str]) -> list[Kept]:
        marks = ", ".join("?" * len(crawls))
        rows = self._database.rows(
            "SELECT DISTINCT source, uri, author, time, segment, mentions, hashtags, words "
            "FROM image JOIN shown ON shown.image = image.id JOIN post ON post.id = shown.post "
            f"WHERE image.sha256 = ? AND post.crawl IN ({marks}) ORDER BY source, uri",
            sha256,
            *crawls,
        )
        return [_kept(*row) for row in rows]


def _host(url: str) -> str:
    """Who serves a URL; empty for this machine, and for a URL that the fetcher will refuse."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def _kept(*row: Any) -> Kept:
    *facts, mentions, hashtags, words = row
    pairs = [Mention(emoji, Where(where)) for emoji, where in json.loads(mentions)]
    return Kept._make([*facts, pairs, json.loads(hashtags), json.loads(words), ()])


class Quotas(MutableMapping[str, str]):
    """How much of each source's quota was used, so that a restart does not begin anew."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, name: str) -> str:
        row = self._database.row("SELECT state FROM quota WHERE name = ?", name)
        if row is None:
            raise KeyError(name)
        return str(row[0])

    def __setitem__(self, name: str, state: str) -> None:
        self._database.run("INSERT OR REPLACE INTO quota VALUES (?, ?)", name, state)

    def __delitem__(self, name: str) -> None:
        self._database.run("DELETE FROM quota WHERE name = ?", name)

    def __iter__(self) -> Iterator[str]:
        return (name for (name,) in self._database.rows("SELECT name FROM quota"))

    def __len__(self) -> int:
        return len(list(iter(self)))
