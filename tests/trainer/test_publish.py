"""A trained network becomes a model only if it is of use, and computes what it says."""

import json
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from services.shared import model, network, pixels, registry
from services.shared.errors import (
    BadDataset,
    BadModel,
    NotReady,
    StorageFailed,
    TrainingFailed,
    UselessModel,
)
from services.shared.model import Architecture, Preprocessing
from services.shared.vocabulary import Vocabulary
from services.trainer import publish
from tests.prove import damaged

EMOJI = ("🚗", "🌅", "🍕", "🦀")
ARCHITECTURE = Architecture(backbone="test_efficientnet", features=256, head="linear")
PREPROCESSING = Preprocessing(
    size_px=64, crop=0.875, mean=(0.5,) * 3, std=(0.25,) * 3, decode_version=pixels.VERSION
)


def picture(seed: int, form: str = "JPEG", size: tuple[int, int] = (96, 80)) -> bytes:
    """A few colours that run into each other."""
    draw = np.random.default_rng(seed)
    file = BytesIO()
    few = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8))
    few.resize(size, Image.Resampling.BICUBIC).save(file, form)
    return file.getvalue()


class Pictures(NamedTuple):
    """A validation split in memory."""

    contents: list[bytes]
    classes: list[tuple[int, ...]]

    @property
    def keys(self) -> list[str]:
        return [sha256(content).hexdigest() for content in self.contents]

    def read(self, number: int) -> bytes:
        if not self.contents[number]:
            raise BadDataset("broken")
        return self.contents[number]


def split(count: int = 24) -> Pictures:
    return Pictures([picture(n) for n in range(count)], [(n % len(EMOJI),) for n in range(count)])


def build(folder: Path, seed: int = 1, validation: Pictures | None = None) -> model.Model:
    torch.manual_seed(seed)
    net = network.Network(ARCHITECTURE, PREPROCESSING, len(EMOJI))
    return publish.build(
        folder,
        name="tried",
        learner_net=net.train(),  # as a learner might leave it
        architecture=ARCHITECTURE,
        preprocessing=PREPROCESSING,
        vocabulary=Vocabulary(EMOJI, (9, 5, 3, 1)),
        temperature=0.8,
        validation=validation or split(),
        card="# tried\n",
    )


def judge(run: Path, top5: list[float], prior: list[float]) -> Path:
    """The evaluation of a run, as `outcome` keeps it; returns where its model belongs."""
    run.mkdir(exist_ok=True)
    said: dict[str, Any] = {
        "test": {
            "calibrated": {"metrics": {"top1": top5, "top5": top5}},
            "prior": {"metrics": {"top1": prior, "top5": prior}},
        }
    }
    (run / publish.EVALUATION).write_text(json.dumps(said))
    return run / "model"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good run's model; do not write to it."""
    folder = judge(tmp_path_factory.mktemp("run"), [0.5, 0.4, 0.6], [0.2, 0.1, 0.3])
    build(folder)
    return folder


# -- probes ---------------------------------------------------------------------------------------


def test_probes_show_every_emoji_in_turn() -> None:
    crowd = Pictures([picture(n) for n in range(20)], [(0,)] * 14 + [(1,)] * 4 + [(2, 3), (3,)])
    jpegs = publish.probe_jpegs(crowd)
    assert sorted(jpegs) == sorted(crowd.contents)
    shown = [crowd.classes[crowd.contents.index(jpeg)][0] for jpeg in jpegs]
    assert set(shown[:4]) == {0, 1, 2, 3}
    assert shown[-10:] == [0] * 10


def test_the_same_split_gives_the_same_probes() -> None:
    assert publish.probe_jpegs(split()) == publish.probe_jpegs(split())


def test_pictures_that_cannot_be_read_or_decoded_are_no_probes() -> None:
    sound = [picture(n) for n in range(3)]
    mixed = Pictures([b"", b"no picture", *sound, sound[0][:200]], [(0,)] * 6)
    assert sorted(publish.probe_jpegs(mixed)) == sorted(sound)


