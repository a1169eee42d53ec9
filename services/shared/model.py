"""The published model on disk: one immutable folder, checked byte by byte before it may serve.

    manifest.json         name, and of every other file its length and sha256
    model.json            architecture, preprocessing, calibration
    vocabulary.json       the emoji, in the order of the outputs, with their counts
    weights.safetensors   parameters, float32 and int64
    probes.safetensors    up to 512 JPEGs with the logits that eager float32 gives for them
    openvino.xml, .bin    the same network, for servers without torch
    card.md               what it knows and does not, how it was made and measured

Neither safetensors nor torch notices a flipped byte: sixty of sixty loaded silently, with wrong
values. So every file is read once, through one descriptor, and believed only when its digest is
the manifest's. The digest of the manifest is the version.
"""

import errno
import hashlib
import hmac
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from reprlib import repr as excerpt
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy

from services.shared import pixels
from services.shared.errors import BadModel
from services.shared.vocabulary import Vocabulary

FORMAT = 1
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
MANIFEST = "manifest.json"
SIZE_LIMITS = {
    "model.json": 1 << 20,
    "vocabulary.json": 4 << 20,
    "weights.safetensors": 4 << 30,
    "probes.safetensors": 256 << 20,
    "openvino.xml": 64 << 20,
    "openvino.bin": 4 << 30,
    "card.md": 1 << 20,
}
REQUIRED = {"model.json", "vocabulary.json", "weights.safetensors", "probes.safetensors", "card.md"}
MAX_PROBES = 512
FLOOR = 1e-6  # probability of an emoji that no class of a projected head speaks for
MAX_PROBE_BYTES = 6 << 20

