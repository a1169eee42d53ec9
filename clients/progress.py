"""Long work as people and programs see it: a live view, lines, or JSON; and what it came to.

JSON is the contract's message with its field names: states in lower case (`running`), times in
ISO 8601, durations in seconds, what is not there (yet) null.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clients import options
from emojinet.v1 import crawler_service_pb2 as pb
from emojinet.v1 import state_pb2 as states
from emojinet.v1.trainer_service_pb2 import Progress, Run
from services.shared import errors
from services.shared.printable import printable
from services.shared.watching import LIVE

LINE_SECONDS = 5.0  # between lines, where nobody looks at a terminal
FATES_IN_LINE = 3
STYLES = {"running": "cyan", "paused": "yellow", "succeeded": "green", "failed": "red"}
AGES = {"d": 86_400, "h": 3_600, "min": 60}

Work = pb.Crawl | pb.Dataset | Run


def begun(
    work: Work,
    watch: Callable[[str, Callable[[str], None]], Iterator[Work]],
    again: str,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    """Shows work that was begun until it ends; detached, tells only what it is called.

    Args:
        watch: gives its states.
        again: the command that shows it again, but for its name.

    Raises as `follow`.
    """
    if not detach:
        follow(watch(work.name, options.say), f"{again} {work.name}", as_json=as_json)
    elif as_json:
        print_json(work)
    else:
        print(work.name)


def follow(changes: Iterator[Work], again: str, *, as_json: bool) -> None:
    """Shows work until it ends; Ctrl-C ends the showing alone.

    Args:
        changes: its states, of which there is at least one.
        again: the command that shows it again.

    Raises:
        EmojinetError: it failed, and why.
        typer.Exit: it was cancelled.
    """
    console = Console()
    show = _json if as_json else _live if console.is_terminal else _lines
    try:
        last = show(changes, console)
    except KeyboardInterrupt:
        options.say(f"It goes on without you. Look again with `{again}`.")
        raise
    if last.state == states.STATE_FAILED:
        raise errors.from_proto(last.error)
    if last.state == states.STATE_CANCELLED:
        options.say(f"emojinet: {last.name} was cancelled")
        raise typer.Exit(1)


def _json(changes: Iterator[Work], console: Console) -> Work:
    for now in changes:
        print_json(now)
    return now


def _lines(changes: Iterator[Work], console: Console) -> Work:
    printed, state = 0.0, states.STATE_UNSPECIFIED
    for now in changes:
        if now.state != state or time.monotonic() - printed > LINE_SECONDS:
            printed, state = time.monotonic(), now.state
            print(f"{datetime.now():%H:%M:%S} {_line(now)}", flush=True)
    return now


def _live(changes: Iterator[Work], console: Console) -> Work:
    now = next(changes)
    # Drawn by a thread of its own: times go by though nothing else changes.
    with Live(get_renderable=lambda: view(now), console=console, refresh_per_second=4):
        for now in changes:  # noqa: B007  the view looks at it
            pass
    return now


def _line(work: Work) -> str:
    """The work in a line: its state, how far it is, and what it does."""
    far = _measured(work.progress) if isinstance(work, Run) else _fates(work.funnel)
    parts = [work.name, state_name(work.state), *far, _activity(work)]
    return printable(" | ".join(part for part in parts if part))


def _fates(funnel: pb.Funnel) -> list[str]:
    """The most frequent of each stage."""
    return [
        f"{stage} {sum(count.count for count in counts):,}: "
        + ", ".join(f"{_spaced(c.outcome)} {c.count:,}" for c in counts[:FATES_IN_LINE])
        for stage, counts in _stages(funnel).items()
    ]


def _measured(progress: Progress) -> list[str]:
    """How far a run is, how well it learns, if it does, and how fast."""
    if not progress.steps:
        return []
    left = max(0.0, progress.remaining.ToNanoseconds() / 1e9)
    known = progress.HasField("remaining") and progress.step < progress.steps
    return [
        f"step {progress.step:,} of {progress.steps:,}",
        *([f"loss {progress.loss:.3f}"] if progress.loss else []),
        f"{progress.images_per_second:,.1f} images/s",
        *([f"{progress.data_wait_share:.0%} waiting for data"] if progress.loss else []),
        *([f"{_age(left)} left"] if known else []),
    ]


def view(work: Work, facts: Mapping[str, str] | None = None) -> RenderableType:
    """All that is known of the work, and `facts` about it."""
    state = state_name(work.state)
    parts: list[RenderableType] = [
        Text.assemble((printable(work.name), "bold"), "  ", (state, STYLES.get(state, ""))),
        Text(_span(work), style="dim"),
    ]
    if facts:
        table = columns("", "")
        for key, value in facts.items():
            table.add_row(Text(key, style="dim"), printable_text(value))
        parts.append(table)
    if activity := _activity(work):
        parts.append(printable_text(activity))
    if isinstance(work, Run):
        if measured := _measured(work.progress):
            bar = columns("")  # alone it would not end its line
            done = max(0, work.progress.step)
            bar.add_row(ProgressBar(total=max(1, work.progress.steps), completed=done, width=60))
            parts += [bar, Text(", ".join(measured))]
    elif work.funnel.counts:
        parts.append(_funnel(work.funnel))
    return Group(*parts)


def _activity(work: Work) -> str:
    """What it does; what it waits for or failed by, if it does."""
    return work.error.message or getattr(work, "activity", "")


def _span(work: Work) -> str:
    started = when(work.create_time)
    if work.state in LIVE or not work.HasField("end_time"):
        return f"started {started}"
    seconds = work.end_time.ToMicroseconds() / 1e6 - work.create_time.ToMicroseconds() / 1e6
    return f"started {started}, took {_age(max(0.0, seconds))}"


def _funnel(funnel: pb.Funnel) -> Table:
    table = columns("stage", "outcome", "count>", "share>", "")
    for stage, counts in _stages(funnel).items():
        total = sum(count.count for count in counts)
        for row, fate in enumerate(counts):
            table.add_row(
                "" if row else printable_text(stage),
                printable_text(_spaced(fate.outcome)),
                f"{fate.count:,}",
                f"{fate.count / max(1, total):.1%}",
                ProgressBar(total=max(1, total), completed=fate.count, width=20),
            )
    return table


def _stages(funnel: pb.Funnel) -> dict[str, list[pb.FunnelCount]]:
    return {stage: list(counts) for stage, counts in groupby(funnel.counts, lambda c: c.stage)}


def _spaced(outcome: str) -> str:
    return outcome.replace("_", " ")


def tally(funnel: pb.Funnel, stage: str, *outcomes: str) -> int:
    """How many were of these outcomes; of any if none is named."""
    return sum(
        count.count
        for count in funnel.counts
        if count.stage == stage and (not outcomes or count.outcome in outcomes)
    )


def columns(*names: str) -> Table:
    """A table without lines; a column whose name ends in `>` is one of numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(names), header_style="dim")
    for name in names:
        number = name.endswith(">")
        table.add_column(
            name.removesuffix(">"),
            justify="right" if number else "left",
            no_wrap=number or name in ("name", "state"),  # which people copy, and look for
        )
    return table


