"""`emojinet model`: models, as far as that needs no service."""

from pathlib import Path
from typing import Annotated

import typer

from clients.options import needs

model = typer.Typer(no_args_is_help=True, help="Models, as far as that needs no service.")


@model.command()
def build_starter(
    registry: Annotated[
        Path, typer.Option(envvar="EMOJINET_REGISTRY", help="The folder of models.")
    ] = Path("data/registry"),
) -> None:
    """Build the starter model, which knows what things are without any crawl, and publish it."""
    with needs("trainer"):
        from services.shared import starter
    typer.echo(starter.build(registry))
