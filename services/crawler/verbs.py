"""What the crawler's program does without a server; `emojinet` starts it for these."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emojinet.v1 import crawler_service_pb2 as pb
from services.crawler import check as checking
from services.crawler import export, promises
from services.crawler.prescaled import EDGE_PX
from services.crawler.sources import Source
from services.crawler.sources.bluesky import BlueskySource
from services.crawler.sources.imported import ImportedSource
from services.crawler.sources.instagram import InstagramSource
from services.crawler.web import Web
from services.shared import durations, harness, shards
from services.shared.errors import EmojinetError


class SourceName(StrEnum):
    """A kind of source."""

    IMPORT = "import"
    INSTAGRAM = "instagram-v1"
    BLUESKY = "bluesky"


class Form(StrEnum):
    """What a data set may be written as."""

    FOLDER = "folder"
    LMDB = "lmdb"
    CSV = "csv"
    PARQUET = "parquet"


EXPORTS: dict[Form, Callable[[Path, Path], None]] = {
    Form.FOLDER: export.folders,
    Form.LMDB: export.to_lmdb,
    Form.CSV: export.to_csv,
    Form.PARQUET: export.to_parquet,
}


@contextmanager
def _told() -> Iterator[None]:
    """Turns a failure into one line and exit status 1."""
    try:
        yield
    except EmojinetError as error:
        harness.fail(str(error))


def _seconds(text: str) -> float:
    try:
        return durations.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def check(
    context: typer.Context,
    source: SourceName,
    path: Annotated[Path | None, typer.Argument(help="Of `import`: a file or folder.")] = None,
    base_url: Annotated[str, typer.Option(help="Of `instagram-v1`: where its API is.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="Of `instagram-v1`: holds the access token.")
    ] = None,
    jetstream: Annotated[str, typer.Option(help="Of `bluesky`: wss://HOST.")] = "",
    originals: Annotated[bool, typer.Option(help="Of `bluesky`: the original bytes.")] = False,
    cdn: Annotated[str, typer.Option(help="Of `bluesky`: where scaled copies are.")] = "",
    directory: Annotated[str, typer.Option(help="Of `bluesky`: where authors are listed.")] = "",
    seconds: Annotated[
        float, typer.Option("--for", parser=_seconds, metavar="60s|5m|1h", help="How long.")
    ] = 60.0,
    record: Annotated[
        Path | None, typer.Option(help="Keep what came, without names or texts, in this file.")
    ] = None,
) -> None:
    """Try whether a live source is what we take it for.

    Exit status 1 if something that we take for granted is not so.
    """

    def make(web: Web) -> Source:
        match source:
            case SourceName.IMPORT:
                return ImportedSource(pb.ImportSource(path=str(path.absolute()) if path else ""))
            case SourceName.INSTAGRAM:
                return InstagramSource(
                    pb.InstagramSource(base_url=base_url, token_file=str(token_file or "")), web
                )
            case SourceName.BLUESKY:
                return BlueskySource(
                    pb.BlueskySource(
                        jetstream_url=jetstream,
                        originals=originals,
                        cdn_url=cdn,
                        directory_url=directory,
                    ),
                    web,
                )

    options = context.obj
    with _told():
        report = asyncio.run(
            checking.check(
                source,
                make,
                seconds,
                record,
                allow=options.allow,
                ca_file=options.ca_file,
                contact=options.contact,
            )
        )
    for line in report.lines():
        print(line)
    raise typer.Exit(0 if report.passed else 1)


def prescale(
    folder: Path,
    output: Annotated[Path, typer.Option(help="Where the small pictures go.")],
    edge: Annotated[
        int, typer.Option(min=32, max=2048, help="The shorter edge in pixels.")
    ] = EDGE_PX,
) -> None:
    """Scale all pictures of a folder down, as JPEG, upright, without metadata.

    It goes on where it was stopped. Exit status 1 if some files could not be read.
    """
    with _told():
        status = export.prescale_folder(folder, output, edge_px=edge, console=Console(stderr=True))
    raise typer.Exit(status)


def verify(path: Annotated[Path, typer.Argument(help="A data set's folder.")]) -> None:
    """Check every byte of a data set, and that its splits share nothing."""
    with _told():
        promises.verify(path)
        said = shards.facts(path)
    counts = ", ".join(f"{said['samples'][split]:,} {split}" for split in shards.SPLITS)
    print(f"{path} is whole: {counts}; digest {said['digest'][:12]}")


def write(
    path: Annotated[Path, typer.Argument(help="A data set's folder.")],
    form: Annotated[Form, typer.Option("--to", help="What to write it as.")],
    output: Annotated[Path, typer.Option(help="The folder or file to write.")],
) -> None:
    """Write a data set in another form, without what was taken down."""
    with _told():
        EXPORTS[form](path, output)
    print(f"{output} is written")
