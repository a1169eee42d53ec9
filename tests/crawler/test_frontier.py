import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from services.crawler import frontier as module
from services.crawler.database import Database
from services.crawler.frontier import Fate, Frontier, Quotas, Sample
from services.crawler.keep import Kept, Mention, Where
from services.crawler.post import PostImage
from services.shared.errors import UnknownCrawl

CRAWL = "collect-1"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "crawler.db")
    yield opened
    opened.close()


@pytest.fixture
def frontier(database: Database) -> Frontier:
    made = Frontier(database)
    for name in (CRAWL, "collect-2"):
        made.create(name, pb.StartCrawlRequest())
    return made


def kept(
    uri: str = "at://1",
    *urls: str,
    emoji: str = "🍕",
    author: bytes = b"a",
    source: str = "bluesky",
) -> Kept:
    return Kept(
        source=source,
        uri=uri,
        author=author,
        time_seconds=1.5,
        segment="s",
        mentions=[Mention(each, Where.TEXT) for each in emoji],
        hashtags=["yum"],
        words=["dinner"],
        images=[PostImage(url, f"cid of {url}") for url in urls or (f"https://x.y/{uri}",)],
    )


def sample(content: bytes = b"1") -> Sample:
    return Sample(content * 32, b"p" * 32, 90, 640, 480)


def queue(frontier: Frontier, crawl: str = CRAWL) -> list[str]:
    return [
        queued.image.url
        for host in frontier.hosts(crawl)
        for queued in frontier.fresh(crawl, host, 0, 1000)
    ]


def counts(frontier: Frontier, crawl: str = CRAWL) -> dict[tuple[str, str], int]:
    return {(c.stage, c.outcome): c.count for c in frontier.funnel([crawl]).counts}


def images(database: Database) -> list[tuple[str, int]]:
    return database.rows("SELECT url, state FROM image ORDER BY id")


# -- crawls -------------------------------------------------------------------------------------


def test_a_crawl_is_as_it_was_started(frontier: Frontier) -> None:
    request = pb.StartCrawlRequest(mode=pb.CRAWL_MODE_RANK, max_posts=7)
    frontier.create("rank-1", request)
    frontier.advance("rank-1", "c", Counter(counted=2))

    crawl = frontier.crawl("rank-1")

    assert (crawl.name, crawl.state, crawl.request) == ("rank-1", states.STATE_PENDING, request)
    assert [(c.stage, c.outcome, c.count) for c in crawl.funnel.counts] == [("post", "counted", 2)]
    assert abs(crawl.create_time.ToMilliseconds() / 1000 - time.time()) < 5
    assert not crawl.HasField("end_time")
    assert [crawl.name for crawl in frontier.crawls()] == ["rank-1", "collect-2", "collect-1"]


def test_a_crawl_that_is_not_there_is_named(frontier: Frontier) -> None:
    with pytest.raises(UnknownCrawl, match="collect-9"):
        frontier.crawl("collect-9")


def test_a_crawl_that_has_ended_stays_as_it_ended(frontier: Frontier) -> None:
    frontier.set_state(CRAWL, states.STATE_RUNNING)
    assert frontier.live() == ["collect-1", "collect-2"]

    frontier.set_state(CRAWL, states.STATE_CANCELLED)
    frontier.set_state(CRAWL, states.STATE_RUNNING)

    assert frontier.crawl(CRAWL).state == states.STATE_CANCELLED
    assert frontier.crawl(CRAWL).HasField("end_time")
    assert frontier.live() == ["collect-2"]


# -- reading ------------------------------------------------------------------------------------


class Crash(Exception):
    """What ends a process in the middle of a transaction."""


def admit(frontier: Frontier, posts: Sequence[Kept], cursor: str) -> None:
    """A page, as crawls take it in."""
    tally = Counter("kept" if frontier.add(CRAWL, post) else "seen_before" for post in posts)
    frontier.advance(CRAWL, cursor, tally)