def test_a_split_without_a_picture_that_can_be_read_makes_no_model() -> None:
    with pytest.raises(TrainingFailed, match="validation split"):
        publish.probe_jpegs(Pictures([b"", b"no picture"], [(0,), (1,)]))


def test_large_pictures_and_other_formats_become_small_jpegs() -> None:
    large = Pictures(
        [picture(1, "PNG"), picture(2, "WEBP"), picture(3, "BMP", (900, 700))], [(0,)] * 3
    )
    jpegs = publish.probe_jpegs(large)
    sizes = [Image.open(BytesIO(jpeg)).size for jpeg in jpegs]
    assert all(jpeg.startswith(b"\xff\xd8\xff") for jpeg in jpegs)
    assert max(min(size) for size in sizes) == 256


def test_probes_keep_to_what_a_model_may_carry() -> None:
    noisy = BytesIO()
    draw = np.random.default_rng(1)
    Image.fromarray(draw.integers(0, 256, (250, 250, 3), np.uint8)).save(noisy, "JPEG", quality=60)
    jpegs = publish.probe_jpegs(Pictures([noisy.getvalue()] * 400, [(0,)] * 400))
    assert 4 < sum(map(len, jpegs)) / (1 << 20) <= model.MAX_PROBE_BYTES / (1 << 20)


# -- judged ---------------------------------------------------------------------------------------


def metrics(**values: list[float]) -> dict[str, list[float]]:
    return values


def test_a_model_beyond_the_prior_is_good_enough() -> None:
    prior = metrics(top1=[0.1, 0.1, 0.1], top5=[0.3, 0.2, 0.4])
    publish.held_out(metrics(top1=[0.0, 0.0, 0.0], top5=[0.35, 0.31, 0.4]), prior)


@pytest.mark.parametrize(
    "top5", [[0.3, 0.25, 0.35], [0.2, 0.1, 0.25], [0.31, 0.3, 0.4], [float("nan")] * 3]
)
def test_a_model_no_better_than_the_prior_is_useless(top5: list[float]) -> None:
    prior = metrics(top1=[0.1, 0.1, 0.1], top5=[0.3, 0.2, 0.4])
    with pytest.raises(UselessModel, match="top5"):
        publish.held_out(metrics(top1=[0.9, 0.8, 1.0], top5=top5), prior)


def test_where_five_are_nearly_all_the_first_decides() -> None:
    prior = metrics(top1=[0.4, 0.3, 0.5], top5=[1.0, 1.0, 1.0])
    publish.held_out(metrics(top1=[0.6, 0.5, 0.7], top5=[1.0, 1.0, 1.0]), prior)
    with pytest.raises(UselessModel, match="top1"):
        publish.held_out(metrics(top1=[0.4, 0.3, 0.5], top5=[1.0, 1.0, 1.0]), prior)


@pytest.mark.parametrize("said", [{}, {"top5": []}, {"top5": [None]}, {"top5": 3}])
def test_an_evaluation_without_figures_judges_nothing(said: Any) -> None:
    with pytest.raises(NotReady):
        publish.held_out(said, {"top5": [0.1]})
    with pytest.raises(NotReady):
        publish.held_out({"top5": [0.1, 0.1, 0.1]}, said)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"test": {}}', b"\xff", b"[" * 9999])
def test_a_run_that_was_not_judged_is_not_published(
    tiny: Path, tmp_path: Path, content: bytes | None
) -> None:
    shutil.copytree(tiny, tmp_path / "run" / "model")
    if content is not None:
        (tmp_path / "run" / publish.EVALUATION).write_bytes(content)
    with pytest.raises(NotReady, match=r"evaluation\.json"):
        publish.publish(tmp_path / "registry", tmp_path / "run" / "model")
    assert not (tmp_path / "registry").exists()


def test_a_run_without_a_model_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no model"):
        publish.publish(tmp_path / "registry", judge(tmp_path, [0.5, 0.4, 0.6], [0.1] * 3))


