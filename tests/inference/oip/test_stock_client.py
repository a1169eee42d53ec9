"""The stock tritonclient against our server; it needs an older protobuf than ours, so a venv."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from PIL import Image

from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as own
from inference import grpc_service_pb2 as pb
from services.shared import model
from services.shared.photographs import installed
from tests.inference.running import Running, inference

pytestmark = pytest.mark.system
CLIENT = Path(__file__).with_name("stock_client.py")
README = Path(__file__).parents[3] / "services" / "inference" / "README.md"
Play = Callable[[str], Awaitable[Any]]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the stock client and nothing of ours."""
    folder = tmp_path_factory.mktemp("stock")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "tritonclient[grpc]==2.73.0"], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, starter: Path) -> Path:
    """A folder with a JPEG, and the pixels that our decoder makes of it."""
    folder = tmp_path_factory.mktemp("photo")
    cat = next(path for path in installed() if path.name == "chelsea.png")
    Image.open(cat).convert("RGB").save(folder / "photo.jpg", quality=90)
    content = (folder / "photo.jpg").read_bytes()
    square = model.view(model.load(starter).preprocessing, content)
    np.save(folder / "pixels.npy", square[None].astype(np.float32))
    return folder


@pytest.fixture
async def served(starter: Path) -> AsyncIterator[Running]:
    async with inference(starter, "openvino") as running:
        yield running


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.fixture
def play(stock: str, photo: Path, served: Running) -> Play:
    """Plays a scenario of the stock client, and returns what it saw."""

    async def played(scenario: str) -> Any:
        command = (stock, str(CLIENT), served.address, scenario, str(photo))
        return json.loads(await run(*command, cwd=photo))

    return played


def fields(message: Descriptor) -> dict[str, list[int]]:
    found = {f"{message.full_name}.{f.name}": [f.number, f.type] for f in message.fields}
    for nested in message.nested_types:
        found |= fields(nested)
    return found


async def test_every_field_of_our_contract_is_theirs(play: Play) -> None:
    theirs = await play("contract")
    ours = {
        name: value
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for name, value in fields(message).items()
    }
    assert len(ours) > 100
    different = {name for name, value in ours.items() if theirs.get(name) != value}
    of_the_protocol_alone = {"properties", "PropertiesEntry.key", "PropertiesEntry.value"}
    assert different == {f"inference.ModelMetadataResponse.{n}" for n in of_the_protocol_alone}


async def test_it_is_told_what_the_server_and_its_model_are(play: Play, starter: Path) -> None:
    seen, published = await play("description"), model.load(starter)
    known, edge = len(published.vocabulary), published.preprocessing.size_px
    assert (seen["live"], seen["ready"], seen["model"], seen["other"]) == (True, True, True, False)
    assert {"statistics", "classification"} <= set(seen["server"]["extensions"])
    assert seen["metadata"]["versions"] == [published.version]
    shapes = {
        tensor["name"]: tensor["shape"]
        for tensor in seen["metadata"]["inputs"] + seen["metadata"]["outputs"]
    }
    assert shapes["PIXELS"] == ["-1", str(edge), str(edge), "3"]
    assert shapes["PROBABILITY"] == ["-1", str(known)]
    assert (seen["config"]["max_batch_size"], seen["config"]["backend"]) == (64, "openvino")
    assert seen["config"]["dynamic_batching"]["priority_levels"] == "2"
    assert seen["config"]["input"][1]["format"] == "FORMAT_NHWC"
    assert len(seen["config"]["parameters"]["labels"]["string_value"].split()) == known
    index = {"name": published.name, "version": published.version, "state": "READY"}
    assert seen["index"] == [index]
    for verb in ("load", "unload"):
        code, words = seen[verb]
        assert (code, "emojinet model activate" in words) == ("UNIMPLEMENTED", True)


async def test_pictures_and_pixels_get_what_our_own_service_says(
    play: Play, served: Running, photo: Path, starter: Path
) -> None:
    seen = await play("pictures")
    image = image_pb2.Image(content=(photo / "photo.jpg").read_bytes())
    ask = own.SuggestRequest(images=[image], max_suggestions=100)
    response = await served.stub.Suggest(ask, timeout=20)
    suggestions = response.results[0].suggestions.suggestions
    known = model.load(starter).vocabulary.emoji
    for way in ("encoded", "decoded"):
        theirs = [seen[way][known.index(s.emoji)] for s in suggestions]
        assert theirs == pytest.approx([s.probability for s in suggestions], abs=1e-6)
    assert seen["emoji"] == [s.emoji for s in suggestions[:5]]
    assert (seen["id"], seen["model"], seen["embedding"]) == ("7", "starter", [1, 1280])
    bulk = {"stage": "device", "outcome": "served", "priority": "bulk"}
    assert served.sample("emojinet_queue_wait_seconds_count", **bulk) == 1


async def test_classes_come_with_score_index_and_label(play: Play, starter: Path) -> None:
    seen = await play("classes")
    assert (seen["outputs"], [len(row) for row in seen["rows"]]) == (1, [3, 3])
    score, index, label = seen["rows"][0][0].split(":")
    assert label == model.load(starter).vocabulary.emoji[int(index)] == "🐱"
    assert float(score) > 0.1


async def test_calls_without_waiting_are_answered_and_can_be_cancelled(
    play: Play, served: Running
) -> None:
    seen = await play("asynchronous")
    assert seen == {"first": 845, "cancelled": "StatusCode.CANCELLED"}
    async with asyncio.timeout(20):
        while served.service.served().in_flight:
            await asyncio.sleep(0.01)


async def test_the_asyncio_client_works_too(play: Play) -> None:
    seen = await play("aio")
    assert seen == {"emoji": ["🐱"] * 8, "stream": ["0", "1", "2"], "given_up": "CancelledError"}


async def test_what_is_wrong_is_told_by_code_and_words(play: Play) -> None:
    seen = await play("failures")
    assert seen["late"][0] == "DEADLINE_EXCEEDED"
    assert seen["late_seconds"] < 2
    assert seen["hopeless"][0] == "DEADLINE_EXCEEDED"
    assert "idle server" in seen["hopeless"][1]
    assert seen["unknown"][0] == seen["version"][0] == "NOT_FOUND"
    assert seen["bad"][0] == "INVALID_ARGUMENT"
    assert seen["bad"][1].startswith("IMAGE[1]: ")


async def test_a_stream_goes_on_after_an_error(play: Play) -> None:
    answers = (await play("stream"))["answers"]
    assert "INVALID_ARGUMENT" in answers[5]
    assert [*answers[:5], *answers[6:]] == [str(n) for n in range(20) if n != 5]


async def test_statistics_say_how_long_batches_took(play: Play) -> None:
    seen = await play("statistics")
    assert (seen["inference_count"], seen["inference_stats"]["success"]["count"]) == ("10", "5")
    batches = seen["batch_stats"]
    ran = sum(int(b["batch_size"]) * int(b["compute_infer"]["count"]) for b in batches)
    assert ran == 10
    assert all(int(b["compute_infer"]["ns"]) > 0 for b in batches)


async def test_the_example_of_the_readme_runs_as_it_stands(
    stock: str, photo: Path, served: Running
) -> None:
    (example,) = re.findall(
        r"```python\n(import tritonclient.*?)```", README.read_text(), re.DOTALL
    )
    assert "127.0.0.1:50051" in example
    program = example.replace("127.0.0.1:50051", served.address)
    printed = await run(stock, "-c", program, cwd=photo)
    assert re.match(r"0\.\d{6}:\d+:🐱\n", printed)
    assert len(printed.splitlines()) == 3