Arrays = dict[str, np.ndarray]
Facts = TypeVar("Facts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Which network the weights belong to."""

    backbone: str
    """A name that timm knows, for example `tf_efficientnet_lite0`."""
    features: int
    """Channels of the last feature map."""
    head: str
    """`linear`: features to emoji; `projected`: features to classes, and those to emoji."""
    classes: int = 0
    """Of a projected head, how many classes stand between."""

    def __post_init__(self) -> None:
        _require(isinstance(self.backbone, str) and NAME.fullmatch(self.backbone), "backbone")
        _require(_whole(self.features, 1, 65536), "features")
        _require(self.head in ("linear", "projected"), "head")
        _require(_whole(self.classes, 0, 1 << 20), "classes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How an upright sRGB picture becomes the network's input."""

    size_px: int
    """Edge of the square that the network sees."""
    crop: float
    """That square's share of the shorter edge."""
    mean: tuple[float, float, float]
    """Of the channels in [0, 1]."""
    std: tuple[float, float, float]
    """Of the channels in [0, 1]."""
    decode_version: int
    """Which decode path the model was trained with, `pixels.VERSION`."""

    def __post_init__(self) -> None:
        _require(_whole(self.size_px, 32, 1024), "size_px")
        _require(_number(self.crop) and 0.1 <= self.crop <= 1, "crop")
        for name, triple in (("mean", self.mean), ("std", self.std)):
            _require(isinstance(triple, list | tuple) and len(triple) == 3, name)
            _require(all(_number(v) and 0 <= v <= 1 for v in triple), name)
            object.__setattr__(self, name, tuple(triple))  # JSON has lists only
        _require(all(v > 0 for v in self.std), "std")
        # What older ones looked like is within 5 of 255 of what this one does.
        _require(_whole(self.decode_version, 1, pixels.VERSION), "decode_version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How logits become probabilities one can believe."""

    temperature: float = 1.0
    """Divides the logits before the softmax."""
    none: bool = False
    """Whether there is one more output than emoji: the belief that none of them fits."""

    def __post_init__(self) -> None:
        _require(_number(self.temperature) and 0.01 <= self.temperature <= 100, "temperature")
        _require(isinstance(self.none, bool), "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A checked model; its large files are read, and checked, when they are asked for."""

    folder: Path
    name: str
    version: str
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    vocabulary: Vocabulary
    card: str
    files: Mapping[str, Mapping[str, Any]]

    @property
    def outputs(self) -> int:
        """How many logits: one for each emoji, and one for none of them."""
        return len(self.vocabulary) + self.calibration.none

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of the emoji; what a row lacks to 1 is "none of these"."""
        scaled = logits_NK / self.calibration.temperature
        belief = np.exp(scaled - scaled.max(1, keepdims=True))
        return (belief / belief.sum(1, keepdims=True))[:, : len(self.vocabulary)]

    def read(self, name: str) -> bytes:
        """The content of a file of the model. Raises BadModel unless it is what was published."""
        if name not in self.files:
            raise BadModel(f"The model {self.folder} has no {name}.", path=str(self.folder))
        return _read_listed(self.folder, name, self.files[name])

    def check(self) -> "Model":
        """Itself, when every file is what was published, and is usable; else raises BadModel."""
        for name in self.files:
            self.read(name)
        self.weights()
        self.probes()
        return self

    def weights(self) -> Arrays:
        """The parameters by name, all of them finite, with a head for this vocabulary."""
        arrays = _tensors(self.folder, "weights.safetensors", self.read("weights.safetensors"))
        for name, array in arrays.items():
            if array.dtype not in (np.float32, np.int64):  # whole: what batch norms have counted
                raise _bad(self.folder, f"the weights {name!r} are {array.dtype}, not float32")
            if not np.isfinite(array).all():
                raise _bad(self.folder, f"the weights {name!r} are not finite")
        for name, shape in self._head().items():
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "absent"
                raise _bad(self.folder, f"the weights {name} must be {shape}, and are {found}")
        return arrays

    def _head(self) -> dict[str, tuple[int, ...]]:
        """What the head needs, by name; here, since not every server has torch to find out."""
        features, classes = self.architecture.features, self.architecture.classes
        if self.architecture.head == "linear":
            return {"head.weight": (self.outputs, features), "head.bias": (self.outputs,)}
        return {
            "head.classifier.weight": (classes, features),
            "head.classifier.bias": (classes,),
            "head.table_CK": (classes, self.outputs),
        }

    def probes(self) -> "Probes":
        """The pictures and logits that every backend is held against."""
        arrays = _tensors(self.folder, "probes.safetensors", self.read("probes.safetensors"))
        try:
            probes = Probes.from_arrays(arrays)
        except (KeyError, ValueError) as error:
            raise _bad(self.folder, f"its probe set is malformed: {error}") from None
        if probes.logits.shape[1] != self.outputs or not np.isfinite(probes.logits).all():
            raise _bad(self.folder, "its probe set does not fit its vocabulary, or is not finite")
        return probes


@dataclass(frozen=True, slots=True)
class Probes:
    """Pictures with the logits that eager float32 gives for them."""

    jpegs: list[bytes]
    logits: np.ndarray
    """(N, outputs), float32."""

    @staticmethod
    def from_arrays(arrays: Arrays) -> "Probes":
        """From the tensors `jpeg` (bytes, one after the other), `ends` and `logits`."""
        jpeg, ends, logits = arrays["jpeg"], arrays["ends"], arrays["logits"]
        for array, kind, ndim in ((jpeg, np.uint8, 1), (ends, np.int64, 1), (logits, "f4", 2)):
            if array.dtype != kind or array.ndim != ndim:
                raise ValueError("a tensor has another type or rank than it should")
        if not 0 < len(ends) == len(logits) <= MAX_PROBES or len(jpeg) > MAX_PROBE_BYTES:
            raise ValueError(f"{len(ends)} pictures, {len(jpeg)} bytes, {len(logits)} logits")
        starts = np.concatenate([[0], ends[:-1]])
        if ends[-1] != len(jpeg) or (ends <= starts).any():
            raise ValueError("the pictures' ends do not ascend to the end of the content")
        content = jpeg.tobytes()
        return Probes([content[a:b] for a, b in zip(starts, ends, strict=True)], logits)

    def to_arrays(self) -> Arrays:
        """The tensors that `from_arrays` reads."""
        return {
            "jpeg": np.frombuffer(b"".join(self.jpegs), np.uint8),
            "ends": np.cumsum([len(jpeg) for jpeg in self.jpegs], dtype=np.int64),
            "logits": np.ascontiguousarray(self.logits, np.float32),
        }


def view(preprocessing: Preprocessing, content: bytes) -> np.ndarray:
    """The square (edge, edge, 3) of an encoded picture that a network with this input sees."""
    edge_px = round(preprocessing.size_px / preprocessing.crop)
    upright = pixels.decode(content, edge_px=edge_px)
    square, _ = pixels.crop(upright, size_px=preprocessing.size_px, fraction=preprocessing.crop)
    return square


def load(folder: Path) -> Model:
    """The model in the folder.

    Raises:
        BadModel: it is missing, incomplete or altered; in one sentence.
    """
    if not os.path.isdir(folder):  # unlike the method of Path, this never raises
        raise BadModel(f"There is no model folder {folder}.", path=str(folder))
    content = _read(folder, MANIFEST, 1 << 20)
    name, files = _manifest(folder, content)
    read = {
        n: _read_listed(folder, n, files[n]) for n in ("model.json", "vocabulary.json", "card.md")
    }
    facts = _json(folder, "model.json", read["model.json"])
    try:
        if facts.keys() != {"architecture", "preprocessing", "calibration"}:
            raise ValueError("model.json holds architecture, preprocessing, calibration, no more")
        return Model(
            folder=folder,
            name=name,
            version=hashlib.sha256(content).hexdigest()[:12],
            architecture=_facts(Architecture, facts["architecture"]),
            preprocessing=_facts(Preprocessing, facts["preprocessing"]),
            calibration=_facts(Calibration, facts["calibration"]),
            vocabulary=Vocabulary.from_json(read["vocabulary.json"].decode()),
            card=read["card.md"].decode(),
            files=files,
        )
    except ValueError as error:
        raise _bad(folder, f"its description is malformed: {error}") from None


def _manifest(folder: Path, content: bytes) -> tuple[str, dict[str, Any]]:
    """The name, and what is known of each file."""
    manifest = _json(folder, MANIFEST, content)
    form, name, files = manifest.get("format"), manifest.get("name"), manifest.get("files")
    if not _whole(form, FORMAT, FORMAT):
        raise _bad(folder, f"its format is {excerpt(form)}, this program reads {FORMAT}")
    if manifest.keys() != {"format", "name", "files"}:
        raise _bad(folder, "its manifest must hold format, name and files, and no more")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _bad(folder, f"its name {excerpt(name)} is not made of a-z, 0-9, dots and dashes")
    if not isinstance(files, dict) or not files.keys() >= REQUIRED:
        raise _bad(folder, f"its manifest must list {', '.join(sorted(REQUIRED))}")
    for file_name, listed in files.items():
        if file_name not in SIZE_LIMITS:
            raise _bad(folder, f"its manifest lists {excerpt(file_name)}, which no model has")
        if not _is_listing(listed, SIZE_LIMITS[file_name]):
            raise _bad(folder, f"its manifest gives no proper length and sha256 of {file_name}")
    return name, files


def _is_listing(listed: object, limit_bytes: int) -> bool:
    return (
        isinstance(listed, dict)
        and listed.keys() == {"bytes", "sha256"}
        and _whole(listed["bytes"], 0, limit_bytes)
        and isinstance(listed["sha256"], str)
        and DIGEST.fullmatch(listed["sha256"]) is not None
    )


def write(
    folder: Path,
    *,
    name: str,
    architecture: Architecture,
    preprocessing: Preprocessing,
    calibration: Calibration,
    vocabulary: Vocabulary,
    weights: Arrays,
    probes: Probes,
    card: str,
    openvino: Mapping[str, bytes],
) -> Model:
    """Writes a model into `folder`, which must not exist, and reads it back checked.

    Args:
        openvino: content of `openvino.xml` and `openvino.bin`; empty where there is no such form.

    Raises:
        BadModel: what was given makes no usable model. Then there is no folder either.
    """
    facts = {
        "architecture": asdict(architecture),
        "preprocessing": asdict(preprocessing),
        "calibration": asdict(calibration),
    }
    # In order: safetensors writes what lies in memory, whatever the strides say.
    ordered = {n: np.asarray(array, order="C") for n, array in weights.items()}
    files = {
        "model.json": json.dumps(facts, indent=1).encode(),
        "vocabulary.json": vocabulary.to_json().encode(),
        "weights.safetensors": safetensors.numpy.save(ordered),
        "probes.safetensors": safetensors.numpy.save(probes.to_arrays()),
        "card.md": card.encode(),
        **openvino,
    }
    listed = {n: {"bytes": len(c), "sha256": _digest(c)} for n, c in sorted(files.items())}
    manifest = {"format": FORMAT, "name": name, "files": listed}
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists; a model is written once") from None
    try:
        for n, content in {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}.items():
            (folder / n).write_bytes(content)
        return load(folder).check()
    except BaseException:
        shutil.rmtree(folder)
        raise


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The whole file, through one descriptor that is neither a link nor a device.

    Raises:
        OSError: it is one, cannot be read, or is larger; `strerror` completes a sentence.
    """

    def opener(name: str, flags: int) -> int:  # the file then owns the descriptor, come what may
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:  # which would speak of "too many levels"
                raise OSError(errno.ELOOP, "it is a link") from None
            raise

    with open(path, "rb", opener=opener) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if facts.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"it is larger than the {limit_bytes} bytes it may have")
        # Not up to the limit: read(n) takes n bytes of memory, however few the file holds.
        return file.read(facts.st_size + 1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path, name: str, limit_bytes: int) -> bytes:
    try:
        return read_regular(folder / name, limit_bytes)
    except OSError as error:
        raise _bad(folder, f"{name} cannot be read: {error.strerror}") from error


def _read_listed(folder: Path, name: str, listed: Mapping[str, Any]) -> bytes:
    content = _read(folder, name, listed["bytes"])
    if len(content) != listed["bytes"]:
        raise _bad(folder, f"{name} has {len(content)} bytes, not {listed['bytes']}")
    if not hmac.compare_digest(_digest(content), listed["sha256"]):
        raise _bad(folder, f"{name} was altered: its sha256 is not the manifest's")
    return content


def _json(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise _bad(folder, f"{name} is no JSON") from None
    if not isinstance(value, dict):
        raise _bad(folder, f"{name} must hold one JSON object")
    return value


def _tensors(folder: Path, name: str, content: bytes) -> Arrays:
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _bad(folder, f"{name} is no safetensors file: {excerpt(str(error))}") from None


def _facts(kind: type[Facts], facts: Any) -> Facts:
    """The dataclass with these values; raises ValueError unless they are all there and right."""
    wanted = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(facts, dict) or facts.keys() != set(wanted):
        raise ValueError(f"{kind.__name__.lower()} holds {', '.join(wanted)}, no more")
    return kind(**facts)


def _bad(folder: Path, what: str) -> BadModel:
    return BadModel(f"The model {folder} is not usable: {what}.", path=str(folder))


def _require(holds: object, field: str) -> None:
    if not holds:
        raise ValueError(f"{field} has no value that this program can use")


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: object) -> bool:
    # Compared, since math.isfinite raises for a whole number of 400 digits.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -math.inf < value < math.inf
    )
