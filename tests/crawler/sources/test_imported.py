import csv
import io
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler.keep import author_hash, mentioned
from services.crawler.post import Event, Malformed, Page, Post
from services.crawler.sources import Plan, imported
from services.crawler.sources.imported import ImportedSource
from services.crawler.sources.rows import COLUMNS, MAX_ROW_BYTES
from services.shared import vocabulary
from services.shared.errors import BadSource

PLAN = Plan(emoji=(), wanted=lambda emoji: True)
ROWS: list[dict[str, Any]] = [
    {"image": "https://x.example/1.jpg", "text": "Best #🍕, in\ntown", "author": "anna"},
    {"image": "pictures/2 ü.jpg", "text": 'a "quoted" ☕', "time": "2015-09-05T01:59:03Z"},
    {"image": "/far/3.png", "labels": "🍝 ❤", "segment": "north", "id": "three"},
    {"image": '["a.jpg", "b.jpg"]', "labels": "pizza, slice-of-pizza", "time": "1441418343"},
    {"image": "https://x.example/5.jpg", "text": "no emoji"},
]
IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


async def pages(path: Path, cursor: str = "", **columns: str) -> list[Page]:
    source = ImportedSource(pb.ImportSource(path=str(path), columns=columns))
    return [page async for page in source.pages(cursor, PLAN)]


async def events(path: Path, cursor: str = "", **columns: str) -> list[Event]:
    return [event for page in await pages(path, cursor, **columns) for event in page.events]


async def imports(path: Path, content: bytes | str, **columns: str) -> list[Event]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return await events(path, **columns)


async def post(path: Path, **fields: object) -> Post | Malformed:
    """What becomes of a row."""
    (event,) = await imports(path / "row.jsonl", json.dumps({"image": "", "text": ""} | fields))
    assert isinstance(event, Post | Malformed)
    return event


