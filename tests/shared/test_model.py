import hashlib
import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.shared import model, pixels
from services.shared.errors import BadModel
from services.shared.model import MANIFEST, SIZE_LIMITS, Model, Probes
from services.shared.vocabulary import Vocabulary

# The fixture is only read: every example has a copy of its own.
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

FILES = [MANIFEST, "model.json", "vocabulary.json", "card.md"]
FILES += ["weights.safetensors", "probes.safetensors"]
HOSTILE_NUMBERS = [10**400, -(10**400), 1e308, -0.0, float("nan"), float("inf"), True, 2**63, 1.0]
HOSTILE_TEXTS = ["", "\ud800", "a\nb", "../x", "x" * 100_000, "\0", "é" * 64, "0" * 64]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(HOSTILE_NUMBERS)
    | st.sampled_from(HOSTILE_TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A copy of a model, to be damaged."""
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(shutil.copytree(folder, Path(temporary) / "model"))


def usable(folder: Path) -> Model:
    return model.load(folder).check()


def refusal(folder: Path, look: Callable[[Path], object] = usable) -> str:
    """What the model is refused with, which is always one sentence that names its folder."""
    with pytest.raises(BadModel) as caught:
        look(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert len(message) < len(str(folder)) + 400
    assert message.isprintable()
    assert caught.value.metadata == {"path": str(folder)}
    return message


def publish_again(folder: Path, name: str, content: bytes) -> None:
    """Replaces a file and says so in the manifest, as a hostile publisher would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def change(facts: Any, path: tuple[str, ...], value: object) -> bytes:
    """The JSON with another value at the path."""
    *parents, last = path
    inner = facts
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return json.dumps(facts).encode()


def paths(facts: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every way down the objects of a JSON value."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            yield (*path, key)
            yield from paths(value, (*path, key))


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    facts: dict[str, Any] = {
        "architecture": model.Architecture(
            backbone="resnet18", features=4, head="projected", classes=3
        ),
        "preprocessing": model.Preprocessing(
            size_px=64,
            crop=0.9,
            mean=(0.1, 0.2, 0.3),
            std=(0.4, 0.5, 0.6),
            decode_version=pixels.VERSION,
        ),
        "calibration": model.Calibration(temperature=2.0, none=True),
        "vocabulary": Vocabulary(("🍕", "❤️"), (3, 4)),
        "card": "# Ein Modell für 🍕",
    }
    weights = {
        "head.classifier.weight": draw.normal(size=(3, 4)).astype(np.float32),
        "head.classifier.bias": np.zeros(3, np.float32),
        "head.table_CK": np.ones((3, 3), np.float32),
        "batches": np.array(5),
    }
    probes = Probes([b"one", b"two!"], draw.normal(size=(2, 3)).astype(np.float32))
    openvino = {"openvino.xml": b"<net/>", "openvino.bin": b"123"}

    written = model.write(
        tmp_path / "m", name="m", weights=weights, probes=probes, openvino=openvino, **facts
    )
    read = model.load(tmp_path / "m")

    assert read == written
    assert {name: getattr(read, name) for name in facts} == facts
    assert read.weights().keys() == weights.keys()
    assert all((read.weights()[name] == array).all() for name, array in weights.items())
    assert read.probes().jpegs == probes.jpegs
    assert (read.probes().logits == probes.logits).all()
    assert {name: read.read(name) for name in openvino} == openvino
    assert read.outputs == 3


def test_weights_that_lie_otherwise_in_memory_are_written_as_they_read(
    tiny: Path, tmp_path: Path
) -> None:
    weights = model.load(tiny).weights()
    turned = weights | {"head.weight": np.asfortranarray(weights["head.weight"])}

    assert (
        written(tiny, tmp_path / "m", weights=turned)["head.weight"] == turned["head.weight"]
    ).all()


def written(like: Path, folder: Path, **changed: Any) -> model.Arrays:
    """The weights of a model that was written as another one, but for some parts."""
    other = model.load(like)
    parts: dict[str, Any] = {
        name: getattr(other, name)
        for name in ("name", "architecture", "preprocessing", "calibration", "vocabulary", "card")
    }
    parts |= {"weights": other.weights(), "probes": other.probes(), "openvino": {}}
    return model.write(folder, **(parts | changed)).weights()


def test_the_version_is_that_of_the_content(tiny: Path, tmp_path: Path) -> None:
    weights = model.load(tiny).weights()
    written(tiny, tmp_path / "same")
    written(tiny, tmp_path / "other", weights=weights | {"head.bias": weights["head.bias"] + 1})

    assert model.load(tmp_path / "same").version == model.load(tiny).version
    assert model.load(tmp_path / "other").version != model.load(tiny).version


def test_a_model_is_written_once(tiny: Path, tmp_path: Path) -> None:
    written(tiny, tmp_path / "m")
    with pytest.raises(FileExistsError, match="a model is written once"):
        written(tiny, tmp_path / "m")
    assert usable(tmp_path / "m")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../up"},
        {"name": "Übermodell"},
        {"vocabulary": Vocabulary(("🍕",), (1,))},
        {"probes": Probes([], np.zeros((0, 5), np.float32))},
        {"probes": Probes([b"x"], np.full((1, 5), np.nan, np.float32))},
        {"weights": {}},
        {"openvino": {"surprise.sh": b""}},
    ],
)
def test_what_makes_no_usable_model_leaves_no_folder(
    tiny: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    with pytest.raises(BadModel):
        written(tiny, tmp_path / "m", **changed)
    assert not (tmp_path / "m").exists()


def test_probabilities_sum_to_one_and_what_is_none_of_these_is_not_an_emoji(tiny: Path) -> None:
    plain = model.load(tiny)
    with_none = replace(plain, calibration=model.Calibration(temperature=0.5, none=True))
    logits = np.array([[1000.0, 999.0, 0.0, 0.0, 0.0, 1000.0]], np.float32)

    assert plain.probabilities(logits[:, :5]).sum() == pytest.approx(1)
    likely = with_none.probabilities(logits)
    assert likely.shape == (1, 5)
    assert likely[0, :2] == pytest.approx([1 / (2 + np.exp(-2)), np.exp(-2) / (2 + np.exp(-2))])


@pytest.mark.parametrize("folder", ["absent", "a" * 5000, "with\0nul", "file/inside"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadModel, match=r"^There is no model folder .*\.$"):
        model.load(tmp_path / folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tiny: Path, name: str) -> None:
    with copied(tiny) as folder:
        (folder / name).unlink()
        assert f"{name} cannot be read: No such file" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_place_of_a_file_is_not_followed(tiny: Path, name: str) -> None:
    with copied(tiny) as folder:
        (folder / name).unlink()
        (folder / name).symlink_to(tiny / name)
        assert f"{name} cannot be read: it is a link" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_neither_read_nor_waited_for(
    tiny: Path, name: str, make: Callable[[Path], None]
) -> None:
    with copied(tiny) as folder:
        (folder / name).unlink()
        make(folder / name)
        before = os.listdir("/proc/self/fd")

        assert f"{name} cannot be read" in refusal(folder)
        assert os.listdir("/proc/self/fd") == before


@many
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_flipped_byte_of_any_file_is_noticed(
    tiny: Path, name: str, where: float, flip: int
) -> None:
    with copied(tiny) as folder:
        content = bytearray((folder / name).read_bytes())
        content[int(where * len(content))] ^= flip
        (folder / name).write_bytes(content)
        if name == MANIFEST and is_another_version(tiny, folder):
            return
        refusal(folder)


def is_another_version(tiny: Path, folder: Path) -> bool:
    """Whether the flip left a sound manifest: of another name, or with other white space."""
    try:
        return usable(folder).version != model.load(tiny).version
    except BadModel:
        return False


@many
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True))
def test_any_truncation_of_any_file_is_noticed(tiny: Path, name: str, keep: float) -> None:
    with copied(tiny) as folder:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])
        refusal(folder)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "sub/model.json", "", "\ud800"]
)
def test_a_manifest_cannot_name_files_elsewhere(tiny: Path, name: str) -> None:
    with copied(tiny) as folder:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        listed = manifest["files"]["card.md"]
        (folder / MANIFEST).write_bytes(change(manifest, ("files", name), listed))
        assert "which no model has" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_grown_is_refused_without_being_read(tiny: Path, name: str) -> None:
    with copied(tiny) as folder:
        os.truncate(folder / name, 1 << 40)  # sparse
        assert f"{name} cannot be read: it is larger than the" in refusal(folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_manifest_cannot_grant_a_file_more_than_its_limit(tiny: Path, name: str) -> None:
    with copied(tiny) as folder:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        path = ("files", name, "bytes")
        (folder / MANIFEST).write_bytes(change(manifest, path, SIZE_LIMITS[name] + 1))
        assert f"gives no proper length and sha256 of {name}" in refusal(folder)


def test_reading_a_small_file_takes_little_memory_whatever_its_limit(tiny: Path) -> None:
    assert SIZE_LIMITS["weights.safetensors"] > 1 << 30
    tracemalloc.start()
    try:
        model.load(tiny).read("weights.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_the_model_does_not_list_is_refused(tiny: Path) -> None:
    assert "has no openvino.xml" in refusal(tiny, lambda f: model.load(f).read("openvino.xml"))


@pytest.mark.parametrize("number", [0, 2, 1.0, True, "1", None, 10**400])
def test_another_format_is_refused_by_its_number(tiny: Path, number: object) -> None:
    with copied(tiny) as folder:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(change(manifest, ("format",), number))
        assert "this program reads 1" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 9999]
)
@pytest.mark.parametrize("name", ["manifest.json", "model.json", "vocabulary.json"])
def test_what_is_not_the_json_it_should_be_is_refused(
    tiny: Path, name: str, content: bytes
) -> None:
    with copied(tiny) as folder:
        if name == MANIFEST:
            (folder / name).write_bytes(content)
        else:
            publish_again(folder, name, content)
        refusal(folder)


