"""Following the registry goes on whatever a model does when it is started."""

import asyncio
import shutil
from pathlib import Path

import pytest

from services.inference import live
from services.inference.server import Serving
from services.shared import errors, model, registry
from services.shared.worker import WorkerDied, WorkerFailed
from tests.inference.running import inference

pytestmark = pytest.mark.system  # they start servers, and take half a minute


@pytest.mark.parametrize(
    "failure",
    [
        errors.BadModel("it gives NaN"),
        errors.UndecodableImage("no image"),
        WorkerDied("killed", over_limit=False),
        WorkerFailed("Traceback"),
    ],
)
async def test_a_model_that_cannot_start_is_refused_and_a_later_one_is_served(
    tiny: Path, tmp_path: Path, failure: Exception
) -> None:
    published = []
    for name in ("bad", "good"):
        shutil.copytree(tiny, tmp_path / "staged")
        manifest = tmp_path / "staged" / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"name": "tiny"', f'"name": "{name}"'))
        published.append(registry.publish(tmp_path, tmp_path / "staged"))
    async with inference(tiny) as running:

        async def start(new: model.Model) -> Serving:
            if new.name == "bad":
                raise failure
            return await running.start(new)

        registry.activate(tmp_path, published[0])
        following = asyncio.create_task(
            live.follow(tmp_path, running.service, start, running.metrics)
        )
        await asyncio.sleep(1.5 * live.LOOK_SECONDS)
        assert running.service.serving is not None
        assert running.service.serving.model.name == "tiny"
        registry.activate(tmp_path, published[1])
        async with asyncio.timeout(20):
            while running.service.serving.model.name != "good":
                await asyncio.sleep(0.05)
        following.cancel()


@pytest.mark.parametrize("where", ["starting", "reading"])
async def test_a_model_that_could_not_be_read_or_started_once_is_tried_again(
    tiny: Path, tmp_path: Path, where: str
) -> None:
    shutil.copytree(tiny, tmp_path / "staged")
    manifest = tmp_path / "staged" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "late"'))
    which = registry.publish(tmp_path, tmp_path / "staged")
    registry.activate(tmp_path, which)
    described, aside = registry.folder(tmp_path, which) / "model.json", tmp_path / "aside"
    if where == "reading":
        described.rename(aside)
    async with inference(tiny) as running:
        failures = [OSError("no more processes")] if where == "starting" else []

        async def start(new: model.Model) -> Serving:
            if failures:
                raise failures.pop()
            return await running.start(new)

        following = asyncio.create_task(
            live.follow(tmp_path, running.service, start, running.metrics)
        )
        await asyncio.sleep(1.5 * live.LOOK_SECONDS)
        assert running.service.serving is not None
        assert running.service.serving.model.name == "tiny"
        if where == "reading":
            aside.rename(described)
        async with asyncio.timeout(20):
            while running.service.serving.model.name != "late":
                await asyncio.sleep(0.05)
        following.cancel()


async def test_a_model_that_was_still_being_copied_is_served_when_it_is_whole(
    tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "staged")
    manifest = tmp_path / "staged" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "slow"'))
    which = registry.publish(tmp_path, tmp_path / "staged")
    registry.activate(tmp_path, which)
    weights = registry.folder(tmp_path, which) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:9])
    starts: list[str] = []
    async with inference(tiny) as running:

        async def start(new: model.Model) -> Serving:
            starts.append(new.name)
            return await running.start(new)

        following = asyncio.create_task(
            live.follow(tmp_path, running.service, start, running.metrics)
        )
        async with asyncio.timeout(20):
            while not starts:
                await asyncio.sleep(0.05)
        await asyncio.sleep(2.5 * live.LOOK_SECONDS)
        assert starts == ["slow"]  # once: nothing has changed
        assert running.service.serving is not None
        assert running.service.serving.model.name == "tiny"
        weights.write_bytes(content)
        async with asyncio.timeout(20):
            while running.service.serving.model.name != "slow":
                await asyncio.sleep(0.05)
        following.cancel()


async def test_a_registry_that_cannot_be_written_is_not_told_as_a_missing_extra() -> None:
    with pytest.raises(errors.StorageFailed, match="cannot be written to /proc/none"):
        await live.first_model(None, Path("/proc/none/registry"))
