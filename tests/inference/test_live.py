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


@pytest.mark.parametrize(
    "failure",
    [
        errors.BadModel("it gives NaN"),
        errors.UndecodableImage("no image"),
        WorkerDied("killed", over_limit=False),
        WorkerFailed("Traceback"),
        OSError("no more processes"),
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
