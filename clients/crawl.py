"""`emojinet crawl`: counts emoji and collects pictures, by the crawler service.

Where posts come from is a command of its own below each of `rank` and `start`, with the flags of
both: `emojinet crawl start import posts.csv --max-posts 1000`.
"""

import csv
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from clients import counts, options, programs, progress
from clients.crawler_client import DEFAULT_SERVER, CrawlerClient
from clients.options import Crawler, Json
from clients.programs import PASS_ON
from clients.progress import (
    columns,
    print_json,
    printable_text,
    state_name,
    tally,
    when,
)
from emojinet.v1 import crawler_service_pb2 as pb
from services.shared import durations

crawl = typer.Typer(
    no_args_is_help=True,
    help="""Count emoji at a source, and collect pictures that were posted with them.

    A crawl is work of the crawler service (`python -m services.crawler`): it goes on when you
    stop watching, and when the service restarts. First `rank` which emoji a source uses most, then
    `start` to collect pictures for those; `emojinet dataset create` freezes what was found.
    """,
)
_ranking = typer.Typer(
    no_args_is_help=True,
    help="""Count every emoji of the inventory at a source, and freeze the most used.

    `emojinet crawl rank import posts.csv --column text=caption`
    """,
)
_collecting = typer.Typer(
    no_args_is_help=True,
    help="""Collect the pictures of posts that pass the rules.

    `emojinet crawl start import posts.csv --column text=caption --vocabulary rank-20261122-…`
    """,
)
crawl.add_typer(_ranking, name="rank")
crawl.add_typer(_collecting, name="start")


def duration(text: str) -> Duration:
    """What `durations.seconds` reads, for the contract."""
    try:
        made = Duration()
        made.FromMilliseconds(round(durations.seconds(text) * 1e3))
        return made
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Name = Annotated[str, typer.Argument(metavar="NAME", help="As `emojinet crawl list` shows it.")]
Watch = Annotated[
    bool | None,
    typer.Option(
        "--watch/--detach",
        help="Follow it until it ends, or print its name at once.",
        show_default="follow in a terminal",
    ),
]
MaxPosts = Annotated[
    int, typer.Option(min=0, help="End after so many posts.", show_default="all there are")
]
For = Annotated[
    Duration | None,
    typer.Option(
        "--for", parser=duration, metavar="60s|5m|1h|2d", help="End after so long.",
        show_default="never",
    ),
]  # fmt: skip


# -- where posts come from: each makes a request with its source ----------------------------------


def from_import(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            resolve_path=True,
            help="A .csv, .tsv, .jsonl or .parquet file with one post a row, or a folder of "
            "pictures whose sub-folders are named by emoji.",
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=COLUMN",
            help="Which column holds what, where its name does not say so. Keys: image, text, "
            "labels, author, time, segment, id.",
        ),
    ] = None,
) -> pb.StartCrawlRequest:
    """Posts are read from a file or folder of your own."""
    pairs = [text.partition("=") for text in column or ()]
    if wrong := [key for key, _, name in pairs if not name]:
        raise typer.BadParameter(f"--column {wrong[0]} lacks its column, as in text=caption")
    source = pb.ImportSource(path=str(path), columns={key: name for key, _, name in pairs})
    return pb.StartCrawlRequest(imported=source)


def from_instagram(
    base_url: Annotated[str, typer.Option(help="Such as https://api.instagram.com/v1.")],
    token_file: Annotated[
        Path, typer.Option(resolve_path=True, help="The file that holds the access token.")
    ],
) -> pb.StartCrawlRequest:
    """Posts come from a server that speaks Instagram's API v1, as of 2015."""
    source = pb.InstagramSource(base_url=base_url, token_file=str(token_file))
    return pb.StartCrawlRequest(instagram=source)


def from_bluesky(
    jetstream: Annotated[
        str, typer.Option(metavar="wss://HOST", help="The server.", show_default="a public one")
    ] = "",
    originals: Annotated[
        bool,
        typer.Option("--originals", help="Original bytes, verified, instead of scaled copies."),
    ] = False,
    cdn: Annotated[
        str, typer.Option(metavar="URL", help="Of scaled copies.", show_default="Bluesky's")
    ] = "",
    directory: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Of authors' servers.", show_default="https://plc.directory"
        ),
    ] = "",
    cursor: Annotated[
        str, typer.Option(help="Where in the stream to begin.", show_default="now")
    ] = "",
) -> pb.StartCrawlRequest:
    """Posts come from Bluesky's public stream, which has no end: say `--for` or `--max-posts`."""
    source = pb.BlueskySource(
        jetstream_url=jetstream,
        originals=originals,
        cdn_url=cdn,
        directory_url=directory,
        cursor=cursor,
    )
    return pb.StartCrawlRequest(bluesky=source)