MODEL_PATHS = [
    ("architecture",),
    *(("architecture", key) for key in ("backbone", "features", "head", "classes")),
    ("preprocessing",),
    *(("preprocessing", key) for key in ("size_px", "crop", "mean", "std", "decode_version")),
    ("calibration",),
    *(("calibration", key) for key in ("temperature", "none")),
]
MANIFEST_PATHS = [("format",), ("name",), ("files",), *(("files", name) for name in FILES[1:])]
MANIFEST_PATHS += [("files", name, key) for name in FILES[1:] for key in ("bytes", "sha256")]


def test_the_paths_are_all_there_are(tiny: Path) -> None:
    assert set(MODEL_PATHS) == set(paths(json.loads((tiny / "model.json").read_bytes())))
    assert set(MANIFEST_PATHS) == set(paths(json.loads((tiny / MANIFEST).read_bytes())))


@many
@given(st.sampled_from(MODEL_PATHS), anything)
@example(("calibration", "temperature"), float("nan"))
@example(("calibration", "temperature"), 10**400)
@example(("preprocessing", "mean"), [0.5, 0.5, 10**400])
@example(("preprocessing", "decode_version"), True)
@example(("architecture",), {"\ud800": 1})
def test_a_description_with_any_other_value_is_usable_or_refused(
    tiny: Path, path: tuple[str, ...], value: object
) -> None:
    with copied(tiny) as folder:
        facts = json.loads((folder / "model.json").read_bytes())
        publish_again(folder, "model.json", change(facts, path, value))
        usable_or_refused(folder)