def table(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"posts.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        wide = [{key: row.get(key) for key in COLUMNS} for row in rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(wide), path, row_group_size=3)
    else:
        file = io.StringIO()
        dialect = "excel" if kind == "csv" else "excel-tab"
        writer = csv.DictWriter(file, list(COLUMNS), dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(file.getvalue(), newline="")
    return path


KINDS = ("csv", "tsv", "jsonl", "parquet")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_table_gives_the_same_posts(tmp_path: Path, kind: str) -> None:
    one, two, three, four, five = await events(table(tmp_path, kind, ROWS))

    assert isinstance(one, Post)
    assert isinstance(two, Post)
    assert isinstance(three, Post)
    assert isinstance(four, Post)
    assert isinstance(five, Post)
    assert [one.text, one.author] == ["Best #🍕, in\ntown", "anna"]
    assert [image.url for image in two.images] == [f"{tmp_path.as_uri()}/pictures/2%20%C3%BC.jpg"]
    assert [two.text, two.time_seconds] == ['a "quoted" ☕', 1441418343.0]
    assert [image.url for image in three.images] == ["file:///far/3.png"]
    assert [three.uri, three.segment, three.labels] == ["three", "north", ["🍝", "❤️"]]
    assert len(four.images) == 2
    assert [four.labels, four.time_seconds] == [["🍕"], 1441418343.0]
    assert [five.labels, five.author, five.time_seconds] == [[], "", 0.0]
    assert len({one.uri, two.uri, four.uri, five.uri}) == 4


@pytest.mark.parametrize("kind", KINDS)
async def test_an_import_goes_on_behind_any_page(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "PAGE_ROWS", 2)
    monkeypatch.setattr("services.crawler.sources.rows.BATCH_ROWS", 2)
    rows = [row | {"id": str(n)} for n, row in enumerate(ROWS * 3)]
    path = table(tmp_path, kind, rows)

    read = await pages(path)

    assert len(read) == 8
    every = [event for page in read for event in page.events]
    assert [event.uri for event in every if isinstance(event, Post)] == [r["id"] for r in rows]
    for number, page in enumerate(read, 1):
        assert await pages(path, page.cursor) == read[number:]


async def test_the_name_of_a_post_without_an_id_depends_on_what_it_is(tmp_path: Path) -> None:
    fields = {"image": "a.jpg", "text": "🍕", "author": "anna"}
    names = [
        (await imports(tmp_path / "a.jsonl", json.dumps(fields | change)))[0]
        for change in ({}, {}, {"image": "b.jpg"}, {"text": "☕"}, {"author": "bob"})
    ]
    uris = [name.uri for name in names if isinstance(name, Post)]
    assert uris[0] == uris[1]
    assert len(set(uris)) == 4


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b"a.jpg", "1 fields, and the header 3"),
        (b"a.jpg,hi,,", "4 fields, and the header 3"),
        (b",hi,", "no image"),
        (b"a.jpg,h\0i,", "its text has a NUL character"),
        (b"a.jpg,caf\xe9 \xf0\x9f\x8d\x95,", "its text is not UTF-8, from character 3 on"),
        (b'a.jpg,"hi" there,', "no row of CSV"),
        (b'a.jpg,"never closed,', "no row of CSV: unexpected end of data"),
        (b"a.jpg,h\ri,", "no row of CSV"),
        (b"a.jpg," + b"x" * MAX_ROW_BYTES + b",", "more than 1048576 bytes"),
        (b'a.jpg,"' + (b"x" * 999 + b"\n") * 1100 + b'",', "more than 1048576 bytes"),
        (b"ftp://x.example/a.jpg,hi,", "should be an http(s) URL or a path"),
        (b"data:image/png;base64,hi,", "should be an http(s) URL or a path"),
        (b"http:///a.jpg,hi,", "is on no host"),
        (b"http://[a.jpg,hi,", "Invalid IPv6 URL"),
        (b"x" * 5000 + b",hi,", "more than 4096 characters"),
        (b"a.jpg,hi,yesterday", "its time 'yesterday' should be ISO 8601, or seconds since 1970"),
        (b"a.jpg,hi,1441418343000", "should be ISO 8601, or seconds since 1970"),
        (b"a.jpg,hi,-1", "should be ISO 8601"),
        (b"a.jpg,hi,nan", "should be ISO 8601"),
        (b"a.jpg,hi,0001-01-01T00:00:00+23:59", "should be ISO 8601"),
    ],
)
async def test_a_bad_row_of_csv_is_named_and_harms_no_other(
    tmp_path: Path, row: bytes, why: str
) -> None:
    good = b"https://x.example/1.jpg,one,\n"
    content = b"image,text,time\n" + good + row + b"\n\n" + good
    first, bad, *_, last = await imports(tmp_path / "posts.csv", content)

    assert isinstance(first, Post)
    assert isinstance(bad, Malformed)
    assert bad.where == "posts.csv line 3"
    assert why in bad.why
    assert isinstance(last, Post)
    assert first == last


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[1]", "[1] is no JSON object"),
        ("[" * 100_000, "no JSON"),
        ('{"image": 1e999, "text": ' + "9" * 5000 + "}", "no JSON"),
        ('{"image": {"url": "x"}, "text": ""}', "its image is {'url': 'x'}, and should be text"),
        ('{"image": "x", "text": true}', "its text is True, and should be text"),
        ('{"image": "x", "text": "\\ud83c"}', "its text is not UTF-8"),
        ('{"image": [], "text": "🍕"}', "no image"),
        ('{"image": "x", "labels": ["xyz", "crab"]}', "'xyz, crab' is no emoji of the inventory"),
        ('{"image": "x", "labels": [["🍕"]]}', "its labels is ['🍕'], and should be text"),
        ('{"image": "x", "text": "' + "y" * MAX_ROW_BYTES + '"}', "more than 1048576"),
    ],
)
async def test_a_bad_line_of_json_is_named_and_harms_no_other(
    tmp_path: Path, line: str, why: str
) -> None:
    good = json.dumps({"image": "a.jpg", "text": "one", "labels": "🍕"})
    first, bad, last = await imports(tmp_path / "posts.jsonl", f"{good}\n{line}\n{good}")

    assert isinstance(bad, Malformed)
    assert bad.where == "posts.jsonl line 2"
    assert why in bad.why
    assert isinstance(first, Post)
    assert first == last


