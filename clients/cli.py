"""`emojinet`: the one command line. Each command has a file of its own."""

import os
import sys
from importlib.metadata import version
from signal import SIG_DFL, SIGINT, raise_signal, signal
from typing import Annotated, TextIO, cast

import typer

from clients import options
from clients.load import load
from clients.model import model
from clients.suggest import suggest
from services.shared import settings
from services.shared.errors import EmojinetError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(suggest)
app.command()(load)
app.add_typer(model, name="model")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("emojinet"))
        raise typer.Exit


@app.callback()
def emojinet(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Suggests emoji for pictures."""
    try:
        settings.check(os.environ)
    except settings.UnknownSetting as unknown:
        raise typer.TyperException(str(unknown)) from unknown


def main() -> None:
    """Runs the command line; what is used wrongly is told in one line, with status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that is not UTF-8 gets what it cannot show as an escape.
        cast(TextIO, stream).reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as wrong:
        if message := wrong.format_message():  # empty when typer has printed the help
            options.say(f"emojinet: {message}")
        sys.exit(2)
    except EmojinetError as error:
        options.say(f"emojinet: {error}")
        sys.exit(1)
    if status == 128 + SIGINT:  # what typer makes of Ctrl-C
        # Die of the signal: a shell's loop ends with us, and nobody waits for our threads.
        signal(SIGINT, SIG_DFL)
        raise_signal(SIGINT)
    sys.exit(status)


if __name__ == "__main__":
    main()


if __name__ == "__main__":
    main()
