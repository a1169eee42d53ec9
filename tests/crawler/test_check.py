import ipaddress
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import check as checking
from services.crawler.check import Report, check
from services.crawler.post import Event, Malformed, OptOut, Post, Removal
from services.crawler.recording import Recorder, Redactor, Seen, replay
from services.crawler.sources import Plan, frames
from services.crawler.sources.bluesky import BlueskySource
from services.crawler.sources.instagram import InstagramSource
from services.crawler.web import Web
from services.shared import vocabulary
from tests.standin.standin import Standin
from tests.standin.world import World

pytestmark = pytest.mark.system

RECORDINGS = Path(__file__).parent / "recordings"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
PLAN = Plan(emoji=[], wanted=lambda _: True)
ALL = Plan(emoji=[emoji.text for emoji in vocabulary.inventory()], wanted=lambda _: True)
FRAME: dict[str, Any] = {
    "did": "did:plc:6aw7u7xjbaiznddugigmdhvc",
    "time_us": 1783175888373482,
    "kind": "commit",
    "commit": {
        "rev": "3mptbyplwma2l",
        "operation": "create",
        "collection": "app.bsky.feed.post",
        "rkey": "3mptbxs3hq22j",
        "cid": "bafyreib5wrlfg3fjbf4tzllvotvke6cnk6pasjt6eshnert5p6x2fjf7za",
        "record": {
            "$type": "app.bsky.feed.post",
            "createdAt": "2026-07-04T14:37:36.557Z",
            "text": "Dinner with Anna #pizza🍕 https://anna.example/x",
            "embed": {
                "$type": "app.bsky.embed.images",
                "images": [{"alt": "Anna", "image": {"ref": {"$link": "bafkrei" + "a" * 52}}}],
            },
        },
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def bent(draw: st.DrawFn) -> Any:
    """A frame with one value replaced by another, somewhere."""
    frame = deepcopy(FRAME)
    node: Any = frame
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or draw(st.integers(0, 4)) == 0:
            node[key] = draw(JSON)
            return frame
        node = node[key]


async def test_a_check_finds_the_stand_in_as_expected_but_for_its_old_times(
    tmp_path: Path,
) -> None:
    async with _standin() as standin:
        report = await check(
            "bluesky", _bluesky(standin), 6, tmp_path / "recording.jsonl", allow=LOOPBACK
        )

    verdicts = {name: a.verdict for name, a in report.assumptions.items()}
    assert [name for name, verdict in verdicts.items() if verdict == "broken"] == [
        "events are recent"
    ]
    assert [name for name, verdict in verdicts.items() if verdict == "not seen"] == [
        "replies announce a limit"
    ]
    assert report.assumptions["pictures are where they should be"].held > 0
    assert not report.passed
    assert "minutes late" in "\n".join(report.lines())


async def test_a_check_of_a_request_source_sees_its_limits(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("anna-secret-token")
    recording = tmp_path / "recording.jsonl"
    async with _standin() as standin:
        spec = pb.InstagramSource(base_url=f"{standin.base_url}/v1", token_file=str(token))
        report = await check(
            "instagram-v1", lambda web: InstagramSource(spec, web), 30, recording, allow=LOOPBACK
        )

        events = await replay(recording, lambda web: InstagramSource(spec, web), ALL)

    assert _counted(events)["Post"] == report.counts["events: Post"]
    assert report.assumptions["replies announce a limit"].verdict == "held"
    assert "anna" not in recording.read_text().lower()
    assert "x-ratelimit-remaining" in recording.read_text()


async def test_a_source_that_gives_up_is_in_the_report() -> None:
    async with _standin() as standin:
        make = _bluesky(standin, path="/xrpc/nothing-here")
        report = await check("bluesky", make, 3, allow=LOOPBACK)

    assert "404" in report.failure
    assert "it gave up" in report.lines()[1]


async def test_a_recording_replays_as_it_was_but_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    async with _standin() as standin:
        report = await check("bluesky", _bluesky(standin), 3, path, allow=LOOPBACK)
        truth = list(standin.truth())
        handles = {post.author.handle for post in truth}
        dids = {post.author.did for post in truth}

        events = await replay(path, _bluesky(standin), PLAN)
    content = path.read_text()

    assert _counted(events) == {
        kind: n
        for kind in ("Post", "Removal", "OptOut", "Malformed")
        if (n := report.counts[f"events: {kind}"])
    }
    posts = [event for event in events if isinstance(event, Post)]
    assert sum(bool(post.images) for post in posts) == report.counts["posts with pictures"]
    assert sum(map(bool, map(_emoji, posts))) == report.counts["posts with emoji"]
    assert not any(name in content for name in handles | dids)


async def test_a_recording_of_lookups_replays_them(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    async with _standin() as standin:
        await check("bluesky", _bluesky(standin, originals=True), 3, path, allow=LOOPBACK)

        events = await replay(path, _bluesky(standin, originals=True), PLAN)

    assert any("getBlob" in i.url for e in events if isinstance(e, Post) for i in e.images)
    assert not any(isinstance(event, Malformed) for event in events)


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("bluesky*.jsonl")), ids=lambda p: p.stem)
async def test_what_was_recorded_is_understood(path: Path) -> None:
    spec = pb.BlueskySource(jetstream_url="wss://host/subscribe")

    events = await replay(path, lambda web: BlueskySource(spec, web), PLAN)

    kinds = _counted(events)
    assert kinds["Post"] > 10
    assert any(isinstance(event, Removal | OptOut) for event in events)
    assert "Malformed" not in kinds


@settings(max_examples=300)
@given(bent(), st.text("QZJVWK", min_size=6, max_size=12))
def test_a_recording_holds_nothing_that_names_anybody(frame: Any, name: str) -> None:
    commit = frame["commit"]
    record = commit.get("record") if isinstance(commit, dict) else frame
    if isinstance(record, dict):
        record |= {
            "text": f"{name} 🍕",
            "tags": [name],
            name: {name: [name, f"@{name}.bsky.social"]},
        }
        record["facets"] = f"https://{name}.example/{name}?access_token={name}&did=did:web:{name}.x"

    kept = json.dumps(Redactor().value(frame), ensure_ascii=False)

    assert name not in kept
    for secret in ("6aw7u7xjbaizndd", "3mptbyplwma2l", "3mptbxs3hq22j", "5wrlfg3", "a" * 52):
        assert secret not in kept
    assert "Anna" not in kept
    assert "access_token" not in kept
    assert "17831758" not in kept
    assert "2026-07-04" not in kept


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_redacted_text_keeps_its_length_and_its_emoji(text: str) -> None:
    kept = Redactor().text(text)

    assert len(kept) == len(text)
    assert set(vocabulary.find(text)) <= set(vocabulary.find(kept))
    assert not re.search(r"[a-wyz]", kept)


def test_a_text_that_is_a_word_of_the_protocol_is_a_text() -> None:
    assert Redactor().value({"text": "bot", "val": "bot"}) == {"text": "xxx", "val": "bot"}


def test_words_hidden_in_tags_of_a_flag_are_text() -> None:
    hidden = "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "anna") + chr(0xE007F)

    assert Redactor().text(hidden) == "x" * len(hidden)


def test_the_same_names_become_the_same_and_times_keep_their_distance() -> None:
    redactor = Redactor()
    first, second = (redactor.value(FRAME | {"time_us": FRAME["time_us"] + n}) for n in (0, 5))

    assert first["did"] == second["did"] != FRAME["did"]
    assert second["time_us"] - first["time_us"] == 5
    assert frames.parse(json.dumps(first))


def test_two_recordings_have_other_names() -> None:
    assert Redactor().value(FRAME)["did"] != Redactor().value(FRAME)["did"]


def test_what_is_no_json_is_recorded_by_its_length_only(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.jsonl")
    recorder.show(Seen("https://x.y/p.jpg", 200, {"Set-Cookie": "anna=1"}, b"\xff\xd8anna"))
    recorder.show(Seen("wss://x.y", 0, {}, b"anna"))
    recorder.close()

    assert "anna" not in (tmp_path / "r.jsonl").read_text()


@settings(max_examples=300)
@given(bent() | JSON)
def test_a_check_survives_any_frame(frame: Any) -> None:
    report = Report("bluesky")

    checking._see_frame(Seen("wss://x.y", 0, {}, json.dumps(frame).encode()), report)

    assert report.counts["frames"] == 1
    report.lines()


def _standin() -> Standin:
    return Standin(World(seed=5, posts=80, edge_px=64), hosts=2)


def _bluesky(standin: Standin, *, path: str = "", originals: bool = False) -> Any:
    spec = pb.BlueskySource(
        jetstream_url=standin.base_url.replace("http", "ws", 1) + path,
        cdn_url=standin.base_url,
        directory_url=standin.base_url,
        originals=originals,
        cursor="1",
    )

    def make(web: Web) -> BlueskySource:
        return BlueskySource(spec, web)

    return make


def _counted(events: list[Event]) -> dict[str, int]:
    kinds = [type(event).__name__ for event in events]
    return {kind: kinds.count(kind) for kind in kinds}


def _emoji(post: Post) -> list[str]:
    found = vocabulary.find(post.text)
    return found + [
        e for tag in vocabulary.hashtags(post.text) for e in vocabulary.find(tag, hashtag=True)
    ]
