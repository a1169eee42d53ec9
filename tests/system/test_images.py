"""The images that k8s/base runs: built here, looked at, and run as a kubelet would."""

import json
import re
import shutil
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from clients.client import Client
from clients.demo import free_port, is_ready
from services.shared import registry
from services.shared.photographs import installed
from tests.clients.commandline import emojinet
from tests.system.confined import USER, listening, made_volumes, started
from tests.system.images import BASE, VERSION, Mounted, Store

pytestmark = pytest.mark.system
IMAGES = ("crawler", "inference", "web")  # the trainer's holds PyTorch: `make prove-images`
LIMITS_MB = {"crawler": 550, "inference": 650, "web": 400}
PACKAGES = Path("opt/emojinet/lib/python3.11/site-packages")
SHARE = Path("opt/emojinet/share/emojinet")
COMPILER = re.compile(r"(.+-)?(ar|as|c\+\+|cc|clang|cpp|g\+\+|gcc|ld|make|pip3?|rustc)(-?[\d.]+)?")
WRITABLE = ("/data", "/dev", "/run/lock", "/tmp", "/var/tmp")
CAT = next(path for path in installed() if path.name == "chelsea.png")
SECONDS = 60.0


@pytest.fixture(scope="module")
def store(
    pytestconfig: pytest.Config, starter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    """With the images; it is kept for the next time."""
    store = Store(pytestconfig.cache.mkdir("images"))
    if not store.has(BASE):
        store.make_base()
    # In place of the stage that builds it with PyTorch: the same, built beside us.
    made = tmp_path_factory.mktemp("made")
    shutil.copytree(starter.parents[1], made / "registry")
    store.build(*IMAGES, flags=f"--build-context=starter={made}")
    store.buildah("rmi", "--prune")  # every change of ours would leave a gigabyte
    return store


@pytest.fixture(scope="module")
def images(store: Store) -> Iterator[dict[str, Mounted]]:
    """Their files."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(store.mounted(name)) for name in IMAGES}


@pytest.fixture(params=IMAGES)
def image(images: dict[str, Mounted], request: pytest.FixtureRequest) -> Mounted:
    """Each in turn."""
    return images[request.param]


# -- what is in them ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_stays_small(store: Store, name: str) -> None:
    assert store.mb(name) < LIMITS_MB[name]


def test_nothing_in_it_makes_programs_or_trains(image: Mounted) -> None:
    programs = {
        path.name
        for path, status in image.files()
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111 and path.suffix != ".so"
    }
    assert [name for name in programs if COMPILER.fullmatch(name)] == []
    packages = {path.name for path in (image.root / PACKAGES).iterdir()}
    assert packages & {"pip", "setuptools", "torch", "torchvision", "timm", "nvidia"} == set()
    assert {"services", "emojinet"} <= packages


def test_nobody_in_it_becomes_root_or_changes_what_runs(image: Mounted) -> None:
    for path, status in image.files():
        assert status.st_mode & (stat.S_ISUID | stat.S_ISGID) == 0 or path.is_dir(), path
        if not str(path).startswith(WRITABLE) and not stat.S_ISLNK(status.st_mode):
            assert status.st_uid != USER, path
            assert status.st_mode & stat.S_IWOTH == 0, path


def test_it_has_no_caches_and_is_compiled_already(image: Mounted) -> None:
    found = [path for path, _ in image.files()]
    for folder in ("/root/.cache", "/var/lib/apt/lists", "/var/cache/apt"):
        assert [path for path in found if folder in map(str, path.parents)] == []
    compiled = image.root / PACKAGES / "services/shared/__pycache__/model.cpython-311.pyc"
    # Believed without a look at the source: its time may be another in an image.
    assert compiled.read_bytes()[4] == 0b01


def test_it_says_what_is_in_it(image: Mounted) -> None:
    text = (image.root / SHARE / "sbom.cdx.json").read_text()
    bill = json.loads(text)
    validator = JsonStrictValidator(SchemaVersion.from_version(bill["specVersion"]))
    assert validator.validate_str(text) is None
    there = {d.name: d.version for d in distributions(path=[str(image.root / PACKAGES)])}
    listed = {each["name"]: each["version"] for each in bill["components"]}
    listed[bill["metadata"]["component"]["name"]] = there["emojinet"]
    assert listed == there
    assert ("openvino" in there) == (image.name == "inference")
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"emojinet-{image.name}"
    assert labels["org.opencontainers.image.version"] == VERSION


# -- how they run ---------------------------------------------------------------------------------


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Path]:
    return made_volumes(tmp_path)


def test_inference_serves_the_starter_that_it_brings_and_the_page_asks_it(
    images: dict[str, Mounted], volumes: dict[str, Path]
) -> None:
    for _ in range(2):  # a pod that is started again does it again
        with started(images["inference"], "starter", volumes) as copying:
            assert copying.wait(SECONDS) == 0
        live = registry.live(volumes["registry"])
        assert live is not None
    address, ports = listening()
    with started(images["inference"], "inference", volumes, **ports) as serving:
        assert is_ready(address, serving)
        with Client(address) as client:
            (result,) = client.suggest(
                [CAT.read_bytes()], timeout=10, include_embedding=True, explain_emoji="🐱"
            ).results
        assert result.suggestions.suggestions[0].emoji in "🐱🐈"
        port = free_port()
        flags = {"EMOJINET_SERVER": address, "EMOJINET_HOST": "127.0.0.1"}
        with started(images["web"], "web", volumes, f"--port={port}", **flags) as page:
            assert '"emoji":"🐱"' in asked(port, page).replace(" ", "")
    assert serving.returncode == 0


def asked(port: int, page: "subprocess.Popen[bytes]") -> str:
    """What the page answers for a cat, once it is there."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/suggest", CAT.read_bytes(), {"Content-Type": "image/png"}
    )
    while True:
        assert page.poll() is None
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            time.sleep(0.1)


def test_the_crawler_reads_a_table_freezes_a_data_set_and_exports_it(
    images: dict[str, Mounted], volumes: dict[str, Path]
) -> None:
    pictures = [path for path in installed() if path.suffix == ".jpg"]
    posts = volumes["data"] / "posts"
    posts.mkdir()
    for path in pictures:
        shutil.copy(path, posts)
    rows = {
        "image": [path.name for path in pictures],
        "text": [f"{path.stem} 🚀" for path in pictures],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), posts / "posts.parquet")
    address, ports = listening()
    with started(images["crawler"], "crawler", volumes, **ports) as serving:
        assert is_ready(address, serving)
        for command in (
            ["crawl", "start", "import", "/data/posts/posts.parquet", "--watch"],
            ["dataset", "create", "--name=first"],
        ):
            done = emojinet(*command, EMOJINET_CRAWLER=address)
            assert done.returncode == 0, done.stderr
    assert serving.returncode == 0
    verbs = (["verify"], ["export", "--to=parquet", "--output=/data/first.parquet"])
    for verb, *flags in verbs:
        arguments = [verb, "/data/datasets/first", *flags]
        with started(images["crawler"], "crawler", volumes, *arguments) as running:
            assert running.wait(SECONDS) == 0
    assert pyarrow.parquet.read_table(volumes["data"] / "first.parquet").num_rows == len(pictures)
