"""`emojinet train`: trains models on data sets, by the trainer service."""

import json as json_
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from clients import options, progress
from clients.options import Detach, Json, Trainer
from clients.progress import columns, print_json, printable_text, state_name, when
from clients.trainer_client import DEFAULT_SERVER, TrainerClient
from emojinet.v1 import state_pb2 as states
from emojinet.v1 import trainer_service_pb2 as pb

BASELINES = ("chance", "prior", "starter")  # what a metric is read beside
PARTS = ("head", "torso", "tail")  # of the vocabulary: its most used emoji, and so on

train = typer.Typer(
    no_args_is_help=True,
    help="""Train models on data sets, and see how good they are.

    A run is work of the trainer service (`python -m services.trainer`): it goes on when you stop
    watching, and when the service restarts. `emojinet model publish RUN` puts its model into the
    registry.
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `emojinet train list` shows it.")]


@train.command()
def start(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Such as quick, photos, glyphs or article.")
    ],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="A data set's name, or a folder: a path has a /.",
            show_default="the recipe's own",
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="What to call the model.", show_default="as the recipe")
    ] = "",
    detach: Detach = False,
    json: Json = False,
    server: Trainer = DEFAULT_SERVER,
) -> None:
    """Start a run and follow it until it ends; Ctrl-C ends the following, not the run.

    `emojinet train start quick --dataset first --set steps=500`
    """
    request = pb.StartRunRequest(
        kind=pb.RUN_KIND_TRAIN,
        recipe=recipe,
        dataset=str(Path(dataset).absolute()) if "/" in dataset else dataset,
        settings=dict(_setting(text) for text in settings or ()),
        model_name=name,
    )
    with TrainerClient(server) as client:
        progress.begun(
            client.start_run(request),
            client.watch_run,
            "emojinet train watch",
            detach=detach,
            as_json=json,
        )


def _setting(text: str) -> tuple[str, str]:
    """A field and its value as JSON.

    >>> _setting("steps=500"), _setting("augment=strong")
    (('steps', '500'), ('augment', '"strong"'))
    """
    field, is_one, value = text.partition("=")
    if not (field and is_one):
        raise typer.BadParameter(f"--set {text} lacks its value, as in steps=500")
    try:
        json_.loads(value)
    except (ValueError, RecursionError):
        value = json_.dumps(value)
    return field, value


@train.command()
def watch(name: Name, json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """Follow a run until it ends; Ctrl-C ends the watching, not the run.

    Exit status: 0 if it succeeds, 1 if it fails or is cancelled. A restart of the service does not
    end the watching.
    """
    with TrainerClient(server) as client:
        client.get_run(name)  # at once, or at once an error
        changes = client.watch_run(name, options.say)
        progress.follow(changes, f"emojinet train watch {name}", as_json=json)


@train.command("list")
def list_(json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """List all runs, the newest first."""
    with TrainerClient(server) as client:
        runs = client.list_runs()
    if json:
        for run in runs:
            print_json(run)
        return
    table = columns("name", "state", "recipe", "data set", "step>", "loss>", "top-1>", "started")
    for run in runs:
        top1 = _values(run.metrics).get(("test", "top1")) or _values(run.metrics).get(
            ("validation", "top1")
        )
        table.add_row(
            printable_text(run.name),
            state_name(run.state),
            printable_text(run.request.recipe or "atlas"),
            printable_text(run.request.dataset),
            f"{run.progress.step:,}",
            f"{run.progress.loss:.3f}" if run.progress.loss else "",
            f"{top1.value:.1%}" if top1 else "",
            when(run.create_time),
        )
    Console().print(table if runs else "No run yet: `emojinet train start --help`.")


@train.command()
def show(name: Name, json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """Show what was asked of a run, how far it is, how good its model is, where its report is."""
    with TrainerClient(server) as client:
        run = client.get_run(name)
    if json:
        print_json(run)
        return
    console = Console()
    console.print(progress.view(run, _facts(run)))
    if run.metrics:
        console.print(_judgement(run.metrics))


def _facts(run: pb.Run) -> dict[str, str]:
    """What was asked for, and where what came of it is, for people."""
    asked = run.request
    facts = {
        "recipe": asked.recipe,
        "data set": asked.dataset,
        "changed": ", ".join(
            f"{field}={asked.settings[field]}" for field in sorted(asked.settings)
        ),
        "model": asked.model_name,
        "report": f"{run.uri}/report.html" if run.metrics else "",
        "atlas": f"{run.uri}/atlas.html" if _is_atlas_done(run) else "",
        "folder": run.uri,
    }
    return {key: value for key, value in facts.items() if value}


def _is_atlas_done(run: pb.Run) -> bool:
    return run.request.kind == pb.RUN_KIND_ATLAS and run.state == states.STATE_SUCCEEDED


def _values(metrics: Iterable[pb.Metric]) -> dict[tuple[str, str], pb.Metric]:
    return {(metric.split, metric.name): metric for metric in metrics}


def _judgement(metrics: Iterable[pb.Metric]) -> Table:
    """Each metric with its interval, its parts, and what would be said without learning.

    Of the test split, as soon as there is one: eighty columns have no room for both.
    """
    values = _values(metrics)
    shown = "test" if any(split == "test" for split, _ in values) else "validation"
    table = columns(shown, "value>", "95 %>", *(f"{n}>" for n in PARTS + BASELINES))
    for (split, name), metric in values.items():
        if (
            split != shown
            or name.startswith(tuple(f"{b}_" for b in BASELINES))
            or name.endswith(tuple(f"_{part}" for part in PARTS))
        ):
            continue
        beside = [f"{name}_{part}" for part in PARTS] + [f"{b}_{name}" for b in BASELINES]
        others = (values.get((split, other)) for other in beside)
        table.add_row(
            printable_text(name.replace("_", " ")),
            f"{metric.value:.3f}",
            f"{metric.low:.3f}-{metric.high:.3f}",
            *(f"{other.value:.3f}" if other else "" for other in others),
        )
    return table


@train.command()
def cancel(name: Name, json: Json = False, server: Trainer = DEFAULT_SERVER) -> None:
    """End a run; its checkpoints stay. Cancelling one that has ended changes nothing."""
    with TrainerClient(server) as client:
        run = client.cancel_run(name)
    if json:
        print_json(run)
    else:
        print(f"{run.name} {state_name(run.state)}")
