"""`emojinet atlas`: what each emoji means in pictures and posts."""

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from clients import options, programs, progress
from clients.options import Json, Trainer
from clients.programs import PASS_ON
from clients.progress import print_json
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
    detach: Annotated[
        bool, typer.Option("--detach", help="Print its name at once, and do not follow.")
    ] = False,
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
        run = client.start_run(request)
        if not detach:
            changes = client.watch_run(run.name, options.say)
            progress.follow(changes, f"emojinet train watch {run.name}", as_json=json)
        elif json:
            print_json(run)
        else:
            print(run.name)