def printable_text(text: str) -> Text:
    """Text of a server, that can steer neither rich nor a terminal."""
    return Text(printable(text))


def state_name(state: states.State) -> str:
    """As people say it: `running`."""
    return _enum_name(states.State.DESCRIPTOR, state)


def when(instant: Timestamp) -> str:
    """A time as it is here, and how long ago."""
    seconds = instant.ToMicroseconds() / 1e6
    local = datetime.fromtimestamp(seconds)
    return f"{local:%Y-%m-%d %H:%M} ({_age(max(0.0, time.time() - seconds))} ago)"


def _age(seconds: float) -> str:
    """In the largest unit of which there is one.

    >>> _age(59.9), _age(60), _age(7_199), _age(200_000)
    ('59 s', '1 min', '1 h', '2 d')
    """
    unit, size = next(((u, s) for u, s in AGES.items() if seconds >= s), ("s", 1))
    return f"{int(seconds // size)} {unit}"


def print_json(message: Message) -> None:
    """One object on a line; ASCII, which is one line to every reader."""
    print(json.dumps(as_object(message)), file=sys.stdout, flush=True)


def as_object(message: Message) -> Any:
    """A message of the contract as JSON holds it."""
    match message:
        case Timestamp():
            return message.ToJsonString()
        case Duration():
            return message.ToNanoseconds() / 1e9
        case Status():
            error = errors.from_proto(message)
            reason = errors.reason_name(error)
            return {"code": error.code.name, "reason": reason, "message": str(error)}
    return {
        f"{field.name}_seconds" if _is_duration(field) else field.name: _value(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.containing_oneof or message.HasField(field.name)
    }


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [as_object(item) if field.message_type else item for item in value]
    if field.message_type:
        return as_object(value) if message.HasField(field.name) else None
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    return _enum_name(field.enum_type, value) if field.enum_type else value


def _is_duration(field: Any) -> bool:
    return bool(
        field.message_type and field.message_type.full_name == Duration.DESCRIPTOR.full_name
    )


def _enum_name(enum: Any, value: int) -> str:
    """Without the prefix that all values of an enum share; the number of one that is newer."""
    known = enum.values_by_number.get(value)
    if known is None:
        return str(value)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name.removeprefix(prefix).lower())
