"""`emojinet suggest`: emoji for pictures, be it one or a folder full."""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from clients import answers, options, pictures
from clients.answers import Answer, Format
from clients.client import DEFAULT_SERVER, Client
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from services.shared.errors import EmojinetError, ServerUnreachable

Suggest = Callable[[bytes], pb.SuggestResponse]
IN_FLIGHT = 8  # pictures being read, sent and waited for at a time
DEFAULT_TIMEOUT_SECONDS = 10.0
LONGEST_SLEEP_SECONDS = 0.5


def suggest(
    named: Annotated[
        list[str], typer.Argument(metavar="FILE|FOLDER|URL|-", help="Pictures; - is stdin.")
    ],
    top: Annotated[int, typer.Option(min=1, max=100, help="Suggestions for each picture.")] = 5,
    min_probability: Annotated[
        float,
        typer.Option(min=0, max=1, callback=options.finite, help="Leave out what is less likely."),
    ] = 0.0,
    server: options.Server = DEFAULT_SERVER,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, max=3600, callback=options.finite, help="Seconds for each picture."
        ),
    ] = DEFAULT_TIMEOUT_SECONDS,
    local: Annotated[bool, typer.Option("--local", help="Compute here, without a server.")] = False,
    registry: options.Registry = None,
    form: Annotated[Format, typer.Option("--format", help="How to write.")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where to write, instead of stdout.")] = None,
) -> None:
    """Suggest emoji for pictures, in the order in which they are named.

    A folder stands for all files below it, except hidden ones, whatever their names end in. JSON
    is one object a line and picture; CSV and Parquet are one row a suggestion. Exit status: 0 if
    every picture was answered, 1 if one was not, 2 for wrong use.
    """
    names = list(pictures.named(named))
    if not names:
        raise typer.TyperException(f"no picture: there is no file in {', '.join(named)}")
    form = Format.JSON if json else form
    where = (
        _offline(options.registry_or_default(registry), top, min_probability)
        if local
        else _online(server, timeout, top, min_probability)
    )
    with ExitStack() as stack:
        people = Console(stderr=True)
        write = stack.enter_context(_writer(form, output, people))
        ask = stack.enter_context(where)
        look = Look(ask, timeout)
        in_flight = 1 if local else IN_FLIGHT  # one forward pass has all cores already
        tally = Tally(stack.enter_context(closing(_answers(names, look, in_flight))))
        # People need not read of every picture that there is no server; programs want every path.
        wanted = takewhile(_reachable, tally) if form is Format.TABLE else tally
        # A bar and the lines of programs would be written over each other on one terminal.
        apart = form is Format.TABLE or output is not None or not sys.stdout.isatty()
        write(_watched(wanted, len(names), people) if apart else wanted)
    if look.unreachable:
        options.say(f"emojinet: {look.unreachable}")
    raise typer.Exit(1 if tally.failed else 0)


class Look:
    """Looks at one picture after the other; what is wrong with one is its answer."""

    def __init__(self, ask: Suggest, timeout_seconds: float) -> None:
        self._ask = ask
        self._timeout_seconds = timeout_seconds
        self.unreachable: ServerUnreachable | None = None

    def __call__(self, name: str) -> pb.SuggestResponse:
        try:
            content = pictures.read(name, timeout_seconds=self._timeout_seconds)
            if self.unreachable:  # for one picture, so for all
                raise self.unreachable
            response = self._ask(content)
            if len(response.results) != 1:
                raise errors.Internal(f"The server sent {len(response.results)} results for one.")
            return response
        except EmojinetError as error:
            if isinstance(error, ServerUnreachable):
                self.unreachable = error
            return pb.SuggestResponse(results=[pb.SuggestResult(error=errors.to_proto(error))])


class Tally:
    """Passes answers on and counts those that failed."""

    def __init__(self, found: Iterable[Answer]) -> None:
        self._found = found
        self.failed = 0

    def __iter__(self) -> Iterator[Answer]:
        for answer in self._found:
            self.failed += answer.failed
            yield answer


def _answers(names: list[str], look: Look, in_flight: int) -> Generator[Answer, None, None]:
    pool = ThreadPoolExecutor(in_flight)
    try:
        for name, asked in [(name, pool.submit(look, name)) for name in names]:
            yield Answer(name, _awaited(asked))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _awaited(asked: Future[pb.SuggestResponse]) -> pb.SuggestResponse:
    # A thread that sleeps without end never learns of a Ctrl-C that came just before it slept.
    while not wait([asked], LONGEST_SLEEP_SECONDS).done:
        pass
    return asked.result()


def _reachable(answer: Answer) -> bool:
    return answer.reason != errors.reason_name(ServerUnreachable)


@contextmanager
def _online(
    server: str, timeout_seconds: float, top: int, min_probability: float
) -> Iterator[Suggest]:
    with Client(server) as client:
        yield lambda content: client.suggest(
            [content],
            timeout=timeout_seconds,
            max_suggestions=top,
            min_probability=min_probability,
        )


@contextmanager
def _offline(registry: Path, top: int, min_probability: float) -> Iterator[Suggest]:
    with options.needs("trainer"):
        from services.shared import local
    with local.opened(registry, lambda step: options.say(f"starter: {step} …")) as here:
        yield partial(here.suggest, max_suggestions=top, min_probability=min_probability)


@contextmanager
def _writer(
    form: Format, output: Path | None, people: Console
) -> Iterator[Callable[[Iterable[Answer]], None]]:
    """What writes answers where; opened before any work is done."""
    if form is Format.PARQUET and output is None:
        raise typer.TyperException("Parquet needs a file to go to: --output FILE")
    with nullcontext(sys.stdout) if output is None else options.opened(output) as out:
        # One terminal for answers and progress needs one hand that draws on it.
        shared = out.isatty() and people.is_terminal
        yield {
            Format.TABLE: partial(
                answers.write_table, console=people if shared else Console(file=out)
            ),
            Format.JSON: partial(answers.write_json, out=out),
            Format.CSV: partial(answers.write_csv, out=out),
            Format.PARQUET: partial(answers.write_parquet, out=out.buffer),
        }[form]


def _watched(found: Iterable[Answer], total: int, people: Console) -> Iterable[Answer]:
    """Shows on stderr how far it is, if there are many and somebody is watching."""
    hidden = total == 1 or not people.is_terminal
    return track(found, "", total=total, console=people, transient=True, disable=hidden)
