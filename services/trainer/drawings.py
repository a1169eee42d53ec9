"""Drawings of emoji under free licences, fetched once: `python -m services.trainer.drawings`.

They teach the starter to recognise drawn emoji and stickers, and what hands look like. Packages of
npm have them all; each is pinned by version and by its sha512, and nothing is kept in the
repository.
"""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

FOLDER = Path("data/drawings")


class Vendor(NamedTuple):
    """Where one set of drawings is, and under which licence."""

    name: str
    package: str
    sha512: str
    """Of the package, as its lock files write it."""
    folder: str
    """In the package; a drawing is named after its code points."""
    licence: str


VENDORS = (
    Vendor(
        "noto",
        "emoji-datasource-google@16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        "package/img/google/64",
        "Noto Emoji, Apache-2.0, © Google",
    ),
    Vendor(
        "twemoji",
        "emoji-datasource-twitter@16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        "package/img/twitter/64",
        "Twemoji, CC-BY-4.0, © Twitter and contributors",
    ),
    Vendor(
        "fluent",
        "@lobehub/fluent-emoji-3d@1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "package/assets",
        "Fluent Emoji, MIT, © Microsoft",
    ),
    Vendor(
        "emojione",
        "emojione@2.2.7",
        "Gbf8qysc34+TFUS5HPwOUY62v8gjLuPmfVTWUR/zirULSYUe/D3MrvYo0W5Y2gScF1YI7EBe5t81IbD8q144Ag==",
        "package/assets/png",
        "EmojiOne 2, CC-BY-4.0, © Ranks.com",
    ),
)
STARTERS = VENDORS[:3]
"""Those that the starter has learned from."""


def fetch(folder: Path = FOLDER) -> None:
    """Fetches the sets that are not there yet, about 250 MB in all.

    Raises:
        ValueError: a package is not the one that was pinned.
    """
    for vendor in VENDORS:
        if (folder / vendor.name).exists():
            continue
        print(f"fetching {vendor.package} …", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as staged:
            command = ["npm", "pack", "--silent", vendor.package]
            subprocess.run(command, cwd=staged, check=True, stdout=subprocess.DEVNULL)
            (package,) = Path(staged).glob("*.tgz")
            digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
            if digest != vendor.sha512:
                raise ValueError(f"{vendor.package} is not the package that was pinned: {digest}")
            drawn = Path(staged) / vendor.name
            drawn.mkdir()
            _extract(package, vendor.folder, drawn)
            drawn.rename(folder / vendor.name)  # whole or not at all


def _extract(package: Path, folder: str, into: Path) -> None:
    with tarfile.open(package) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isfile() and str(path.parent) == folder:
                content = tar.extractfile(member)
                assert content is not None
                (into / _key(path.stem)).with_suffix(path.suffix).write_bytes(content.read())


def _key(name: str) -> str:
    """One way to write code points: without leading zeros and without U+FE0F."""
    points = (point.lstrip("0") for point in name.lower().split("-"))
    return "-".join(point for point in points if point != "fe0f")


def find(vendor: str, emoji: str, folder: Path = FOLDER) -> Path | None:
    """The drawing of an emoji, in any skin tone."""
    key = _key("-".join(f"{ord(character):x}" for character in emoji))
    paths = (folder / vendor / (key + suffix) for suffix in (".png", ".webp"))
    return next((path for path in paths if path.exists()), None)


if __name__ == "__main__":
    fetch(*map(Path, sys.argv[1:2]))
