"""The atlas for programs: JSON with everything but pictures; CSV and Parquet of its tables."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from services.shared import shards
from services.shared.shards import Output, writable
from services.trainer.atlas.told import Atlas, OfEmoji
from services.trainer.bootstrap import Interval

FORMAT = 1
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute

TEXT, COUNT, NUMBER, YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()
# The same whatever was found, so that programs can rely on them.
COLUMNS = {
    "emoji": pa.schema(
        {
            "emoji": TEXT,
            "name": TEXT,
            "group": TEXT,
            "pictures": COUNT,
            "posts": COUNT,
            "authors": COUNT,
            "judged": YES,
            "score": NUMBER,
            "flagged": YES,
            "social": NUMBER,
            "social_low": NUMBER,
            "social_high": NUMBER,
            "by": TEXT,
            "p_value": NUMBER,
            "q_value": NUMBER,
            "authors_agreeing": COUNT,
            "literal": NUMBER,
            "explained_by": TEXT,
            "drifted": YES,
            "drift_date": TEXT,
            "drift_p_value": NUMBER,
            "drift_q_value": NUMBER,
            "precision": NUMBER,
            "precision_low": NUMBER,
            "precision_high": NUMBER,
            "precision_pictures": COUNT,
            "map_x": NUMBER,
            "map_y": NUMBER,
        }
    ),
    "signs": pa.schema(
        {
            "emoji": TEXT,
            "sign": TEXT,
            "kind": TEXT,
            "posts": COUNT,
            "authors": COUNT,
            "log_odds": NUMBER,
            "log_odds_low": NUMBER,
            "log_odds_high": NUMBER,
        }
    ),
    "drift": pa.schema(
        {
            "emoji": TEXT,
            "date": TEXT,
            "sign": TEXT,
            "before": NUMBER,
            "after": NUMBER,
            "p_value": NUMBER,
        }
    ),
    "together": pa.schema(
        {
            "one": TEXT,
            "other": TEXT,
            "authors": COUNT,
            "lift": NUMBER,
        }
    ),
    "compare": pa.schema(
        {
            "emoji": TEXT,
            "sign": TEXT,
            "segment": TEXT,
            "beside": TEXT,
            "authors": COUNT,
            "authors_beside": COUNT,
            "share": NUMBER,
            "share_beside": NUMBER,
            "lift": NUMBER,
            "lift_low": NUMBER,
            "lift_high": NUMBER,
        }
    ),
}


def day(seconds: float) -> str | None:
    """A date, or none."""
    if not math.isfinite(seconds):
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def number(value: float) -> float | None:
    """To six digits; none where there is none."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def interval(name: str, found: Interval) -> dict[str, float | None]:
    """As three columns."""
    ends = ("", found.value), ("_low", found.low), ("_high", found.high)
    return {name + end: number(value) for end, value in ends}


def write(folder: Path, atlas: Atlas) -> None:
    """Writes all files. Raises StorageFailed."""
    tables = {
        "emoji": [_row(one) for one in atlas.emoji],
        "signs": list(_signs(atlas)),
        "drift": list(_changes(atlas)),
        "together": list(_edges(atlas)),
    }
    if atlas.comparison:
        tables["compare"] = list(_lines(atlas))
    facts = {
        "format": FORMAT,
        "name": atlas.name,
        "kind": atlas.kind,
        "digest": atlas.digest,
        "model": atlas.model,
        "pictures": atlas.pictures,
        "posts": atlas.posts,
        "authors": atlas.authors,
        "removed": atlas.removed,
        "unreadable": atlas.unreadable,
        "limits": list(atlas.limits),
        "saliency_agreement": number(atlas.sanity),
    }
    content = json.dumps(facts | tables, ensure_ascii=False, indent=1) + "\n"
    shards.replace(folder / "atlas.json", content.encode("utf-8", "replace"))
    for name, rows in tables.items():
        shards.replace(
            folder / f"{name}.csv", _csv(COLUMNS[name].names, rows).encode("utf-8", "replace")
        )
        path = folder / f"{name}.parquet"
        with writable(path), Output(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, COLUMNS[name]), file, compression="zstd")


def _row(one: OfEmoji) -> dict[str, Any]:
    found, drift = one.meaning, one.drift
    return {
        "emoji": one.emoji,
        "name": one.name,
        "group": one.group,
        "pictures": one.pictures,
        "posts": found.posts,
        "authors": found.authors,
        "judged": found.judged,
        "score": number(found.score),
        "flagged": found.flagged,
        **interval("social", found.social),
        "by": found.by,
        "p_value": number(found.p_value),
        "q_value": number(found.q_value),
        "authors_agreeing": found.agreeing,
        "literal": number(found.literal),
        "explained_by": " ".join(sign.name.replace(" ", "_") for sign in found.signs),
        "drifted": drift.drifted,
        "drift_date": day(drift.seconds) if drift.drifted else None,
        "drift_p_value": number(drift.p_value),
        "drift_q_value": number(drift.q_value),
        **interval("precision", one.chosen.precision),
        "precision_pictures": one.chosen.among,
        "map_x": number(one.place[0]),
        "map_y": number(one.place[1]),
    }


def _signs(atlas: Atlas) -> Any:
    for one in atlas.emoji:
        for sign in one.meaning.signs:
            yield {
                "emoji": one.emoji,
                "sign": sign.name,
                "kind": sign.kind,
                "posts": sign.posts,
                "authors": sign.authors,
                **interval("log_odds", sign.log_odds),
            }


def _changes(atlas: Atlas) -> Any:
    for one in atlas.emoji:
        for change in one.drift.changes if one.drift.drifted else ():
            yield {
                "emoji": one.emoji,
                "date": day(one.drift.seconds),
                "sign": change.name,
                "before": number(change.before),
                "after": number(change.after),
                "p_value": number(one.drift.p_value),
            }


def _edges(atlas: Atlas) -> Any:
    texts = {one.index: one.emoji for one in atlas.emoji}
    for edge in atlas.edges:
        yield {
            "one": texts[edge.one],
            "other": texts[edge.other],
            "authors": edge.authors,
            "lift": number(edge.lift),
        }


def _lines(atlas: Atlas) -> Any:
    assert atlas.comparison
    texts = {one.index: one.emoji for one in atlas.emoji}
    one, other = atlas.comparison.segments
    for line in atlas.comparison.lines:
        yield {
            "emoji": texts.get(line.emoji, ""),
            "sign": line.term,
            "segment": one,
            "beside": other,
            "authors": line.authors[0],
            "authors_beside": line.authors[1],
            "share": number(line.shares[0]),
            "share_beside": number(line.shares[1]),
            **interval("lift", line.lift),
        }


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """With a header; nothing that a spreadsheet would take for a formula."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
