"""`emojinet atlas`: what each emoji means in pictures and posts."""

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from clients import programs, progress
from clients.options import Detach, Json, Trainer
from clients.programs import PASS_ON
from clients.trainer_client import DEFAULT_SERVER, TrainerClient
from emojinet.v1 import trainer_service_pb2 as pb

atlas = typer.Typer(
    no_args_is_help=True,
    help="""Tell what each emoji means in pictures and posts: one page, and its tables.

    `build` works here, without a service, and needs the extra `trainer`; `start` asks the trainer
    service, whose runs `emojinet train` lists, watches and cancels.
    """,
)


@atlas.command(context_settings=PASS_ON)
def build(context: typer.Context) -> None:
    """Make an atlas of a data set, or of any folder of pictures, in data/atlas.

    `emojinet atlas build DATASET|FOLDER [--model M] [--compare segment=A,B]
    [--faces blur|keep|drop] [--output DIR]`; all flags: `python -m services.trainer atlas --help`.
    """
    programs.run("trainer", "atlas", context.args)


@atlas.command()
def start(
    dataset: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH", help="A data set's name, or a folder: a path has a /."),
    ],
    model: Annotated[str, typer.Option(metavar="NAME[@VERSION]", help="Which model looks.")] = "",
    compare: Annotated[
        str, typer.Option(metavar="segment=A,B", help="Two segments to hold side by side.")
    ] = "",
    faces: Annotated[
        str, typer.Option(metavar="keep|blur|drop", help="Of faces in pictures that are shown.")
    ] = "keep",
    detach: Detach = False,
    json: Json = False,
    server: Trainer = DEFAULT_SERVER,
) -> None:
    """Have the trainer service make an atlas; Ctrl-C ends the following, not the work."""
    said = {"model": model, "compare": compare, "faces": faces}
    request = pb.StartRunRequest(
        kind=pb.RUN_KIND_ATLAS,
        dataset=str(Path(dataset).absolute()) if "/" in dataset else dataset,
        settings={field: json_.dumps(value) for field, value in said.items() if value},
    )
    with TrainerClient(server) as client:
        progress.begun(
            client.start_run(request),
            client.watch_run,
            "emojinet train watch",
            detach=detach,
            as_json=json,
        )