@many
@given(st.sampled_from(MANIFEST_PATHS), anything)
@example(("files", "card.md", "sha256"), "é" * 64)
@example(("files", "card.md", "bytes"), 23.0)
@example(("files", "card.md", "bytes"), "\ud800\n")
@example(("files", "card.md"), None)
@example(("name",), "x" * 100_000)
def test_a_manifest_with_any_other_value_is_usable_or_refused(
    tiny: Path, path: tuple[str, ...], value: object
) -> None:
    with copied(tiny) as folder:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(change(manifest, path, value))
        usable_or_refused(folder)


@many
@given(st.sampled_from(["manifest.json", "model.json", "vocabulary.json"]), anything)
def test_any_other_json_is_refused(tiny: Path, name: str, value: object) -> None:
    with copied(tiny) as folder:
        content = json.dumps(value).encode()
        if name == MANIFEST:
            (folder / name).write_bytes(content)
        else:
            publish_again(folder, name, content)
        refusal(folder)


def usable_or_refused(folder: Path) -> None:
    try:
        usable(folder)
    except BadModel:
        refusal(folder)


@pytest.mark.parametrize("path", MODEL_PATHS)
def test_a_description_without_one_of_its_values_is_refused(
    tiny: Path, path: tuple[str, ...]
) -> None:
    with copied(tiny) as folder:
        facts = json.loads((folder / "model.json").read_bytes())
        inner = facts[path[0]] if len(path) == 2 else facts
        del inner[path[-1]]
        publish_again(folder, "model.json", json.dumps(facts).encode())
        assert "no more" in refusal(folder)


