import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from services.inference import choice
from services.inference.choice import Choice
from services.inference.gate import Split
from services.shared import model
from services.shared.cores import cores
from services.shared.errors import BadModel
from services.shared.model import Model

Rate = Callable[[Choice], float]


@pytest.fixture(autouse=True)
def remembered_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """What has been tried, on a machine of four cores where all is equally fast."""
    tried: list[Choice] = []
    measures(monkeypatch, tried, lambda _: 100.0)
    monkeypatch.setattr(choice, "cores", lambda: 4)
    return tried


def measures(monkeypatch: pytest.MonkeyPatch, tried: list[Choice], rate: Rate) -> None:
    async def measured(model: Model, precision: str, one: Choice) -> float:
        tried.append(one)
        return rate(one)

    monkeypatch.setattr(choice, "_rate", measured)


@pytest.fixture
def exported(starter: Path) -> Model:
    return model.load(starter)


async def test_every_backend_and_split_is_tried_and_then_the_rest_with_the_best(
    exported: Model, tried: list[Choice]
) -> None:
    best = await choice.fastest(exported, "exact")

    splits = [Split(4, 1), Split(2, 2), Split(1, 4)]
    assert [(one.backend, one.split) for one in tried[:6]] == [
        (backend, split) for backend in ("openvino", "torch") for split in splits
    ]
    assert tried[6:] == [
        Choice("openvino", Split(4, 1, keeps_memory=False), 4),
        Choice("openvino", Split(4, 1), 2),
    ]
    assert best == tried[0], "what is no faster does not replace it"


async def test_the_fastest_is_chosen_and_remembered(
    exported: Model, tried: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    measures(monkeypatch, tried, lambda one: 300.0 if one.split == Split(1, 4) else 200.0)

    best = await choice.fastest(exported, "exact")

    assert best == Choice("openvino", Split(1, 4), 4)
    count = len(tried)
    assert await choice.fastest(exported, "exact") == best
    assert len(tried) == count
    (file,) = choice.folder().iterdir()
    assert len(json.loads(file.read_text())["measured"]) == count


async def test_a_slow_backend_is_not_tried_in_every_way(
    exported: Model, tried: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    measures(monkeypatch, tried, lambda one: 100.0 if one.backend == "openvino" else 40.0)

    await choice.fastest(exported, "exact")

    assert [one.backend for one in tried].count("torch") == 1


async def test_what_does_not_give_the_published_answers_is_never_chosen(
    exported: Model,
    tried: list[Choice],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rate(one: Choice) -> float:
        if one.backend == "openvino":
            raise BadModel("It gives other answers here.", path="")
        return 50.0

    measures(monkeypatch, tried, rate)

    with caplog.at_level(logging.INFO):
        assert (await choice.fastest(exported, "exact")).backend == "torch"
    assert "It gives other answers here." in caplog.text


async def test_where_nothing_works_the_first_reason_is_given(
    exported: Model, tried: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate(one: Choice) -> float:
        raise BadModel(f"Package {one.backend} is missing.", path="")

    measures(monkeypatch, tried, rate)

    with pytest.raises(BadModel, match="openvino is missing"):
        await choice.fastest(exported, "exact")
    assert not choice.folder().exists()


async def test_precisions_and_machines_are_remembered_apart(
    exported: Model, tried: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    await choice.fastest(exported, "exact")
    await choice.fastest(exported, "reduced")
    monkeypatch.setattr(choice, "cores", lambda: 1)
    alone = await choice.fastest(exported, "exact")

    assert len(list(choice.folder().iterdir())) == 3
    assert (alone.split, alone.decoders) == (Split(1, 1), 1)


@pytest.mark.parametrize("content", ["", "{}", '{"choice": {"backend": 1}}', "\x00"])
async def test_a_damaged_memory_is_measured_anew(
    exported: Model, tried: list[Choice], content: str
) -> None:
    await choice.fastest(exported, "exact")
    (file,) = choice.folder().iterdir()
    file.write_text(content)
    count = len(tried)

    await choice.fastest(exported, "exact")

    assert len(tried) == 2 * count


async def test_a_choice_that_cannot_be_remembered_is_used_all_the_same(
    exported: Model,
    tried: list[Choice],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "emojinet").write_text("in the way")

    assert (await choice.fastest(exported, "exact")).backend == "openvino"
    assert "measures again" in caplog.text


@pytest.mark.system  # it starts PyTorch twice
async def test_this_machine_measures_itself(exported: Model) -> None:
    best = await choice.fastest(exported, "exact")

    assert best.backend in ("openvino", "torch")
    assert best.split.workers * best.split.threads == cores()
    (file,) = choice.folder().iterdir()
    rates = [one["images_per_second"] for one in json.loads(file.read_text())["measured"]]
    assert max(rates) > 10