def test_a_useless_model_is_not_published(tiny: Path, tmp_path: Path) -> None:
    folder = judge(tmp_path, [0.2, 0.1, 0.3], [0.2, 0.1, 0.3])
    shutil.copytree(tiny, folder)
    with pytest.raises(UselessModel):
        publish.publish(tmp_path / "registry", folder)
    assert not (tmp_path / "registry").exists()


# -- built and proven (with torch and OpenVINO) ---------------------------------------------------


@pytest.mark.system
def test_a_built_model_is_whole_and_carries_its_probes(built: Path) -> None:
    made = model.load(built).check()
    assert made.vocabulary.emoji == EMOJI
    assert made.calibration.temperature == 0.8
    assert made.probes().logits.shape == (24, 4)
    assert {"openvino.xml", "openvino.bin"} <= made.files.keys()
    assert publish.prove(made) is made
    assert sorted(path.name for path in built.parent.iterdir()) == [publish.EVALUATION, "model"]


@pytest.mark.system
def test_building_again_replaces_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / ".model-half" / "model").mkdir(parents=True)
    made = build(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert made.folder == tmp_path / "model"


@pytest.mark.system
def test_weights_that_are_not_finite_make_no_model(tmp_path: Path) -> None:
    net = network.Network(ARCHITECTURE, PREPROCESSING, len(EMOJI))
    with torch.no_grad():
        net.head.bias[0] = torch.nan
    with pytest.raises(BadModel, match="not finite"):
        publish.build(
            tmp_path / "model",
            name="tried",
            learner_net=net,
            architecture=ARCHITECTURE,
            preprocessing=PREPROCESSING,
            vocabulary=Vocabulary(EMOJI, (1,) * 4),
            temperature=1.0,
            validation=split(4),
            card="",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
def test_publishing_copies_the_model_and_turns_nothing(built: Path, tmp_path: Path) -> None:
    which = publish.publish(tmp_path / "new" / "registry", built)
    assert model.load(built).check().version == which.version
    assert registry.load(tmp_path / "new" / "registry", which).check()
    assert registry.live(tmp_path / "new" / "registry") is None
    assert publish.publish(tmp_path / "new" / "registry", built) == which


@pytest.mark.system
def test_several_may_publish_the_same_model_at_once(built: Path, tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def one(_: int) -> registry.Live:
        together.wait()
        return publish.publish(tmp_path / "registry", built)

    with ThreadPoolExecutor(4) as threads:
        (which,) = set(threads.map(one, range(4)))
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["tried"]
    assert publish.verify(tmp_path / "registry", which)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files end after 100 KB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.system
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(built: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot be written"):
        publish.publish(tmp_path / "registry", built)
    assert list((tmp_path / "registry").iterdir()) == []
    with pytest.raises(StorageFailed, match="cannot be written"):
        build(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["registry"]


@pytest.mark.system
@pytest.mark.parametrize("root", ["/proc/registry", "/dev/null", "/sys/registry"])
def test_a_registry_that_cannot_be_written_is_said_in_a_line(built: Path, root: str) -> None:
    with pytest.raises(StorageFailed, match=f"{root} cannot be written"):
        publish.publish(Path(root), built)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> model.Model:
    """One whose network has another shape."""
    backbone, size = "test_resnet", len(EMOJI)
    architecture = Architecture(backbone=backbone, features=96, head="linear")
    return publish.build(
        tmp_path_factory.mktemp("other") / "model",
        name="other",
        learner_net=network.Network(architecture, PREPROCESSING, size),
        architecture=architecture,
        preprocessing=PREPROCESSING,
        vocabulary=Vocabulary(EMOJI, (1,) * size),
        temperature=1.0,
        validation=split(4),
        card="",
    )


@pytest.mark.system
def test_no_model_that_was_damaged_by_hand_is_verified(
    built: Path, other: model.Model, tmp_path: Path
) -> None:
    good = publish.publish(tmp_path, built)
    bad = damaged.all_kinds(tmp_path, registry.load(tmp_path, good), other)
    assert len(bad) >= 10
    for kind, which in bad.items():
        with pytest.raises(BadModel) as caught:
            publish.verify(tmp_path, which)
        assert "\n" not in str(caught.value), kind
    assert publish.verify(tmp_path, good)