class Crashing(Database):
    """Fails at one of its statements, as if the process had died there."""

    left = 10**9

    def _crash(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash

    def run(self, statement: str, *values: object) -> int:
        self._crash()
        return super().run(statement, *values)

    def insert(self, statement: str, *values: object) -> int:
        self._crash()
        return super().insert(statement, *values)


def everything(database: Database) -> list[list[tuple[object, ...]]]:
    tables = ("post", "image", "shown", "tally", "emoji_count", "author_count", "sample")
    found = [database.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables[:2]]
    found += [database.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables[2:]]
    return [*found, database.rows("SELECT name, cursor FROM crawl ORDER BY name")]


PAGE = [kept("at://1", "https://a/1", "https://b/1"), kept("at://2", "https://a/1", emoji="🐕🍕")]


def test_a_crash_at_any_statement_of_a_page_leaves_nothing_of_it(tmp_path: Path) -> None:
    database = Crashing(tmp_path / "crawler.db")
    frontier = Frontier(database)
    frontier.create(CRAWL, pb.StartCrawlRequest())
    with frontier.transaction():
        admit(frontier, [kept("at://0", "https://a/1")], "first")
    before, crashes = everything(database), 0

    while True:
        database.left = crashes + 1
        try:
            with frontier.transaction():
                admit(frontier, PAGE, "second")
        except Crash:
            crashes += 1
            database.left = 10**9
            assert everything(database) == before
        else:
            break

    database.left = 10**9
    assert crashes > 12
    assert frontier.cursor(CRAWL) == ("second", False)
    assert counts(frontier) == {("post", "kept"): 3}
    assert queue(frontier) == ["https://a/1", "https://b/1"]
    assert frontier.emoji_counts(CRAWL) == {"🍕": 4, "🐕": 1}
    database.close()


posts = st.lists(
    st.builds(
        lambda uri, urls, emoji, author: kept(
            f"at://{uri}",
            *(f"https://h{url % 3}/{url}" for url in urls),
            emoji=emoji,
            author=author,
        ),
        st.integers(0, 9),
        st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
        st.sampled_from(["🍕", "🐕", "🐕🍕"]),
        st.sampled_from([b"", b"a", b"b"]),
    ),
    max_size=20,
)


@settings(max_examples=30)
@given(pages=st.lists(posts, max_size=4), again=st.booleans())
def test_whatever_comes_twice_is_stored_counted_and_fetched_once(
    tmp_path_factory: pytest.TempPathFactory, pages: list[list[Kept]], again: bool
) -> None:
    database = Database(tmp_path_factory.mktemp("some") / "crawler.db")
    frontier = Frontier(database)
    frontier.create(CRAWL, pb.StartCrawlRequest())
    for page in [*pages, *pages] if again else pages:
        with frontier.transaction():
            admit(frontier, page, "")

    every = [post for page in pages for post in page]
    first: dict[str, Kept] = {}
    for post in every:
        first.setdefault(post.uri, post)
    of_emoji: Counter[str] = Counter()
    of_author: Counter[bytes] = Counter()
    for post in first.values():
        of_emoji.update(dict.fromkeys({m.emoji for m in post.mentions}, len(post.images)))
        of_author[post.author] += len(post.images)
    tally = counts(frontier)

    assert tally.get(("post", "kept"), 0) == len(first)
    assert sum(tally.values()) == frontier.posts_read(CRAWL) == len(every) * (1 + again)
    assert sorted(queue(frontier)) == sorted({i.url for p in first.values() for i in p.images})
    assert frontier.emoji_counts(CRAWL) == of_emoji
    for author in (b"a", b"b"):
        assert frontier.author_count(CRAWL, author) == of_author[author]
    assert frontier.author_count(CRAWL, b"") == 0
    database.close()


def test_a_post_may_name_a_picture_twice(frontier: Frontier) -> None:
    assert frontier.add(CRAWL, kept("at://1", "https://a/1", "https://a/1"))

    assert queue(frontier) == ["https://a/1"]


def test_crawls_know_nothing_of_each_others_posts(frontier: Frontier) -> None:
    assert frontier.add(CRAWL, kept())
    assert not frontier.add(CRAWL, kept())
    assert frontier.add("collect-2", kept())

    assert queue(frontier) == queue(frontier, "collect-2") == ["https://x.y/at://1"]
    assert frontier.emoji_counts("collect-2") == {"🍕": 1}


def test_reading_goes_on_from_its_cursor_until_all_was_read(frontier: Frontier) -> None:
    assert frontier.cursor(CRAWL) == ("", False)
    frontier.advance(CRAWL, "here", Counter(kept=2, no_image=1))
    frontier.advance(CRAWL, "there", Counter(kept=1))
    assert frontier.cursor(CRAWL) == ("there", False)
    assert frontier.posts_read(CRAWL) == 4

    frontier.finish_reading(CRAWL)
    assert frontier.cursor(CRAWL) == ("there", True)
    assert frontier.cursor("collect-2") == ("", False)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://CDN.example/1.jpg", "cdn.example"),
        ("https://cdn.example:8443/1.jpg", "cdn.example:8443"),
        ("https://anna:secret@cdn.example/1.jpg", "cdn.example"),
        ("file:///data/1.jpg", ""),
        ("http://[cdn.example/1.jpg", ""),
        ("http://cdn℀.example/1.jpg", ""),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_pictures_queue_by_host_whatever_a_post_calls_a_url(
    frontier: Frontier, url: str, host: str
) -> None:
    frontier.add(CRAWL, kept("at://1", url))

    assert frontier.hosts(CRAWL) == [host]
    assert [q.image for q in frontier.fresh(CRAWL, host, 0, 9)] == [PostImage(url, f"cid of {url}")]


# -- fetching -----------------------------------------------------------------------------------


def test_fresh_pictures_come_in_order_and_each_once(frontier: Frontier) -> None:
    for number in range(5):
        frontier.add(CRAWL, kept(f"at://{number}", f"https://a/{number}", f"https://b/{number}"))

    first = frontier.fresh(CRAWL, "a", 0, 3)
    rest = frontier.fresh(CRAWL, "a", first[-1].id, 3)

    assert [q.image.url for q in first + rest] == [f"https://a/{number}" for number in range(5)]
    assert frontier.hosts(CRAWL) == ["a", "b"]
    assert frontier.pending(CRAWL, 99) == 10
    assert frontier.pending(CRAWL, 7) == 7


def test_a_picture_is_tried_again_when_its_time_has_come(frontier: Frontier) -> None:
    frontier.add(CRAWL, kept("at://1", "https://a/1", "https://a/2"))
    late, soon = frontier.fresh(CRAWL, "a", 0, 9)
    frontier.settle(CRAWL, [Fate(late.id, attempts=1, due_seconds=200)])
    frontier.settle(CRAWL, [Fate(soon.id, attempts=1, due_seconds=100)])

    assert frontier.fresh(CRAWL, "a", 0, 9) == []
    assert frontier.hosts(CRAWL) == ["a"]
    assert frontier.again(CRAWL, "a", 99, 9) == []
    assert frontier.again(CRAWL, "a", 100, 9) == [soon._replace(attempts=1)]
    assert [q.id for q in frontier.again(CRAWL, "a", 200, 9)] == [soon.id, late.id]
    assert [q.id for q in frontier.again(CRAWL, "a", 200, 1)] == [soon.id]
    assert counts(frontier) == {}

    frontier.settle(CRAWL, [Fate(soon.id, attempts=2, due_seconds=300)])
    frontier.settle(CRAWL, [Fate(late.id, outcome="not_found")])
    assert frontier.again(CRAWL, "a", 300, 9) == [soon._replace(attempts=2)]
    assert counts(frontier) == {("image", "not_found"): 1}


def test_a_picture_has_one_fate(frontier: Frontier, database: Database) -> None:
    frontier.add(CRAWL, kept("at://1", *(f"https://a/{number}" for number in range(4))))
    stored, same, dropped, _ = (queued.id for queued in frontier.fresh(CRAWL, "a", 0, 9))
    fates = [
        Fate(stored, sample=sample()),
        Fate(same, sample=sample()),
        Fate(dropped, outcome="too_large"),
    ]

    assert frontier.settle(CRAWL, fates).unwanted == []
    # What was in flight when the process died comes again; so may its retry.
    assert (
        frontier.settle(CRAWL, [fates[2], Fate(dropped, attempts=1, due_seconds=1)]).unwanted == []
    )

    assert counts(frontier) == {
        ("image", "stored"): 1,
        ("image", "duplicate"): 1,
        ("image", "too_large"): 1,
    }
    assert [state for _, state in images(database)] == [1, 1, 2, 0]
    assert frontier.pending(CRAWL, 9) == 1
    assert frontier.again(CRAWL, "a", 9, 9) == []
    assert frontier.sample(b"1" * 32) == sample()
    assert frontier.sample(b"2" * 32) is None


def test_a_picture_whose_post_was_removed_meanwhile_is_unwanted(
    frontier: Frontier, database: Database
) -> None:
    frontier.add(CRAWL, kept("at://1", "https://a/1", "https://a/2"))
    one, two = frontier.fresh(CRAWL, "a", 0, 9)
    database.run("DELETE FROM image")

    fates = [
        Fate(one.id, sample=sample()),
        Fate(two.id, outcome="not_found"),
        Fate(two.id, attempts=1, due_seconds=1),
    ]
    assert frontier.settle(CRAWL, fates).unwanted == [sample().sha256]
    assert frontier.sample(sample().sha256) is None
    assert counts(frontier) == {}


def test_a_crash_while_fates_are_stored_leaves_none_of_them(
    frontier: Frontier, database: Database
) -> None:
    frontier.add(CRAWL, kept("at://1", "https://a/1", "https://a/2"))
    one, two = frontier.fresh(CRAWL, "a", 0, 9)
    before = everything(database)
    fates = [Fate(one.id, sample=sample()), Fate(two.id, outcome="not_found")]

    with pytest.raises(Crash), frontier.transaction():
        raise Crash(frontier.settle(CRAWL, fates))
    assert everything(database) == before

    with frontier.transaction():
        frontier.settle(CRAWL, fates)
    assert counts(frontier) == {("image", "stored"): 1, ("image", "not_found"): 1}


# -- what was found -----------------------------------------------------------------------------


def test_a_stored_picture_is_found_with_all_posts_that_show_it(
    frontier: Frontier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOUND_AT_ONCE", 2)
    same, other = kept("at://1", "https://a/1"), kept("at://2", "https://a/1", "https://a/2")
    frontier.add(CRAWL, same)
    frontier.add(CRAWL, other)
    frontier.add("collect-2", kept("at://3", "https://a/3"))
    for crawl, digests in ((CRAWL, b"12"), ("collect-2", b"1")):
        queued = frontier.fresh(crawl, "a", 0, 9)
        frontier.settle(
            crawl,
            [Fate(q.id, sample=sample(bytes([d]))) for q, d in zip(queued, digests, strict=True)],
        )
    for number in range(5):
        frontier.add(CRAWL, kept(f"at://many{number}", f"https://b/{number}"))
    many = frontier.fresh(CRAWL, "b", 0, 9)
    frontier.settle(CRAWL, [Fate(q.id, sample=sample(b"%d" % (3 + n))) for n, q in enumerate(many)])

    found = list(frontier.found([CRAWL, "collect-2"]))
    assert [s.sha256[:1] for s, _ in found] == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]
    assert [[p.uri for p in posts] for _, posts in found[:2]] == [
        ["at://1", "at://2", "at://3"],
        ["at://2"],
    ]
    assert found[0][1][0] == same._replace(images=())
    assert [[p.uri for p in posts] for _, posts in frontier.found(["collect-2"])] == [["at://3"]]
    assert list(frontier.found(["collect-9"])) == []


def test_the_same_post_in_two_crawls_is_found_once(frontier: Frontier) -> None:
    for crawl in (CRAWL, "collect-2"):
        frontier.add(crawl, kept("at://1", "https://a/1"))
        (queued,) = frontier.fresh(crawl, "a", 0, 9)
        frontier.settle(crawl, [Fate(queued.id, sample=sample())])

    ((_, posts),) = frontier.found([CRAWL, "collect-2"])
    assert posts == [kept("at://1", "https://a/1")._replace(images=())]


def test_a_funnel_adds_crawls_up_and_begins_with_posts_and_what_was_frequent(
    frontier: Frontier,
) -> None:
    frontier.advance(CRAWL, "", Counter(kept=1, no_emoji_in_caption=5))
    frontier.advance("collect-2", "", Counter(kept=2))
    frontier.add(CRAWL, kept())
    (queued,) = frontier.fresh(CRAWL, "x.y", 0, 1)
    frontier.settle(CRAWL, [Fate(queued.id, outcome="not_found")])

    funnel = frontier.funnel([CRAWL, "collect-2"])
    assert [(c.stage, c.outcome, c.count) for c in funnel.counts] == [
        ("post", "no_emoji_in_caption", 5),
        ("post", "kept", 3),
        ("image", "not_found", 1),
    ]


def test_quotas_are_a_mapping_that_outlives_the_process(database: Database) -> None:
    quotas = Quotas(database)
    quotas["a"] = "1"
    quotas["a"] = "2"
    quotas["b"] = "3"
    del quotas["b"]

    assert dict(Quotas(database)) == {"a": "2"}
    assert len(quotas) == 1
    with pytest.raises(KeyError):
        quotas["b"]


# -- speed --------------------------------------------------------------------------------------


def plans(database: Database, call: Callable[[], object]) -> str:
    """How SQLite goes about all that a call asks of it."""
    asked: list[str] = []
    connection = database._connection
    connection.set_trace_callback(asked.append)
    call()
    connection.set_trace_callback(None)
    steps = [row[3] for each in asked for row in database.rows(f"EXPLAIN QUERY PLAN {each}")]
    return "\n".join(steps)


def test_no_question_reads_a_whole_table(frontier: Frontier, database: Database) -> None:
    frontier.add(CRAWL, kept())
    (queued,) = frontier.fresh(CRAWL, "x.y", 0, 9)
    frontier.settle(CRAWL, [Fate(queued.id, sample=sample())])

    def work() -> None:
        frontier.add(CRAWL, kept("at://2"))
        frontier.advance(CRAWL, "c", Counter(kept=1))
        frontier.author_count(CRAWL, b"a")
        frontier.emoji_counts(CRAWL)
        frontier.posts_read(CRAWL)
        frontier.settle(CRAWL, [Fate(2, sample=sample()), Fate(2, attempts=1, due_seconds=1)])
        frontier.sample(b"1")

    assert "SCAN" not in plans(database, work)
    fetch = plans(
        database,
        lambda: (
            frontier.fresh(CRAWL, "x.y", 0, 9),
            frontier.again(CRAWL, "x.y", 0, 9),
            frontier.pending(CRAWL),
            frontier.hosts(CRAWL),
        ),
    )
    assert fetch.count("image_queued") == 4
    assert "USING INDEX image_again (crawl=? AND host=? AND due<?)" in fetch
    assert "TEMP B-TREE" not in fetch
    assert set(re.findall(r"SCAN (\S+)", fetch)) <= {"next", "(subquery-1)"}
    found = plans(database, lambda: list(frontier.found([CRAWL, "collect-2"])))
    assert "SEARCH image USING INDEX image_sha256 (sha256>?)" in found
    assert "SEARCH image USING COVERING INDEX image_sha256 (sha256=?)" in found
    assert "SCAN" not in found


def test_ten_thousand_hosts_are_listed_in_a_moment(frontier: Frontier) -> None:
    with frontier.transaction():
        for number in range(10_000):
            frontier.add(CRAWL, kept(f"at://{number}", f"https://h{number:05}/1", "https://big/1"))
    began = time.process_time()

    hosts = frontier.hosts(CRAWL)

    assert time.process_time() - began < 1
    assert hosts == ["big", *(f"h{number:05}" for number in range(10_000))]