@pytest.mark.parametrize("path", [(), ("architecture",), ("preprocessing",), ("calibration",)])
def test_a_description_with_more_than_its_values_is_refused(
    tiny: Path, path: tuple[str, ...]
) -> None:
    with copied(tiny) as folder:
        facts = json.loads((folder / "model.json").read_bytes())
        publish_again(folder, "model.json", change(facts, (*path, "more"), 1))
        assert "no more" in refusal(folder)


@pytest.mark.parametrize("path", [(), ("files", "card.md")])
def test_a_manifest_with_more_than_its_values_is_refused(tiny: Path, path: tuple[str, ...]) -> None:
    with copied(tiny) as folder:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_bytes(change(manifest, (*path, "more"), 1))
        refusal(folder)


@pytest.mark.parametrize("missing", MANIFEST_PATHS)
def test_a_manifest_without_one_of_its_values_is_refused(
    tiny: Path, missing: tuple[str, ...]
) -> None:
    with copied(tiny) as folder:
        manifest = inner = json.loads((folder / MANIFEST).read_bytes())
        for key in missing[:-1]:
            inner = inner[key]
        del inner[missing[-1]]
        (folder / MANIFEST).write_text(json.dumps(manifest))
        refusal(folder)


@pytest.mark.parametrize("emoji", [["🍕"], ["🍕", "🐕", "❤️", "🌅", "🚗", "🚀"]])
def test_a_vocabulary_of_another_length_is_refused(tiny: Path, emoji: list[str]) -> None:
    with copied(tiny) as folder:
        other = Vocabulary(tuple(emoji), (1,) * len(emoji))
        publish_again(folder, "vocabulary.json", other.to_json().encode())
        assert "head.weight must be" in refusal(folder, lambda f: model.load(f).weights())
        assert "does not fit its vocabulary" in refusal(folder, lambda f: model.load(f).probes())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tiny: Path, value: float) -> None:
    with copied(tiny) as folder:
        weights = dict(model.load(folder).weights())
        weights["head.bias"] = np.array([0, 0, value, 0, 0], np.float32)
        publish_again(folder, "weights.safetensors", safetensors.numpy.save(weights))
        assert "the weights 'head.bias' are not finite" in refusal(folder)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.complex64, np.uint8, np.bool_])
def test_weights_of_another_type_are_refused_by_name(tiny: Path, kind: type) -> None:
    with copied(tiny) as folder:
        weights = dict(model.load(folder).weights())
        weights["a\nb"] = np.ones(3, kind)
        publish_again(folder, "weights.safetensors", safetensors.numpy.save(weights))
        assert r"the weights 'a\nb' are" in refusal(folder)


