"""What several commands of the command line share: flags, and how a missing extra is told."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

Server = Annotated[
    str, typer.Option(envvar="EMOJINET_SERVER", help="Address of the inference service.")
]
Crawler = Annotated[
    str, typer.Option(envvar="EMOJINET_CRAWLER", help="Address of the crawler service.")
]
Trainer = Annotated[
    str, typer.Option(envvar="EMOJINET_TRAINER", help="Address of the trainer service.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Print its name at once, and do not follow.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs: an object a line.")]
Registry = Annotated[
    Path | None,
    typer.Option(
        envvar="EMOJINET_REGISTRY", help="The folder of models.", show_default="data/registry"
    ),
]

Host = Annotated[str, typer.Option(envvar="EMOJINET_HOST", help="Address to listen on.")]
TlsCert = Annotated[
    Path | None,
    typer.Option(envvar="EMOJINET_TLS_CERT", help="Speak HTTPS: our certificate and its chain."),
]
TlsKey = Annotated[
    Path | None, typer.Option(envvar="EMOJINET_TLS_KEY", help="Its key, without a password.")
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", envvar="EMOJINET_INSECURE", help="Speak HTTP beyond loopback, too."),
]
AllowAddresses = Annotated[
    str,
    typer.Option(
        envvar="EMOJINET_ALLOW_ADDRESSES",
        help="Private networks from which pictures may be fetched, such as an intranet's.",
    ),
]


def registry_or_default(registry: Path | None) -> Path:
    """Where services look, too, when nothing is said."""
    return registry or Path(os.environ.get("EMOJINET_DATA", "data")) / "registry"


def say(line: str) -> None:
    """To people, beside what programs read."""
    print(line, file=sys.stderr)


def finite(value: float | None) -> float | None:
    """Refuses `nan` and `inf`, which pass any test of a range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turns an import that fails within into one line that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise typer.TyperException(
            f"this needs the package {missing.name}: pip install 'emojinet[{extra}]'"
        ) from missing


def opened(output: Path) -> TextIO:
    """`output` for writing as UTF-8, whatever is in the text; or one line that says why not."""
    try:
        return output.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise typer.TyperException(f"cannot write {output}: {error.strerror}") from error
