"""The atlas for people: one page that fetches nothing, and runs nothing but its own script.

What it shows was written by others. Their text is escaped by jinja2, or is data that the script
puts into the page as text; pictures are encoded anew; the page's policy names the one script by
its digest, and forbids all else. Pictures lie in blocks of data that are read when they are shown.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from services.shared import shards
from services.trainer.atlas import tables
from services.trainer.atlas.told import Atlas, OfEmoji
from services.trainer.bootstrap import Interval

NAME = "atlas.html"
BLOCK = 64  # pictures that are read at once
TEXT = 80  # characters of what others wrote
CARDS, DRIFTS, LINES = 24, 24, 60
MAP_WIDTH, MAP_HEIGHT, RING = 1000, 640, 300
ON_RING = 84  # emoji in the picture of what is posted together


def write(folder: Path, atlas: Atlas) -> Path:
    """Writes the page, whole or not at all; returns its path. Raises StorageFailed."""
    path = folder / NAME
    shards.replace(path, page(atlas).encode("utf-8", "replace"))
    return path


def page(atlas: Atlas) -> str:
    """The page as HTML."""
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": text, "share": share, "month": _month, "lift": _lift}
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    place = {picture: number for number, picture in enumerate(atlas.thumbnails)}
    flagged = sorted(
        (one for one in atlas.emoji if one.meaning.flagged),
        key=lambda one: (-one.meaning.score, one.index),
    )
    drifted = sorted(
        (one for one in atlas.emoji if one.drift.drifted),
        key=lambda one: (one.drift.q_value, one.index),
    )
    return environment.get_template(f"{NAME}.j2").render(
        atlas=atlas,
        script=Markup(script),
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        script_digest=digest,
        cards=flagged[:CARDS],
        flagged=len(flagged),
        judged=sum(one.meaning.judged for one in atlas.emoji),
        drifted=drifted[:DRIFTS],
        spots=_spots(atlas),
        ring=_ring(atlas),
        lines=_lines(atlas),
        texts={one.index: one.emoji for one in atlas.emoji},
        everyone=[_entry(one, atlas, place) for one in atlas.emoji],
        blocks=_blocks(atlas, place),
        known=math.isfinite(atlas.sanity),
    )


def text(value: object) -> str:
    """What somebody else wrote, on one line and not for ever.

    >>> text("two\\nlines\\u202e")
    'two lines '
    """
    line = "".join(c if c.isprintable() else " " for c in str(value)[: TEXT + 1])
    return line if len(line) <= TEXT else line[:TEXT] + "…"


def share(value: float) -> str:
    """As a percentage, never below nothing.

    >>> share(0.123), share(0.004), share(-0.1)
    ('12 %', '0.4 %', '0 %')
    """
    percent = max(0.0, value) * 100
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def _month(seconds: float) -> str:
    return (tables.day(seconds) or "")[:7]


def _lift(found: Interval) -> str:
    return f"{found.value:.3g} ({found.low:.2g} to {found.high:.3g})"


# -- drawings -------------------------------------------------------------------------------------


def _spots(atlas: Atlas) -> list[dict[str, Any]]:
    """Every emoji on the map, moved apart a little where two would lie on each other."""
    size = max(15, min(34, round(620 / math.sqrt(max(1, len(atlas.emoji))))))
    taken: set[tuple[int, int]] = set()
    spots = []
    for one in sorted(atlas.emoji, key=lambda one: (-one.meaning.score, one.index)):
        x = 30 + one.place[0] * (MAP_WIDTH - 60)
        y = 30 + one.place[1] * (MAP_HEIGHT - 60)
        column, row = _free(taken, int(x / size), int(y / size), size)
        spots.append(
            {
                "one": one,
                "x": round((column + 0.5) * size, 1),
                "y": round((row + 0.5) * size, 1),
                "size": round(size * 0.74, 1),
                "halo": round(size * (0.5 + min(0.9, 2 * max(0.0, one.meaning.score))), 1),
            }
        )
    return spots


def _free(taken: set[tuple[int, int]], column: int, row: int, size: int) -> tuple[int, int]:
    """The nearest cell that is free and within the map."""
    columns, rows = MAP_WIDTH // size, MAP_HEIGHT // size
    for reach in range(max(columns, rows)):
        near = [
            (column + dx, row + dy)
            for dx in range(-reach, reach + 1)
            for dy in range(-reach, reach + 1)
            if max(abs(dx), abs(dy)) == reach
            and 0 <= column + dx < columns
            and 0 <= row + dy < rows
            and (column + dx, row + dy) not in taken
        ]
        if near:
            best = min(near, key=lambda c: ((c[0] - column) ** 2 + (c[1] - row) ** 2, c))
            taken.add(best)
            return best
    return column, row


def _ring(atlas: Atlas) -> dict[str, Any]:
    """Emoji on a circle in the order of Unicode, with a curve between those posted together."""
    known = {one.index: one for one in atlas.emoji}
    chosen: dict[int, None] = {}
    edges = []
    for edge in atlas.edges:
        new = {edge.one, edge.other} - chosen.keys()
        if len(chosen) + len(new) <= ON_RING and known.keys() >= {edge.one, edge.other}:
            chosen |= dict.fromkeys(sorted(new))
            edges.append(edge)
    order = sorted(chosen, key=lambda e: (known[e].group, e))
    angle = {e: 2 * math.pi * n / max(1, len(order)) for n, e in enumerate(order)}
    most = max((math.log(edge.lift) for edge in edges), default=1.0) or 1.0

    def at(e: int, radius: float) -> tuple[float, float]:
        return (
            round(math.sin(angle[e]) * radius, 1),
            round(-math.cos(angle[e]) * radius, 1),
        )

    return {
        "nodes": [(known[e], *at(e, RING + 18)) for e in order],
        "edges": [
            {
                "from": at(edge.one, RING),
                "to": at(edge.other, RING),
                "opacity": round(0.12 + 0.68 * math.log(edge.lift) / most, 2),
                "title": f"{known[edge.one].emoji} {known[edge.other].emoji}: {edge.authors:,} "
                f"authors, {edge.lift:.3g} times as often as by chance",
            }
            for edge in edges
        ],
    }


def _lines(atlas: Atlas) -> Sequence[Any]:
    """Of a comparison, the surest differences: emoji, then what goes with them."""
    if atlas.comparison is None:
        return []
    known = {one.index for one in atlas.emoji}
    lines = [
        line
        for line in atlas.comparison.lines
        if line.emoji in known and (line.lift.low > 1 or line.lift.high < 1)
    ]
    emoji = [line for line in lines if not line.term]
    return emoji[:LINES] + [line for line in lines if line.term][:LINES]


# -- data for the script --------------------------------------------------------------------------


def _blocks(atlas: Atlas, place: Mapping[int, int]) -> list[str]:
    """Pictures as JSON of [WebP in base64, link, emoji], some at a time."""
    rows = [
        [content, atlas.links.get(picture, ""), atlas.captions[picture]]
        for picture, content in atlas.thumbnails.items()
    ]
    return [_data(rows[first : first + BLOCK]) for first in range(0, len(rows), BLOCK)]


def _data(value: object) -> str:
    """JSON that no HTML parser takes for anything else."""
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        said = said.replace(character, f"\\u{ord(character):04x}")
    return Markup(said)


def _entry(one: OfEmoji, atlas: Atlas, place: Mapping[int, int]) -> dict[str, Any]:
    """What a list shows of an emoji, and `data` for its own page."""

    def there(pictures: Sequence[int]) -> list[int]:
        return [place[picture] for picture in pictures if picture in place]

    found, chosen = one.meaning, one.chosen
    texts = {other.index: other.emoji for other in atlas.emoji}
    explained = one.explained if one.explained and one.explained.picture in place else None
    data = {
        "emoji": one.emoji,
        "name": one.name,
        "group": one.group,
        "pictures": one.pictures,
        "posts": found.posts,
        "authors": found.authors,
        "judged": found.judged,
        "flagged": found.flagged,
        "by": found.by,
        "agreeing": found.agreeing,
        "literal": tables.number(found.literal),
        "social": [tables.number(value) for value in found.social],
        "q": tables.number(found.q_value),
        "signs": [
            [
                text(s.name),
                s.kind,
                s.posts,
                s.authors,
                *(tables.number(value) for value in s.log_odds),
            ]
            for s in found.signs
        ],
        "precision": [tables.number(value) for value in chosen.precision],
        "among": chosen.among,
        "strips": {
            "gallery": there(chosen.gallery),
            "lifted": there(chosen.lifted),
            "chance": there(chosen.chance),
            "wrong": there(chosen.wrong),
        },
        "saliency": explained
        and [
            place[explained.picture],
            explained.width,
            "".join(map(str, explained.cells)),
            tables.number(explained.agreement),
        ],
        "subs": [
            [tables.number(sub.share), sub.looks, [text(t) for t in sub.terms], there(sub.pictures)]
            for sub in one.sub_meanings
        ],
        "near": [n for n in one.neighbours if n in texts],
        "together": [
            [edge.other if edge.one == one.index else edge.one, edge.authors, round(edge.lift, 2)]
            for edge in one.together
        ],
        "drift": _drift(one),
    }
    return {"one": one, "data": _data(data)}


def _drift(one: OfEmoji) -> dict[str, Any]:
    drift = one.drift
    return {
        "posts": drift.posts,
        "p": tables.number(drift.p_value),
        "date": tables.day(drift.seconds) if drift.drifted else None,
        "changes": [
            [text(change.name), tables.number(change.before), tables.number(change.after)]
            for change in (drift.changes if drift.drifted else ())
        ],
    }
