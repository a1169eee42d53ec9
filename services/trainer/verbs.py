"""What the trainer's program does without a server: a run, for a Job or by hand, an atlas, and
finding the pictures of an emoji in a folder."""

import asyncio
import os
import shlex
import signal
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from services.shared import folder, harness
from services.shared.errors import EmojinetError, MalformedRequest, StorageFailed
from services.shared.printable import printable
from services.trainer import console, recipe
from services.trainer.events import Events
from services.trainer.faces import HOW as FACES
from services.trainer.found import Form
from services.trainer.runs import check_model_name, dataset_folder

PATIENCE_SECONDS = 10.0  # with a process that was killed in the same folder and is not gone yet


def run(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="One that we ship.")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="A data set's name, or a folder.",
            show_default="the recipe's own",
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="The run's folder.", show_default="data/runs/RECIPE"),
    ] = None,
    data: Annotated[Path, harness.option("DATA", "Where everything is kept.")] = Path("data"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe."),
    ] = None,
    model_name: Annotated[
        str, typer.Option(help="What to call the model.", show_default="as the recipe")
    ] = "",
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Of this machine, in any currency, for the report."),
    ] = None,
) -> None:
    """Train a model: from a data set to the model and its report, in one folder.

    Started again with the same folder it goes on. With `torchrun -m services.trainer run …`
    several processes share the work. Exit status 1 if it fails.
    """
    pairs = [text.partition("=") for text in settings or ()]
    if wrong := [field for field, is_one, _ in pairs if not is_one]:
        raise typer.BadParameter(f"--set {wrong[0]} lacks its value, as in steps=500")
    place = output or data / "runs" / name
    try:
        asked = recipe.read(name, {field: value for field, _, value in pairs})
        check_model_name(model_name)
        found = dataset_folder(data, _named(data, dataset or asked.dataset))
        _train(asked, found, place, data, model_name or asked.name, price_per_hour)
    except StorageFailed as error:
        # So full a disk that the run cannot say so: the service tries again by and by.
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(os.EX_TEMPFAIL) from None
    except EmojinetError as error:
        harness.fail(str(error))


def _named(data: Path, dataset: str) -> str:
    """A path may be one from here; what is both a name and a folder is the name's."""
    if not dataset:
        raise MalformedRequest("Say --dataset: the recipe has none of its own.", field="dataset")
    by_name = (data / "datasets" / dataset).is_dir()
    return dataset if by_name or not Path(dataset).is_dir() else str(Path(dataset).absolute())


def _train(
    asked: recipe.Recipe,
    dataset: Path,
    output: Path,
    data: Path,
    model_name: str,
    price_per_hour: float | None,
) -> None:
    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one writes, and speaks
            stack.callback(os.close, harness.lock(output, "training", PATIENCE_SECONDS))
            stack.enter_context(console.shown(output))
        # Not before the folder is ours and all is in order: it takes seconds.
        from services.trainer import run as running
        from services.trainer import train

        job = running.Job(
            recipe=asked,
            dataset=dataset,
            output=output,
            data=data,
            model_name=model_name,
            price_per_hour=price_per_hour,
            command=shlex.join(["python", "-m", "services.trainer", *sys.argv[1:]]),
        )
        try:
            running.run(job)
        except train.Stopped:
            stack.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)


def find(
    emoji: Annotated[str, typer.Argument(help="An emoji, or its name, such as syringe.")],
    pictures: Annotated[Path, typer.Argument(metavar="FOLDER", help="With all folders in it.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|NAME[@VERSION]",
            help="Another model than the registry's live one.",
            show_default="the live one, or the starter",
        ),
    ] = "",
    top: Annotated[int, typer.Option(min=0, help="How many; 0 for all of them.")] = 20,
    form: Annotated[Form, typer.Option("--format", help="How to write.")] = Form.TABLE,
    data: Annotated[Path, harness.option("DATA", "Where everything is kept.")] = Path("data"),
    registry: Annotated[
        Path | None, harness.option("REGISTRY", "Folder of models. Default: DATA/registry.")
    ] = None,
) -> None:
    """Find the pictures of a folder that look most like what an emoji is posted with.

    Each with its calibrated probability. Files that are no pictures, or broken ones, are told of on
    stderr and passed over. Exit status 1 if there was none that could be read.
    """
    from services.trainer import find as finding

    people = Console(stderr=True, highlight=False)
    try:
        chosen = finding.chosen(registry or data / "registry", model, people.print)
        place = finding.output(chosen, emoji)
        paths = folder.files(str(pictures))
        if not paths:
            raise MalformedRequest(f"There is no file in {pictures}.", field="pictures")
        with Progress(console=people, transient=True, disable=not people.is_terminal) as bar:
            task = bar.add_task("looking", total=len(paths))

            def refused(path: str, error: EmojinetError) -> None:
                people.print(
                    f"{printable(path)}: {printable(str(error))}", markup=False, soft_wrap=True
                )

            def advanced(count: int) -> None:
                bar.advance(task, count)

            found = asyncio.run(finding.ranked(chosen, place, paths, refused, advanced))
    except EmojinetError as error:
        harness.fail(str(error))
    if len(found) < len(paths):
        people.print(f"{len(paths) - len(found):,} of {len(paths):,} files were passed over.")
    form.write(chosen.vocabulary.emoji[place], found[: top or None], sys.stdout)
    raise typer.Exit(0 if found else 1)


def atlas(
    path: Annotated[
        str, typer.Argument(metavar="DATASET|FOLDER", help="A data set's name, or a folder.")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME[@VERSION]|PATH",
            help="Which model looks at the pictures.",
            show_default="the live one; for bare pictures the starter",
        ),
    ] = "",
    compare: Annotated[
        str, typer.Option(metavar="segment=A,B", help="Two segments to hold side by side.")
    ] = "",
    faces: Annotated[
        str, typer.Option(metavar="|".join(FACES), help="Of faces in pictures that are shown.")
    ] = "keep",
    output: Annotated[
        Path | None, typer.Option(help="The atlas's folder.", show_default="data/atlas/NAME")
    ] = None,
    data: Annotated[Path, harness.option("DATA", "Where everything is kept.")] = Path("data"),
    registry: Annotated[
        Path | None,
        typer.Option(
            envvar="EMOJINET_REGISTRY", help="The folder of models.", show_default="DATA/registry"
        ),
    ] = None,
) -> None:
    """Tell what each emoji means in pictures and posts: one page, and its tables.

    Started again it goes on; what models saw is kept. Exit status 1 if it fails.
    """
    try:
        found = dataset_folder(data, _named(data, path))
        place = output or data / "atlas" / found.name
        models = registry or data / "registry"
        print(_atlas(found, place, data, models, model=model, compare=compare, faces=faces))
    except StorageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(os.EX_TEMPFAIL) from None
    except EmojinetError as error:
        harness.fail(str(error))


def _atlas(dataset: Path, output: Path, data: Path, registry: Path, **asked: str) -> Path:
    with ExitStack() as stack:
        stack.callback(os.close, harness.lock(output, "atlas", PATIENCE_SECONDS))
        stack.enter_context(console.shown(output))
        events = stack.enter_context(closing(Events(output)))
        # Not before the folder is ours and all is in order: it takes seconds.
        from services.trainer.atlas import build

        job = build.Job(path=dataset, output=output, data=data, registry=registry, **asked)
        return build.build(job, events)
