"""Answers on their way out: for people a table, for programs JSON lines, CSV or Parquet.

A path can hold any byte but NUL, and a server can say anything: whatever a terminal or a file
format cannot take is escaped, never dropped and never an exception.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple, TextIO

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from clients.options import needs
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from services.shared.printable import printable

BAR_CELLS = 20
COLUMNS = ("path", "model", "rank", "emoji", "name", "probability", "code", "reason", "message")


class Format(StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class Answer(NamedTuple):
    """What became of one picture."""

    path: str
    response: pb.SuggestResponse  # with one result

    @property
    def result(self) -> pb.SuggestResult:
        return self.response.results[0]

    @property
    def failed(self) -> bool:
        return self.result.HasField("error")

    @property
    def reason(self) -> str:
        """Name of the `ErrorReason`."""
        unnamed = reasons.ErrorReason.Name(reasons.ERROR_REASON_UNSPECIFIED)
        return errors.info(self.result.error.details).reason or unnamed

    @property
    def model(self) -> str:
        """As a request can ask for it: `name@version`."""
        return f"{self.response.model.name}@{self.response.model.version}"


def as_object(answer: Answer) -> dict[str, Any]:
    """The answer as in a line of JSON."""
    if answer.failed:
        return {"path": answer.path, "error": _error(answer)}
    return {
        "path": answer.path,
        "model": answer.model,
        "suggestions": suggestions(answer.result.suggestions),
        "timing": timing(answer.result.timing),
    }


def as_rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """The answer as flat rows of `COLUMNS`, one for each suggestion; one where there is none."""
    if answer.failed:
        yield {"path": answer.path, **_error(answer)}
        return
    common = {"path": answer.path, "model": answer.model}
    for rank, suggestion in enumerate(suggestions(answer.result.suggestions), start=1):
        yield {**common, "rank": rank, **suggestion}
    if not answer.result.suggestions.suggestions:
        yield common


def write_table(answers: Iterable[Answer], console: Console) -> None:
    """For people: under each path its emoji, most likely first, as they come."""
    for answer in answers:
        console.print(_block(answer, "=" if console.options.ascii_only else "━"), soft_wrap=True)


def write_json(answers: Iterable[Answer], out: TextIO) -> None:
    """One object a line. In ASCII where a reader might see anything else as the end of the line."""
    for answer in answers:
        line = json.dumps(as_object(answer), ensure_ascii=False)
        if not line.isprintable() or out.encoding.lower() != "utf-8":
            line = json.dumps(as_object(answer))
        print(line, file=out, flush=True)


def write_csv(answers: Iterable[Answer], out: TextIO) -> None:
    """A header and `as_rows`."""
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for answer in answers:
        writer.writerows(as_rows(answer))


def write_parquet(answers: Iterable[Answer], out: BinaryIO) -> None:
    """`as_rows`, written at the end."""
    with needs("report"):
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

    kinds = {"rank": pyarrow.int32(), "probability": pyarrow.float32()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    rows = [{**row, "path": _utf8(row["path"])} for answer in answers for row in as_rows(answer)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), out)


def _error(answer: Answer) -> dict[str, str]:
    status = answer.result.error
    known = status.code in code_pb2.Code.values()
    return {
        "code": code_pb2.Code.Name(status.code if known else code_pb2.UNKNOWN),
        "reason": answer.reason,
        "message": status.message,
    }


def suggestions(found: pb.Suggestions) -> list[dict[str, Any]]:
    """The emoji, most likely first, as in JSON."""
    return [
        {"emoji": s.emoji, "name": s.name, "probability": round(s.probability, 6)}
        for s in found.suggestions
    ]


def timing(spent: pb.Timing) -> dict[str, float]:
    """The phases in seconds, by the contract's names, and the batch size; as in JSON."""
    fields = ((name, getattr(spent, name)) for name in spent.DESCRIPTOR.fields_by_name)
    return {
        f"{name}_seconds" if isinstance(value, Duration) else name: _seconds(value)
        for name, value in fields
    }


def _seconds(value: Duration | int) -> float:
    return value.ToNanoseconds() / 1e9 if isinstance(value, Duration) else value


def _block(answer: Answer, bar: str) -> Text:
    block = Text.assemble((printable(answer.path), "bold"))
    if answer.failed:
        error = _error(answer)
        block.append(f"\n  {error['code']}", style="red")
        return block.append(f"  {printable(error['message'])}")
    spent = answer.result.timing
    waited = _seconds(spent.decode_wait) + _seconds(spent.queue_wait)
    total = _seconds(spent.total)
    block.append(f"  {total * 1e3:.0f} ms, of which waited {waited * 1e3:.1f} ms", style="dim")
    for suggestion in answer.result.suggestions.suggestions:
        share = min(1.0, max(0.0, suggestion.probability))
        block.append("\n  " + set_cell_size(printable(suggestion.emoji), 3))
        block.append(f"{share:6.1%}  ")
        block.append(f"{bar * round(share * BAR_CELLS):{BAR_CELLS}}", style="cyan")
        block.append(f"  {printable(suggestion.name)}")
    return block


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