headers = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I64", "BF16", "F8_E4M3", "U8", "F4", "x"]) | anything,
        "shape": st.lists(st.sampled_from([0, 1, 2, 2**31, 2**63, 2**64 - 1, -1])) | anything,
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 2**63]), max_size=3) | anything,
    }
)


@many
@given(
    st.sampled_from(["weights.safetensors", "probes.safetensors"]),
    st.dictionaries(st.sampled_from(["head.weight", "jpeg", "ends", "__metadata__"]), headers),
    st.binary(max_size=16),
)
@example(
    "weights.safetensors", {"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}, b""
)
@example(
    "weights.safetensors", {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"1234"
)
def test_any_other_safetensors_file_is_refused(
    tiny: Path, name: str, header: dict[str, Any], body: bytes
) -> None:
    with copied(tiny) as folder:
        encoded = json.dumps(header).encode()
        publish_again(folder, name, len(encoded).to_bytes(8, "little") + encoded + body)
        refusal(folder)


@many
@given(st.sampled_from(["weights.safetensors", "probes.safetensors"]), st.binary(max_size=64))
def test_bytes_that_are_no_safetensors_file_are_refused(
    tiny: Path, name: str, content: bytes
) -> None:
    with copied(tiny) as folder:
        publish_again(folder, name, content)
        refusal(folder)


def u1(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


def i8(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    "changed",
    [
        {"ends": i8()},
        {"ends": i8(1, 2)},
        {"ends": i8(1, 1, 3)},
        {"ends": i8(2, 1, 3)},
        {"ends": i8(-1, 2, 3)},
        {"ends": i8(1, 2, 4)},
        {"ends": i8(2**63 - 1, -(2**63), 3)},
        {"ends": np.array([1, 2, 3], np.float64)},
        {"ends": np.array([2, 1, 3], np.uint64)},
        {"ends": np.array(3)},
        {"ends": i8(1, 2, 3).reshape(3, 1)},
        {"jpeg": np.zeros(3, np.int64)},
        {"jpeg": u1()},
        {"jpeg": u1(1, 2, 3).reshape(1, 3)},
        {"logits": np.zeros((3, 4), np.float32)},
        {"logits": np.zeros((3, 5), np.float64)},
        {"logits": np.zeros((2, 5), np.float32)},
        {"logits": np.zeros(3, np.float32)},
        {"logits": np.array(0, np.float32)},
        {"logits": np.full((3, 5), np.nan, np.float32)},
        {"logits": np.zeros((3, 5, 1), np.float32)},
        {"jpeg": None},
        {"ends": None},
        {"logits": None},
    ],
)
def test_a_probe_set_of_another_form_is_refused(
    tiny: Path, changed: dict[str, np.ndarray | None]
) -> None:
    sound = {"jpeg": u1(1, 2, 3), "ends": i8(1, 2, 3), "logits": np.zeros((3, 5), np.float32)}
    arrays = {name: array for name, array in (sound | changed).items() if array is not None}
    with copied(tiny) as folder:
        publish_again(folder, "probes.safetensors", safetensors.numpy.save(arrays))
        assert "probe set" in refusal(folder)


@pytest.mark.parametrize(("count", "size"), [(513, 1), (2, 4 << 20)])
def test_a_probe_set_beyond_its_limits_is_refused(tiny: Path, count: int, size: int) -> None:
    probes = Probes([bytes(size)] * count, np.zeros((count, 5), np.float32))
    with copied(tiny) as folder:
        publish_again(folder, "probes.safetensors", safetensors.numpy.save(probes.to_arrays()))
        assert "its probe set is malformed" in refusal(folder)


def test_a_view_is_the_square_that_the_network_takes(tiny: Path) -> None:
    loaded = model.load(tiny)
    for jpeg in loaded.probes().jpegs:
        assert model.view(loaded.preprocessing, jpeg).shape == (32, 32, 3)
