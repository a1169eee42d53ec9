"""Pictures that were found, on their way out: a table for people, CSV or JSON for programs."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, TextIO

from services.shared import vocabulary
from services.shared.printable import printable
from services.trainer.find import Found

COLUMNS = ("rank", "emoji", "name", "probability", "path")


def _rows(emoji: str, found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    for rank, each in enumerate(found, start=1):
        yield {
            "rank": rank,
            "emoji": emoji,
            "name": vocabulary.name(emoji),
            "probability": round(each.probability, 6),
            # A name of bytes that are no text is written with escapes.
            "path": each.path.encode(errors="backslashreplace").decode(),
        }


def _table(emoji: str, found: Sequence[Found], out: TextIO) -> None:
    for each in found:
        print(f"{each.probability:7.1%}  {printable(each.path)}", file=out)


def _csv(emoji: str, found: Sequence[Found], out: TextIO) -> None:
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(emoji, found))


def _json(emoji: str, found: Sequence[Found], out: TextIO) -> None:
    for row in _rows(emoji, found):
        print(json.dumps(row), file=out)


class Form(StrEnum):
    """How to write."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"

    def write(self, emoji: str, found: Sequence[Found], out: TextIO) -> None:
        """Writes the pictures in their order."""
        _WRITERS[self](emoji, found, out)


_WRITERS: dict[Form, Callable[[str, Sequence[Found], TextIO], None]] = {
    Form.TABLE: _table,
    Form.CSV: _csv,
    Form.JSON: _json,
}
