"""`emojinet model`: the registry's models; which one is served."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from clients import options
from clients.options import Json, Trainer
from clients.progress import columns, print_json, printable_text, when
from clients.trainer_client import DEFAULT_SERVER, TrainerClient
from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb
from services.shared.printable import printable

model = typer.Typer(
    no_args_is_help=True,
    help="""Models: what is in the registry, and which one is served.

    `list`, `show`, `publish` and `activate` ask the trainer service; `verify` and `build-starter`
    work here, without a service.
    """,
)

Which = Annotated[
    str, typer.Argument(metavar="NAME@VERSION", help="As `emojinet model list` shows it.")
]


@model.command("list")
def list_(json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """List all models of the registry, the newest first."""
    with TrainerClient(server) as client:
        models = client.list_models()
    if json:
        for found in models:
            print_json(found)
        return
    table = columns("name", "", "emoji>", "published", "")
    for found in models:
        table.add_row(
            printable_text(f"{found.name}@{found.version}"),
            "live" if found.live else "",
            f"{found.emoji:,}",
            when(found.create_time),
            printable_text(found.error.message),
        )
    Console().print(table if models else "No model yet: `emojinet train start --help`.")


@model.command()
def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]", help="The newest of its name, where no version is named."
        ),
    ],
    json: Json = False,
    server: Trainer = DEFAULT_SERVER,
) -> None:
    """Show where a model is, and its card: what it knows, how it was made and measured."""
    with TrainerClient(server) as client:
        models = client.list_models()
    name, _, version = which.partition("@")
    found = next((m for m in models if m.name == name and version in ("", m.version)), None)
    if found is None:
        raise typer.TyperException(f"there is no model {which}: `emojinet model list`")
    if json:
        print_json(found)
        return
    console = Console()
    table = columns("", "")
    for key, value in (
        ("model", f"{found.name}@{found.version}{', live' if found.live else ''}"),
        ("emoji", f"{found.emoji:,}"),
        ("folder", found.uri),
        ("unusable", found.error.message),
    ):
        if value:
            table.add_row(printable_text(key), printable_text(value))
    console.print(table)
    # Links are shown and not made: a card is text of whoever made the model.
    card = "\n".join(printable(line) for line in found.card.splitlines())
    console.print(Markdown(card, hyperlinks=False))


@model.command()
def verify(
    which: Annotated[
        str,
        typer.Argument(metavar="PATH|NAME@VERSION", help="A model's folder, or one of a registry."),
    ],
    registry: options.Registry = None,
) -> None:
    """Check every byte of a model against its manifest, and that it is usable; no service needed.

    `emojinet model verify starter@0123456789ab`
    """
    root = options.registry_or_default(registry)
    with options.needs("inference"):
        from services.shared import model as models
        from services.shared import registry as registries
    name, is_one, version = which.partition("@")
    if is_one and "/" not in which:
        checked = registries.load(root, registries.Live(name, version)).check()
    else:
        checked = models.load(Path(which)).check()
    said = f"{checked.name}@{checked.version}"
    print(f"{said} in {checked.folder} is whole: {len(checked.vocabulary):,} emoji")


@model.command()
def publish(
    run: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]", help="A run that has succeeded.", show_default="the newest"
        ),
    ] = "",
    activate: Annotated[
        bool, typer.Option("--activate", help="Also make it the one to serve.")
    ] = False,
    json: Json = False,
    server: Trainer = DEFAULT_SERVER,
) -> None:
    """Put the model of a run into the registry, after its checks."""
    with TrainerClient(server) as client:
        _tell(client.publish_model(run or _newest(client), activate=activate), json)


def _newest(client: TrainerClient) -> str:
    for run in client.list_runs():
        if run.state == states.STATE_SUCCEEDED and run.request.kind == pb.RUN_KIND_TRAIN:
            return run.name
    raise typer.TyperException("no run has succeeded: `emojinet train list`")


@model.command()
def activate(which: Which, json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """Make a model the one to serve, after its checks; going back is activating an older one.

    Servers follow within seconds.
    """
    name, is_one, version = which.partition("@")
    if not is_one:
        raise typer.BadParameter(f"{which} lacks its version, as in {which}@0123456789ab")
    with TrainerClient(server) as client:
        _tell(client.activate_model(name, version), json)


def _tell(made: pb.Model, as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        live = "live" if made.live else "published"
        print(printable(f"{made.name}@{made.version} is {live}, in {made.uri}"))


@model.command()
def build_starter(registry: options.Registry = None) -> None:
    """Build and publish the starter model, and make it live unless another model is.

    It needs no crawl: it knows what things are, not what people mean.
    """
    root = options.registry_or_default(registry)
    with options.needs("trainer"):
        from services.shared import starter

        built = starter.install(root, lambda step: options.say(f"starter: {step} …"))
    print(f"{built.name}@{built.version} is in {root}")
