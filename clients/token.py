"""`emojinet token`: makes the tokens by which servers know their callers."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.shared import roles, tokens

token = typer.Typer(no_args_is_help=True, help="Tokens, by which servers know their callers.")


class Role(StrEnum):
    """What a caller may do; who operates may suggest, too."""

    SUGGEST = roles.SUGGEST
    OPERATE = roles.OPERATE


@token.command()
def new(
    role: Annotated[Role, typer.Argument(help="What its bearer may do.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where it goes, for --token-file; a new file.")
    ],
) -> None:
    """Make a token, which nobody sees, and print the line that makes servers know it.

    `emojinet token new suggest page.token >> tokens`
    """
    made = tokens.new()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise typer.TyperException(f"cannot make {file}: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as out:
        print(made, file=out)
    name = "-".join(file.stem.split())
    print(tokens.line(role, made, name))
