"""What the trainer says of a picture is what the server answers for it."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import model, network, photographs
from services.shared.model import Architecture
from services.shared.vocabulary import Vocabulary
from services.trainer import publish
from tests.inference.running import inference
from tests.trainer.test_publish import Pictures

pytestmark = pytest.mark.system
# 🫠 is of a later inventory than the starter's.
EMOJI = ("🍕", "🫠", "🐕", "🚗", "🌅", "❤️", "👍🏽", "👍")
FORMS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
SIZES = ((640, 480), (200, 300), (1500, 1000), (60, 50), (256, 256), (500, 120))


def pictures() -> list[bytes]:
    """Photographs in several formats and sizes, upright and not."""
    sources = [Image.open(path).convert("RGB") for path in photographs.installed()]
    made = []
    for number in range(2 * len(FORMS)):
        file = BytesIO()
        source = sources[number % len(sources)].resize(SIZES[number % len(SIZES)])
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        form = FORMS[number % len(FORMS)]
        source.save(file, form, **({"exif": exif} if form in ("JPEG", "WEBP") else {}))
        made.append(file.getvalue())
    return made


@pytest.fixture(scope="module")
def trained(starter: Path, tmp_path_factory: pytest.TempPathFactory) -> model.Model:
    """A linear head on the starter's backbone, for emoji that the starter does not all know."""
    like = model.load(starter)
    architecture = Architecture(backbone=like.architecture.backbone, features=1280, head="linear")
    draw = np.random.default_rng(3)
    arrays = {n: a for n, a in like.weights().items() if n.startswith("backbone.")}
    arrays["head.weight"] = draw.normal(0, 0.3, (len(EMOJI), 1280)).astype(np.float32)
    arrays["head.bias"] = draw.normal(0, 1, len(EMOJI)).astype(np.float32)
    net = network.Network(architecture, like.preprocessing, len(EMOJI))
    contents = pictures()
    return publish.build(
        tmp_path_factory.mktemp("trained") / "model",
        name="trained",
        learner_net=network.with_weights(net, arrays),
        architecture=architecture,
        preprocessing=like.preprocessing,
        vocabulary=Vocabulary(EMOJI, tuple(range(len(EMOJI), 0, -1))),
        temperature=0.7,
        validation=Pictures(contents, [(n % len(EMOJI),) for n in range(len(contents))]),
        card="# trained\n",
    )


@pytest.mark.parametrize("backend", ["openvino", "torch"])
async def test_trainer_and_server_agree_on_the_same_files(
    trained: model.Model, backend: str
) -> None:
    net = network.read(trained)
    contents = pictures()
    async with inference(trained.folder, backend) as running:
        ask = pb.SuggestRequest(
            images=[image_pb2.Image(content=content) for content in contents],
            max_suggestions=len(EMOJI),
        )
        response = await running.stub.Suggest(ask, timeout=60)
    assert (response.model.name, response.model.version) == ("trained", trained.version)
    for content, result in zip(contents, response.results, strict=True):
        view = model.view(trained.preprocessing, content)
        expected = trained.probabilities(network.look(net, view[None])[0])[0]
        answered = {s.emoji: s.probability for s in result.suggestions.suggestions}
        assert answered.keys() == set(EMOJI)
        assert [answered[emoji] for emoji in EMOJI] == pytest.approx(list(expected), abs=1e-4)
        assert expected.max() - expected.min() > 0.01  # there is something to agree on