async def test_bad_values_of_parquet_harm_only_their_rows(tmp_path: Path) -> None:
    broken = pyarrow.array([b"one", b"\xff", b"three"]).view(pyarrow.string())
    columns = {"image": ["a", "b", "c"], "text": broken, "labels": [["🍕"], None, ["pizza", "x"]]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")

    one, bad, three = await events(tmp_path / "a.parquet")

    assert isinstance(one, Post)
    assert isinstance(three, Post)
    assert isinstance(bad, Malformed)
    assert bad.where == "a.parquet row 2"
    assert [one.labels, three.labels] == [["🍕"], ["🍕"]]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pyarrow.timestamp("ns", "Europe/Berlin"), 1441418343_123456789),
        (pyarrow.timestamp("us"), 1441418343_123456),
        (pyarrow.timestamp("ms"), 2**62),
        (pyarrow.date64(), 1441418343_123),
        (pyarrow.date32(), 2**31 - 1),
        (pyarrow.float64(), 1441418343.123456),
        (pyarrow.float64(), float("nan")),
        (pyarrow.string(), "2015-09-05 03:59:03.123456+02:00"),
    ],
)
async def test_times_of_parquet_are_understood(tmp_path: Path, kind: Any, value: Any) -> None:
    columns = {"image": ["a"], "text": ["🍕"], "time": pyarrow.array([value], kind)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (event,) = await events(tmp_path / "a.parquet")
    if isinstance(event, Post):
        expected = 0.0 if value != value else 1441418343.123456
        assert event.time_seconds == pytest.approx(
            expected, abs=86400 if kind == pyarrow.date64() else 1e-5
        )
    else:
        assert value > 2**60 or kind == pyarrow.date32()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffimage,text\r\na.jpg,🍕\r\n",
        '\ufeff"image";"text"\n"a.jpg";"🍕"\n',
        "image\ttext\na.jpg\t🍕",
        "Image-URL,Caption\n\n a.jpg , 🍕 \n\n",
    ],
)
async def test_csv_may_come_from_any_spreadsheet(tmp_path: Path, content: str) -> None:
    (event,) = await imports(tmp_path / "posts.CSV", content)
    assert isinstance(event, Post)
    assert [event.text, *event.images] == ["🍕", ((tmp_path / "a.jpg").as_uri(), "")]


async def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path: Path) -> None:
    columns = {"image": "img", "text": "title"}
    mapped = await imports(tmp_path / "a.csv", "\ufeffimg,title\na.jpg,🍕", **columns)
    first = await imports(tmp_path / "a.jsonl", '\ufeff{"image": "a.jpg", "text": "🍕"}\n')
    assert mapped == first
    assert isinstance(first[0], Post)


@pytest.mark.parametrize(
    ("labels", "emoji"),
    [
        ("🍕", ["🍕"]),
        ("❤", ["❤️"]),
        ("👍🏽👍", ["👍"]),
        ("🍕 xyz", ["🍕"]),
        ("pizza;red heart|hot-beverage", ["🍕", "❤️", "☕"]),
        (":slice_of_pizza:", ["🍕"]),
        ("SLICE OF PIZZA, xyz", ["🍕"]),
        ('["\\ud83c\\udf55", "hot beverage"]', ["🍕", "☕"]),
        ("['🍕', 'pizza']", ["🍕"]),
        ("flag: Germany", ["🇩🇪"]),
        ("grinning face with smiling eyes", ["😄"]),
        (["🍕", "", "☕"], ["🍕", "☕"]),
        ("", []),
        (None, []),
        ([], []),
    ],
)
async def test_labels_are_read_in_any_spelling(
    tmp_path: Path, labels: object, emoji: list[str]
) -> None:
    found = await post(tmp_path, image="a.jpg", labels=labels)
    assert isinstance(found, Post)
    assert found.labels == emoji


@pytest.mark.parametrize("label", ["xyz", "1", "🦀", "love", "❤︎"])
async def test_what_is_no_emoji_or_that_of_several_is_no_label(tmp_path: Path, label: str) -> None:
    found = await post(tmp_path, image="a.jpg", labels=label)
    assert isinstance(found, Malformed)
    assert label in found.why


async def test_every_emoji_can_be_a_label_by_its_name_unless_it_shares_it(tmp_path: Path) -> None:
    rows = [json.dumps({"image": "a.jpg", "labels": e.name}) for e in vocabulary.inventory()]
    found = await imports(tmp_path / "a.jsonl", "\n".join(rows))
    named = [list(event.labels) if isinstance(event, Post) else None for event in found]
    nameless = [
        emoji.name
        for emoji, labels in zip(vocabulary.inventory(), named, strict=True)
        if labels != [emoji.text]
    ]
    assert nameless == [] or all("keycap" in name for name in nameless), nameless