# -- what to do with them -------------------------------------------------------------------------


def rank(
    request: pb.StartCrawlRequest,
    size: Annotated[int, typer.Option(min=1, help="How many emoji to freeze.")] = 500,
    max_posts: MaxPosts = 0,
    max_duration: For = None,
    watch: Watch = None,
    json: Json = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Count every emoji of the inventory, and freeze the most used as a vocabulary."""
    request.mode = pb.CRAWL_MODE_RANK
    request.vocabulary_size = size
    _begin(request, max_posts, max_duration, watch, json, server)


def start(
    request: pb.StartCrawlRequest,
    vocabulary: Annotated[
        str,
        typer.Option(
            metavar="RANK-…",
            help="The ranking whose emoji to collect.",
            show_default="the whole inventory",
        ),
    ] = "",
    max_hashtags: Annotated[int, typer.Option(min=1, help="In a post, at most.")] = 5,
    per_emoji: Annotated[int, typer.Option(min=1, help="Pictures for one emoji, at most.")] = 3000,
    per_author: Annotated[int, typer.Option(min=1, help="Pictures of one author, at most.")] = 100,
    max_posts: MaxPosts = 0,
    max_duration: For = None,
    watch: Watch = None,
    json: Json = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Collect the pictures of posts that pass the rules."""
    request.mode = pb.CRAWL_MODE_COLLECT
    request.vocabulary_crawl = vocabulary
    request.rules.max_hashtags = max_hashtags
    request.rules.images_per_emoji = per_emoji
    request.rules.images_per_author = per_author
    _begin(request, max_posts, max_duration, watch, json, server)


def _begin(
    request: pb.StartCrawlRequest,
    max_posts: int,
    max_duration: Duration | None,
    watch: bool | None,
    as_json: bool,
    server: str,
) -> None:
    request.max_posts = max_posts
    if max_duration:
        request.max_duration.CopyFrom(max_duration)
    with CrawlerClient(server) as client:
        crawl = client.start_crawl(request)
        if Console().is_terminal if watch is None else watch:
            _follow(client, crawl.name, as_json)
        elif as_json:
            print_json(crawl)
        else:
            print(crawl.name)


def _joined(
    source: Callable[..., pb.StartCrawlRequest], verb: Callable[..., None]
) -> Callable[..., None]:
    """A command with the parameters of both; the verb gets the request that the source makes."""
    takes = signature(source).parameters
    _, *others = signature(verb).parameters.values()

    def command(**given: Any) -> None:
        verb(source(**{name: given.pop(name) for name in takes}), **given)

    both = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*takes.values(), *others)]
    command.__signature__ = Signature(both)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
    command.__doc__ = f"{source.__doc__}\n\n{verb.__doc__}"
    return command


SOURCES: dict[str, Callable[..., pb.StartCrawlRequest]] = {
    "import": from_import,
    "instagram-v1": from_instagram,
    "bluesky": from_bluesky,
}
for _name, _source in SOURCES.items():
    _ranking.command(_name)(_joined(_source, rank))
    _collecting.command(_name)(_joined(_source, start))


@crawl.command(context_settings=PASS_ON)
def check(context: typer.Context) -> None:
    """Try a source without keeping anything: what it sends, and what the rules make of it.

    `emojinet crawl check bluesky --for 60s --record posts.jsonl` reads for a minute and records
    what came. The source is said as for `start`. It runs here, without a service, and
    needs the extra `crawler`; `emojinet crawl check import --help` lists all flags of a source.
    """
    programs.run("crawler", "check", context.args)


# -- crawls that there are ------------------------------------------------------------------------


@crawl.command()
def watch(name: Name, json: Json = False, server: Crawler = DEFAULT_SERVER) -> None:
    """Follow a crawl until it ends; Ctrl-C ends the watching, not the crawl.

    Exit status: 0 if it succeeds, 1 if it fails or is cancelled. A restart of the service does not
    end the watching.
    """
    with CrawlerClient(server) as client:
        client.get_crawl(name)  # at once, or at once an error
        _follow(client, name, json)


def _follow(client: CrawlerClient, name: str, as_json: bool) -> None:
    changes = client.watch_crawl(name, options.say)
    progress.follow(changes, f"emojinet crawl watch {name}", as_json=as_json)


