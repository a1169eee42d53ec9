"""`emojinet find`: the pictures of a folder that an emoji is most likely posted with."""

import typer

from clients import programs


def find(context: typer.Context) -> None:
    """Find the pictures of a folder for an emoji: a suggestion the other way round.

    `emojinet find 💉 FOLDER`; all flags: `python -m services.trainer find --help`.
    """
    programs.run("trainer", "find", context.args)