async def test_labels_decide_whether_a_post_is_kept(tmp_path: Path) -> None:
    found = await post(tmp_path, image="a.jpg", labels="❤, pizza")
    assert isinstance(found, Post)
    assert [mention.emoji for mention in mentioned(found)] == ["❤️", "🍕"]


@pytest.mark.parametrize(
    ("header", "columns", "why"),
    [
        ("img_src,text", {}, "needs a column 'image', .* its columns are img_src, text"),
        ("image,title", {}, "and 'text' or 'labels' or both: its columns are image, title"),
        ("https://x.example/1.jpg,🍕", {}, "needs a column 'image'"),
        ("image,text", {"picture": "image"}, "'picture': image, text, labels, author, time, seg"),
        ("image,text", {"labels": "tags"}, "no column 'tags' for 'labels': its columns are image"),
        ("url,path,text", {}, r"several columns that may be 'image': map one of \['url', 'path'\]"),
        ("image,image,text", {}, "several columns that may be 'image'"),
        ('image,"te', {}, "no header"),
        ("\xff\xfei\0m\0", {}, "needs a column 'image'"),
        ("", {}, "empty"),
        ("image,text", {}, "empty"),
    ],
)
async def test_a_table_without_the_right_columns_is_a_bad_source(
    tmp_path: Path, header: str, columns: Mapping[str, str], why: str
) -> None:
    with pytest.raises(BadSource, match=why):
        await imports(tmp_path / "posts.csv", header, **columns)


async def test_columns_are_mapped(tmp_path: Path) -> None:
    content = "url,path,title,emoji\nhttps://x.example/p,a.jpg,hello,🍕\n"
    columns = {"id": "url", "text": "title"}
    (event,) = await imports(tmp_path / "posts.csv", content, **columns)
    assert isinstance(event, Post)
    assert [event.uri, event.text, event.labels] == ["https://x.example/p", "hello", ["🍕"]]
    assert event.images[0].url == (tmp_path / "a.jpg").as_uri()


async def test_objects_may_lack_what_others_have(tmp_path: Path) -> None:
    content = '{"url": "a.jpg", "caption": "hi"}\n{"url": "b.jpg", "emoji": "🍕"}\n'
    one, two = await imports(tmp_path / "posts.jsonl", content)
    assert isinstance(one, Post)
    assert isinstance(two, Post)
    assert [one.text, two.text, two.labels] == ["hi", "", ["🍕"]]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("posts.txt", b"image,text", "of no known kind: it should be a .csv"),
        ("posts", b"image,text", "of no known kind"),
        ("posts.jsonl", b"", "empty"),
        ("posts.jsonl", b"\n\n", "needs a column 'image'.* its columns are none"),
        ("posts.jsonl", b"{\n{\n", "its columns are none"),
        ("posts.parquet", b"", "no Parquet"),
        ("posts.parquet", b"PAR1" * 50, "no Parquet"),
    ],
)
async def test_what_is_no_table_is_a_bad_source(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    with pytest.raises(BadSource, match=why):
        await imports(tmp_path / name, content)


@pytest.mark.parametrize("name", ["nowhere.csv", "nul\0.csv", "x" * 300])
async def test_a_missing_file_is_a_bad_source(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSource, match=r"is no file or folder|cannot be read"):
        await events(tmp_path / name)


def test_no_path_is_not_the_working_directory() -> None:
    with pytest.raises(BadSource, match="`path` is empty"):
        ImportedSource(pb.ImportSource())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_table_that_has_shrunk_is_a_bad_source(tmp_path: Path, kind: str) -> None:
    (page,) = await pages(table(tmp_path, kind, ROWS))
    path = table(tmp_path, kind, ROWS[:2])
    with pytest.raises(BadSource, match="has become shorter"):
        await events(path, page.cursor)


async def test_damaged_parquet_is_a_bad_source(tmp_path: Path) -> None:
    path = table(tmp_path, "parquet", ROWS * 100)
    content = bytearray(path.read_bytes())
    content[50 : len(content) // 2] = bytes(len(content) // 2 - 50)
    with pytest.raises(BadSource, match=r"is no Parquet, or damaged|cannot be read"):
        await imports(path, bytes(content))


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


async def test_a_folders_sub_folders_are_the_labels_of_its_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "slice-of-pizza/b.JPG", "slice-of-pizza/2015/a b.webp", "❤/c.png")
    pictures(tmp_path, "d.jpg", "misc/e.gif", "pizza/notes.txt", ".trash/f.jpg", "pizza/.g.jpg")

    found = await events(tmp_path)

    posts = [(post.images[0].url, *post.labels) for post in found if isinstance(post, Post)]
    assert posts == [
        (f"{tmp_path.as_uri()}/slice-of-pizza/2015/a%20b.webp", "🍕"),
        (f"{tmp_path.as_uri()}/slice-of-pizza/b.JPG", "🍕"),
        (f"{tmp_path.as_uri()}/%E2%9D%A4/c.png", "❤️"),
    ]
    bad = [event for event in found if isinstance(event, Malformed)]
    assert [event.where for event in bad] == ["d.jpg", "misc/e.gif"]
    assert "in no sub-folder that is named by an emoji" in bad[0].why
    assert "'misc' is no emoji of the inventory" in bad[1].why


async def test_a_folder_goes_on_behind_any_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "PAGE_ROWS", 1)
    names = ["a.jpg", "pizza/a.jpg", "pizza/a/b.jpg", "pizza/a.d/b.jpg", "pizza/a0.jpg", "☕/1.jpg"]
    pictures(tmp_path, *names, "pizza/\udcff.jpg")

    read = await pages(tmp_path)

    assert len(read) == len(names) + 1
    for number, page in enumerate(read, 1):
        assert await pages(tmp_path, page.cursor) == read[number:]


