"""`emojinet`: the one command line. Each command has a file of its own."""

import os

# Read when gRPC is loaded: its notes on connections that servers end would stain the live views.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from signal import SIG_DFL, SIGINT, raise_signal, signal
from typing import Annotated, cast

import typer

from clients import options
from clients.atlas import atlas
from clients.crawl import crawl
from clients.credentials import ENVIRONMENT
from clients.dataset import dataset
from clients.find import find
from clients.load import load
from clients.model import model
from clients.programs import PASS_ON
from clients.slack.serve import slack
from clients.status import status
from clients.suggest import suggest
from clients.token import token
from clients.train import train
from clients.up import down, up
from clients.web.serve import web
from services.shared import settings
from services.shared.errors import EmojinetError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(suggest)
app.command(context_settings=PASS_ON)(find)
app.command()(load)
app.command()(web)
app.command()(slack)
app.command()(up)
app.command()(down)
app.command()(status)
app.add_typer(crawl, name="crawl")
app.add_typer(dataset, name="dataset")
app.add_typer(train, name="train")
app.add_typer(model, name="model")
app.add_typer(atlas, name="atlas")
app.add_typer(token, name="token")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("emojinet"))
        raise typer.Exit


def _shown(name: str, text: str) -> typer.models.OptionInfo:
    """A file of what servers are shown, or known by; commands find it in the environment."""

    def remember(path: Path | None) -> Path | None:
        if path is not None:
            os.environ[ENVIRONMENT[name]] = str(path)
        return path

    made: typer.models.OptionInfo = typer.Option(
        help=text, envvar=ENVIRONMENT[name], callback=remember
    )
    return made


@app.callback()
def emojinet(
    tls_ca: Annotated[
        Path | None, _shown("tls_ca", "Speak TLS to servers whose certificate is of this CA.")
    ] = None,
    client_cert: Annotated[
        Path | None, _shown("client_cert", "Our certificate, for servers that want one.")
    ] = None,
    client_key: Annotated[Path | None, _shown("client_key", "Its key.")] = None,
    token_file: Annotated[
        Path | None, _shown("token_file", "The token, for servers that want one.")
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Suggests emoji for pictures; crawls posts, makes data sets and learns from them."""
    try:
        settings.check(os.environ)
    except settings.UnknownSetting as unknown:
        raise typer.TyperException(str(unknown)) from unknown


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line, the process's own unless one is given, and exits."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that is not UTF-8 gets what it cannot show as an escape.
        cast(TextIOWrapper, stream).reconfigure(errors="backslashreplace")
    status = _status(arguments)
    if status == 128 + SIGINT:  # what typer makes of Ctrl-C
        # Die of the signal: a shell's loop ends with us, and nobody waits for our threads.
        signal(SIGINT, SIG_DFL)
        raise_signal(SIGINT)
    sys.exit(status)


def _status(arguments: list[str] | None) -> int:
    """The exit status: 1 for what failed, 2 for wrong use; each is told in one line."""
    try:
        status: int | None = app(arguments, prog_name="emojinet", standalone_mode=False)
        sys.stdout.flush()
        return status or 0
    except typer.TyperException as wrong:
        if message := wrong.format_message():  # empty when typer has printed the help
            options.say(f"emojinet: {message}")
        return 2
    except EmojinetError as error:
        options.say(f"emojinet: {error}")
    except OSError as error:  # of the output: a picture's is part of its answer
        if not isinstance(error, BrokenPipeError):
            options.say(f"emojinet: {error}")
        # Python flushes at the end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    main()
