"""The images, built on this machine from a Debian that is made on the spot, by buildah alone."""

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
BASE = "localhost/emojinet-base:12"
INCLUDED = "ca-certificates,python3"
MIRROR = "http://deb.debian.org/debian"
TREES = (
    *(f"usr/share/{tree}" for tree in ("doc", "info", "locale", "man")),
    *("var/cache/apt", "var/lib/apt/lists"),
)
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # a company's proxy is among them, too


class Store:
    """A folder with images, and with what was built on the way to them."""

    def __init__(self, folder: Path, driver: str = "overlay") -> None:
        self.folder = folder
        (folder / "run").mkdir(parents=True, exist_ok=True)
        configuration = folder / "storage.conf"
        configuration.write_text(
            f'[storage]\ndriver = "{driver}"\n'
            f'graphroot = "{folder / "images"}"\nrunroot = "{folder / "run"}"\n'
            '[storage.options.overlay]\nskip_mount_home = "true"\n'  # so that `rm -r` can end it
        )
        self.environment = os.environ | {
            "BUILDER": "buildah",
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_LAYERS": "true",
            "CONTAINERS_STORAGE_CONF": str(configuration),
        }
        self.buildah("rm", "--all")  # of a run that was killed, with its mounts

    def buildah(self, *arguments: str) -> str:
        """What it printed."""
        done = subprocess.run(
            ["buildah", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        return self.buildah("images", "--quiet", "--filter", f"reference={image}") != ""

    def make_base(self) -> None:
        """Debian 12 with apt, as small as docker.io's: without documents and translations."""
        container = self.buildah("from", "scratch")
        try:
            root = Path(self.buildah("mount", container))
            command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm"]
            subprocess.run([*command, str(root), MIRROR], check=True, capture_output=True)
            shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
            subprocess.run(["rm", "-rf", *(root / tree for tree in TREES)], check=True)
            self.buildah("commit", "--quiet", container, BASE)
        finally:
            self.buildah("rm", container)

    def build(self, *images: str, flags: str = "", **settings: str) -> None:
        """As `make images` does it, from our base and by what is here."""
        environment = {"BASE": BASE, "IMAGES": " ".join(images), "TORCH_INDEX": "", **settings}
        environment["FLAGS"] = f"--pull-never {flags}"
        done = subprocess.run(
            [ROOT / "k8s/images.sh", "build"],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    def mb(self, name: str) -> float:
        """What an image takes uncompressed, all layers together."""
        image = f"emojinet-{name}:{VERSION}"
        said, unit = self.buildah("images", "--format={{.Size}}", image).split()
        return float(said) * {"MB": 1, "GB": 1000}[unit]

    @contextmanager
    def mounted(self, name: str) -> Iterator["Mounted"]:
        """A container of an image, not running: its files are there to be looked at."""
        container = self.buildah("from", "--pull-never", f"emojinet-{name}:{VERSION}")
        try:
            inspected = json.loads(self.buildah("inspect", "--type=container", container))
            root = Path(self.buildah("mount", container))
            yield Mounted(name, root, inspected["OCIv1"]["config"])
        finally:
            self.buildah("rm", container)


class Mounted(NamedTuple):
    """The files of an image, and how it says that it is run."""

    name: str
    root: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (each.partition("=") for each in self.config["Env"])
        return {name: value for name, _, value in pairs}

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Everything in it, with the path that it has inside."""
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(folder, name)
                yield Path("/", path.relative_to(self.root)), path.lstat()