async def test_a_folder_without_pictures_is_a_bad_source(tmp_path: Path) -> None:
    pictures(tmp_path, "pizza/notes.txt")
    with pytest.raises(BadSource, match="is empty"):
        await events(tmp_path)


def check(event: Event) -> None:
    """Raises if what was read cannot be kept, stored or shown."""
    if isinstance(event, Malformed):
        event.why.encode()
        event.where.encode()
        return
    assert isinstance(event, Post)
    mentioned(event)
    author_hash("import", event.author, b"key")
    for text in (event.uri, event.text, event.segment, *(image.url for image in event.images)):
        text.encode()


CSV_BITS = st.lists(
    st.sampled_from([b"\n", b'"', b",", b"\r\n", b"\0", b"a.jpg", b"\xff", b"[", "🍕".encode()])
)


@IN_A_FOLDER
@given(CSV_BITS.map(b"".join))
@example(b'"\n"\n"')
async def test_no_bytes_of_csv_break_an_import(tmp_path: Path, rows: bytes) -> None:
    path = tmp_path / "posts.csv"
    found = await imports(path, b"image,labels\na.jpg,pizza\n" + rows)
    for event in found:
        check(event)
    assert isinstance(found[0], Post)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["🍕", "\ud83c", "\0", "http://[", "file:///", "[[", "9" * 400, "1e400"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@IN_A_FOLDER
@given(st.dictionaries(st.sampled_from(sorted(COLUMNS)), JSON) | JSON)
async def test_no_json_breaks_an_import(tmp_path: Path, row: object) -> None:
    first = json.dumps(dict.fromkeys(COLUMNS, "pizza") | {"time": 1})
    good, *rest = await imports(tmp_path / "posts.jsonl", f"{first}\n{json.dumps(row)}\n")
    assert isinstance(good, Post)
    (event,) = rest
    check(event)


@IN_A_FOLDER
@given(st.binary())
async def test_no_bytes_are_json_that_breaks_an_import(tmp_path: Path, content: bytes) -> None:
    found = await imports(tmp_path / "a.jsonl", b'{"image": "a.jpg", "text": "x"}\n' + content)
    for event in found:
        check(event)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_memory_does_not_grow_with_the_table(tmp_path: Path, kind: str) -> None:
    path = table(tmp_path, kind, [ROWS[0] | {"text": "x" * 1000}] * 20_000)
    source = ImportedSource(pb.ImportSource(path=str(path)))
    tracemalloc.start()
    try:
        rows = 0
        async for page in source.pages("", PLAN):
            rows += len(page.events)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 20_000
    assert peak_bytes < 6 << 20 < path.stat().st_size


async def test_a_page_of_giant_captions_is_a_short_one(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "text": "x" * 1_000_000}] * 12
    assert [len(p.events) for p in await pages(table(tmp_path, "jsonl", rows))] == [5, 5, 2]