@crawl.command("list")
def list_(json: Json = False, server: Crawler = DEFAULT_SERVER) -> None:
    """List all crawls, the newest first."""
    with CrawlerClient(server) as client:
        crawls = client.list_crawls()
    if json:
        for crawl in crawls:
            print_json(crawl)
        return
    table = columns("name", "state", "source", "posts>", "kept>", "pictures>", "started")
    for crawl in crawls:
        table.add_row(
            printable_text(crawl.name),
            state_name(crawl.state),
            printable_text(_source_of(crawl.request)),
            f"{tally(crawl.funnel, 'post'):,}",
            f"{tally(crawl.funnel, 'post', 'kept', 'counted'):,}",
            f"{tally(crawl.funnel, 'image', 'stored', 'duplicate'):,}",
            when(crawl.create_time),
        )
    Console().print(table if crawls else "No crawl yet: `emojinet crawl start --help`.")


@crawl.command()
def show(
    name: Name,
    top: Annotated[int, typer.Option(min=0, help="Emoji of its vocabulary to show.")] = 20,
    plot: Annotated[
        Path | None, typer.Option(help="Also a PNG: use over rank, the extremes named.")
    ] = None,
    json: Json = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Show what was asked of a crawl, what became of it, and the vocabulary of a ranking."""
    with CrawlerClient(server) as client:
        crawl = client.get_crawl(name)
    if plot:
        with options.needs("report"):
            import matplotlib.figure  # noqa: F401
        _check_ranked(crawl)
        with options.opened(plot) as out:
            counts.draw(crawl.vocabulary, out.buffer)
    if json:
        print_json(crawl)
        return
    console = Console()
    console.print(progress.view(crawl, _facts(crawl.request)))
    if crawl.vocabulary and top:
        console.print(counts.table(crawl.vocabulary[:top]))
        console.print(f"{len(crawl.vocabulary)} emoji in all: `emojinet crawl vocabulary {name}`")


@crawl.command()
def cancel(name: Name, json: Json = False, server: Crawler = DEFAULT_SERVER) -> None:
    """End a crawl; what it found stays. Cancelling one that has ended changes nothing."""
    with CrawlerClient(server) as client:
        crawl = client.cancel_crawl(name)
    if json:
        print_json(crawl)
    else:
        print(f"{crawl.name} {state_name(crawl.state)}")


@crawl.command()
def vocabulary(
    name: Name,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json|FILE.csv", help="Where to write.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
    server: Crawler = DEFAULT_SERVER,
) -> None:
    """Print or write the vocabulary of a ranking: its emoji, most used first, with their counts."""
    if output and output.suffix not in (".json", ".csv"):
        raise typer.BadParameter(f"--output {output} ends neither in .json nor in .csv")
    with CrawlerClient(server) as client:
        crawl = client.get_crawl(name)
    _check_ranked(crawl)
    if output:
        with options.opened(output) as out:
            if output.suffix == ".json":
                out.write(counts.text(crawl.vocabulary))
            else:
                csv.writer(out).writerows([counts.COLUMNS, *counts.rows(crawl.vocabulary)])
    elif json:
        print(counts.text(crawl.vocabulary), end="")
    else:
        Console().print(counts.table(crawl.vocabulary))


def _check_ranked(crawl: pb.Crawl) -> None:
    if not crawl.vocabulary:
        raise typer.BadParameter(
            f"{crawl.name} ({state_name(crawl.state)}) has no vocabulary: name a `rank` crawl that "
            "has succeeded"
        )


def _source_of(request: pb.StartCrawlRequest) -> str:
    match request.WhichOneof("source"):
        case "imported":
            return f"import {request.imported.path}"
        case "instagram":
            return f"instagram-v1 {request.instagram.base_url}"
        case "bluesky":
            return f"bluesky {request.bluesky.jetstream_url}".strip()
    return "unknown"


def _facts(request: pb.StartCrawlRequest) -> dict[str, str]:
    """What was asked for, for people."""
    rules = request.rules
    facts = {
        "source": _source_of(request),
        "vocabulary": request.vocabulary_crawl,
        "rules": ", ".join(
            f"{number:,} {what}"
            for number, what in (
                (rules.max_hashtags, "hashtags"),
                (rules.images_per_emoji, "per emoji"),
                (rules.images_per_author, "per author"),
            )
            if number
        ),
        "posts": f"{request.max_posts:,} at most" if request.max_posts else "",
        "time": f"{request.max_duration.ToTimedelta()} at most"
        if request.HasField("max_duration")
        else "",
    }
    return {key: value for key, value in facts.items() if value}
