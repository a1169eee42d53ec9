"""`emojinet dataset`: freezes what crawls have found, and takes content down again."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clients import programs, progress
from clients.crawler_client import DEFAULT_SERVER, CrawlerClient
from clients.options import Crawler, Detach, Json
from clients.programs import PASS_ON
from clients.progress import columns, print_json, printable_text, state_name, when
from emojinet.v1 import crawler_service_pb2 as pb

SPLITS = ("train", "validation", "test")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")

dataset = typer.Typer(
    no_args_is_help=True,
    help="""Freeze what crawls have found into data sets, and work on these.

    `create`, `list`, `show` and `remove` ask the crawler service; `prescale`, `verify` and
    `export` work here, without a service, and need the extra `crawler`.
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `emojinet dataset list` shows it.")]
Share = Annotated[float, typer.Option(min=0.001, max=0.5, help="Of the samples, for this split.")]
# -- data sets of the service ---------------------------------------------------------------------


@dataset.command()
def create(
    crawls: Annotated[
        list[str] | None,
        typer.Argument(metavar="CRAWL…", help="Crawls that collected.", show_default="the newest"),
    ] = None,
    name: Annotated[
        str,
        typer.Option(help="Letters, digits, - and _.", show_default="made of the time"),
    ] = "",
    validation: Share = 0.1,
    test: Share = 0.1,
    detach: Detach = False,
    json: Json = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Freeze the pictures of crawls into a data set that never changes, and follow that.

    Ctrl-C ends the following, not the work; `emojinet dataset show NAME` tells how it went.
    """
    with CrawlerClient(server) as client:
        request = pb.CreateDatasetRequest(
            crawls=crawls or [_newest(client)],
            name=name,
            validation_share=validation,
            test_share=test,
        )
        progress.begun(
            client.create_dataset(request),
            client.watch_dataset,
            "emojinet dataset show",
            detach=detach,
            as_json=json,
        )


def _newest(client: CrawlerClient) -> str:
    for crawl in client.list_crawls():
        if crawl.request.mode == pb.CRAWL_MODE_COLLECT:
            return crawl.name
    raise typer.TyperException("no crawl has collected anything: `emojinet crawl start`")


@dataset.command("list")
def list_(json: Json = False, server: Crawler = DEFAULT_SERVER) -> None:
    """List all data sets, the newest first."""
    with CrawlerClient(server) as client:
        datasets = client.list_datasets()
    if json:
        for made in datasets:
            print_json(made)
        return
    table = columns("name", "state", *(f"{split}>" for split in SPLITS), "removed>", "created")
    for made in datasets:
        table.add_row(
            printable_text(made.name),
            state_name(made.state),
            *(f"{made.samples.get(split, 0):,}" for split in SPLITS),
            f"{made.excluded:,}",
            when(made.create_time),
        )
    Console().print(table if datasets else "No data set yet: `emojinet dataset create --help`.")


@dataset.command()
def show(name: Name, json: Json = False, server: Crawler = DEFAULT_SERVER) -> None:
    """Show where a data set is, what is in it, and what became of posts on the way there."""
    with CrawlerClient(server) as client:
        made = client.get_dataset(name)
    if json:
        print_json(made)
        return
    samples = ", ".join(f"{split} {made.samples[split]:,}" for split in SPLITS if made.samples)
    facts = {
        "crawls": ", ".join(made.request.crawls),
        "samples": samples,
        "removed": f"{made.excluded:,}" if made.excluded else "",
        "folder": made.uri,
        "version": made.digest,
    }
    console = Console()
    console.print(progress.view(made, {key: value for key, value in facts.items() if value}))


@dataset.command()
def remove(
    post: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE URI", help="A post with all its pictures."),
    ] = None,
    author: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE ID", help="An author with all posts, now and in future."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|SHA256", help="A picture as it was posted, and all that look like it."
        ),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Also rewrite the data sets that hold it, now.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Take content down: out of every data set at once, and never to come back.

    Name one of `--post`, `--author` and `--image`. SOURCE is `import`, `instagram-v1` or
    `bluesky`. In a terminal you are asked first.

    `emojinet dataset remove --author bluesky did:plc:6aw7u7xjbaiznddugigmdhvc`
    """
    if sum(given is not None for given in (post, author, image)) != 1:
        raise typer.BadParameter("name one of --post, --author and --image")
    request = pb.RemoveContentRequest(compact=compact)
    if post:
        request.post.source, request.post.uri = post
    if author:
        request.author.source, request.author.author = author
    if image:
        request.image_sha256 = _digest(image)
    if (
        not yes
        and sys.stdin.isatty()
        and not _confirmed(" ".join(post or author or (image or "",)))
    ):
        raise typer.Exit(1)
    with CrawlerClient(server) as client:
        removed = client.remove_content(request)
    if json:
        print_json(removed)
        return
    where = f", of {', '.join(removed.datasets)}" if removed.datasets else ""
    print(f"Pictures deleted: {removed.removed_images:,}.")
    print(f"Samples excluded: {removed.excluded_samples:,}{where}.")


def _digest(image: str) -> str:
    """Of a file, or as given."""
    if SHA256.fullmatch(image):
        return image.lower()
    try:
        return hashlib.sha256(Path(image).read_bytes()).hexdigest()
    except OSError as error:
        raise typer.BadParameter(
            f"--image {image} is no SHA-256 of 64 digits, and no file: {error.strerror}"
        ) from error


def _confirmed(what: str) -> bool:
    try:
        return typer.confirm(f"Take down {what}? It cannot be undone.", err=True)
    except typer.Abort:  # Ctrl-C, or no answer
        return False


# -- verbs of the crawler's own program -----------------------------------------------------------


@dataset.command(context_settings=PASS_ON)
def prescale(context: typer.Context) -> None:
    """Prescale a folder of pictures for training, as a crawl does.

    `emojinet dataset prescale FOLDER`; all flags: `python -m services.crawler prescale --help`.
    """
    programs.run("crawler", "prescale", context.args)


@dataset.command(context_settings=PASS_ON)
def verify(context: typer.Context) -> None:
    """Check every file and digest of a data set on disk.

    `emojinet dataset verify PATH`; all flags: `python -m services.crawler verify --help`.
    """
    programs.run("crawler", "verify", context.args)


@dataset.command(context_settings=PASS_ON)
def export(context: typer.Context) -> None:
    """Write a data set in another form: a folder, LMDB, CSV or Parquet.

    `emojinet dataset export PATH --to folder|lmdb|csv|parquet --output OUT`; all flags:
    `python -m services.crawler export --help`.
    """
    programs.run("crawler", "export", context.args)
