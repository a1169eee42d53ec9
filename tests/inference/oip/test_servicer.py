import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from clients.client import from_rpc
from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as own
from inference import grpc_service_pb2 as pb
from services.inference import live
from services.shared import errors, model
from services.shared.photographs import installed
from tests.conftest import TINY_EMOJI
from tests.inference.oip.requests import asking, floats, pictures, squares, texts
from tests.inference.running import Running, inference

CAT = next(path for path in installed() if path.name == "chelsea.png").read_bytes()
COFFEE = next(path for path in installed() if path.name == "coffee.png").read_bytes()
ROOT = Path(__file__).parents[3]


@pytest.fixture
async def served(tiny: Path) -> AsyncIterator[Running]:
    async with inference(tiny) as running:
        yield running


async def refused(
    running: Running, request: pb.ModelInferRequest, timeout: float = 5
) -> tuple[str, errors.EmojinetError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.oip.ModelInfer(request, timeout=timeout)
    return caught.value.code().name, from_rpc(caught.value, "")


def black(count: int, name: str = "tiny") -> pb.ModelInferRequest:
    return squares(np.zeros((count, 32, 32, 3), np.uint8), name)


async def test_a_picture_gets_the_probabilities_that_our_own_service_gives(served: Running) -> None:
    response = await served.oip.ModelInfer(pictures(CAT), timeout=5)
    suggested = await served.stub.Suggest(
        own.SuggestRequest(images=[image_pb2.Image(content=CAT)]), timeout=5
    )
    best = suggested.results[0].suggestions.suggestions
    (row,) = floats(response, "PROBABILITY")
    assert [row[TINY_EMOJI.index(s.emoji)] for s in best] == [s.probability for s in best]
    assert texts(response, "EMOJI") == [[s.emoji for s in best]]
    assert (response.model_name, response.model_version) == ("tiny", suggested.model.version)


async def test_packed_requests_are_answered_packed_and_typed_ones_typed(served: Running) -> None:
    packed = await served.oip.ModelInfer(pictures(CAT, COFFEE), timeout=5)
    typed = await served.oip.ModelInfer(pictures(CAT, COFFEE, raw=False), timeout=5)
    assert len(packed.raw_output_contents) == len(packed.outputs) == 3
    assert not typed.raw_output_contents
    for name in ("PROBABILITY", "EMBEDDING"):
        assert np.array_equal(floats(packed, name), floats(typed, name))
    assert texts(packed, "EMOJI") == texts(typed, "EMOJI")


async def test_the_pictures_of_a_request_are_answered_in_their_order(starter: Path) -> None:
    name = model.load(starter).name
    async with inference(starter, "openvino") as running:
        ask = asking(pictures(*[CAT, COFFEE] * 4, name=name), "PROBABILITY", classes=1)
        response = await running.oip.ModelInfer(ask, timeout=20)
        labels = [row[0].split(":")[2] for row in texts(response, "PROBABILITY")]
        assert labels == ["🐱", "☕"] * 4


async def test_sixty_four_small_squares_are_answered_and_one_more_is_not(served: Running) -> None:
    response = await served.oip.ModelInfer(black(64), timeout=20)
    assert floats(response, "PROBABILITY").shape == (64, 5)
    assert (await refused(served, black(65)))[0] == "INVALID_ARGUMENT"


async def test_squares_are_seen_as_the_pictures_that_they_were_cut_from(starter: Path) -> None:
    published = model.load(starter)
    async with inference(starter, "openvino") as running:
        contents = [path.read_bytes() for path in installed()]
        cut = np.stack([model.view(published.preprocessing, content) for content in contents])
        encoded = asking(pictures(*contents, name=published.name), "PROBABILITY", "EMBEDDING")
        decoded = asking(squares(cut, name=published.name), "PROBABILITY", "EMBEDDING")
        one = await running.oip.ModelInfer(encoded, timeout=20)
        other = await running.oip.ModelInfer(decoded, timeout=20)
        for name in ("PROBABILITY", "EMBEDDING"):
            assert np.allclose(floats(one, name), floats(other, name), rtol=0, atol=1e-6)


async def test_squares_do_not_go_through_a_decoder(served: Running) -> None:
    await served.oip.ModelInfer(black(3), timeout=5)
    labels = {"outcome": "served", "priority": "interactive"}
    wait = "emojinet_queue_wait_seconds_count"
    assert served.sample(wait, stage="device", **labels) == 3
    assert served.sample(wait, stage="decode", **labels) == 0
    assert served.sample("emojinet_stage_seconds_count", stage="decode") == 0


async def test_one_bad_picture_is_the_end_of_the_call_and_is_named(served: Running) -> None:
    for bad, reason in ((b"no image", "UNDECODABLE_IMAGE"), (b"", "EMPTY_IMAGE")):
        code, error = await refused(served, pictures(CAT, bad, CAT))
        assert (code, errors.reason_name(error)) == ("INVALID_ARGUMENT", f"ERROR_REASON_{reason}")
        assert str(error).startswith("IMAGE[1]: ")
        assert error.metadata["index"] == "1"
    for outcome in ("served", "cancelled", "error"):  # nothing was spent on its neighbours
        labels = {"stage": "decode", "outcome": outcome, "priority": "interactive"}
        assert served.sample("emojinet_queue_wait_seconds_count", **labels) == 0
    cut_short = CAT[: len(CAT) // 2]  # which only decoding finds out
    code, error = await refused(served, pictures(CAT, CAT, cut_short))
    assert (code, error.metadata["index"]) == ("INVALID_ARGUMENT", "2")


async def test_what_breaks_a_rule_is_told_with_its_field(served: Running) -> None:
    ask = pictures(CAT)
    ask.inputs[0].shape[0] = 2
    code, error = await refused(served, ask)
    assert (code, type(error)) == ("INVALID_ARGUMENT", errors.MalformedRequest)
    assert error.metadata["field"] == "IMAGE"
    code, error = await refused(served, asking(pictures(CAT), "SCORE"))
    assert (code, error.metadata["field"]) == ("INVALID_ARGUMENT", "outputs")


async def test_only_the_served_model_is_found(served: Running) -> None:
    version = model.load(served.service.served().model.folder).version
    for name, asked in (("tiny", "0" * 12), ("tiny", "1"), ("other", ""), ("", "")):
        ask = pictures(CAT, name=name)
        ask.model_version = asked
        code, error = await refused(served, ask)
        assert (code, type(error)) == ("NOT_FOUND", errors.UnknownModel)
        ready = await served.oip.ModelReady(pb.ModelReadyRequest(name=name, version=asked))
        assert not ready.ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.oip.ModelMetadata(pb.ModelMetadataRequest(name=name, version=asked))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    ask = pictures(CAT)
    ask.model_version = version
    assert (await served.oip.ModelInfer(ask, timeout=5)).model_version == version
    assert (await served.oip.ModelReady(pb.ModelReadyRequest(name="tiny", version=version))).ready


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        (None, "interactive"),
        ({"uint64_param": 0}, "interactive"),
        ({"uint64_param": 1}, "interactive"),
        ({"int64_param": 1}, "interactive"),
        ({"uint64_param": 2}, "bulk"),
        ({"uint64_param": 2**64 - 1}, "bulk"),
    ],
)
async def test_the_highest_priority_is_interactive_and_any_lower_is_bulk(
    served: Running, parameter: dict[str, int] | None, line: str
) -> None:
    ask = pictures(CAT)
    if parameter is not None:
        ask.parameters["priority"].MergeFrom(pb.InferParameter(**parameter))  # type: ignore[arg-type]
    await served.oip.ModelInfer(ask, timeout=5)
    labels = {"stage": "device", "outcome": "served", "priority": line}
    assert served.sample("emojinet_queue_wait_seconds_count", **labels) == 1


async def test_the_earlier_of_timeout_and_deadline_counts(tiny: Path) -> None:
    async with inference(tiny, "timed:300ms") as running:
        ask = pictures(CAT)
        ask.parameters["timeout"].int64_param = 100_000
        code, error = await refused(running, ask, timeout=30)
        assert (code, type(error)) == ("DEADLINE_EXCEEDED", errors.DeadlineTooShort)
        ask.parameters["timeout"].int64_param = 10_000_000
        assert (await refused(running, ask, timeout=0.2))[0] == "DEADLINE_EXCEEDED"
        await running.oip.ModelInfer(ask, timeout=30)
        ask.parameters["timeout"].int64_param = 0  # none
        await running.oip.ModelInfer(ask)
        ask.parameters["timeout"].int64_param = -1
        code, error = await refused(running, ask)
        assert (code, error.metadata["field"]) == ("INVALID_ARGUMENT", "timeout")


@pytest.mark.parametrize("decoded", [False, True])
async def test_what_only_this_server_cannot_answer_in_time_says_when_to_try_again(
    tiny: Path, decoded: bool
) -> None:
    async with inference(tiny, "timed:600ms") as running:
        ask = black(1) if decoded else pictures(CAT)
        ask.parameters["timeout"].uint64_param = 6_000_000
        calls = [running.oip.ModelInfer(ask, timeout=30) for _ in range(40)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        shed = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert {error.code() for error in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (from_rpc(shed[0], "").retry_seconds or 0) >= 0.05
        assert 4 <= len(outcomes) - len(shed) <= 10
        labels = {"reason": "overloaded", "priority": "interactive"}
        assert running.sample("emojinet_shed_total", **labels) == len(shed)  # at once


async def test_other_parameters_are_ignored_and_the_id_comes_back(served: Running) -> None:
    ask = pictures(CAT)
    ask.id = "call-7"
    ask.parameters["topk"].int64_param = -3
    ask.parameters["sequence_id"].string_param = "s"
    ask.inputs[0].parameters["binary_data_size"].int64_param = 5
    assert (await served.oip.ModelInfer(ask, timeout=5)).id == "call-7"


async def test_readiness_is_that_of_our_own_service(served: Running) -> None:
    async def said() -> tuple[bool, bool, bool, list[str]]:
        live_ = await served.oip.ServerLive(pb.ServerLiveRequest())
        ready = await served.oip.ServerReady(pb.ServerReadyRequest())
        of_model = await served.oip.ModelReady(pb.ModelReadyRequest(name="tiny"))
        index = await served.oip.RepositoryIndex(pb.RepositoryIndexRequest())
        return live_.live, ready.ready, of_model.ready, [each.state for each in index.models]

    assert await said() == (True, True, True, ["READY"])
    served.service.draining = True
    assert await said() == (True, False, False, ["UNAVAILABLE"])
    only_ready = await served.oip.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert not only_ready.models
    assert (await refused(served, pictures(CAT)))[0] == "UNAVAILABLE"
    served.service.draining = False
    before, served.service.serving = served.service.serving, None
    assert await said() == (True, False, False, [])
    code, error = await refused(served, pictures(CAT))
    assert (code, type(error)) == ("FAILED_PRECONDITION", errors.NoModel)
    served.service.serving = before


async def test_metadata_and_configuration_say_what_the_model_takes_and_gives(
    served: Running,
) -> None:
    metadata = await served.oip.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
    config = (await served.oip.ModelConfig(pb.ModelConfigRequest(name="tiny"))).config
    told = {t.name: (t.datatype, list(t.shape)) for t in [*metadata.inputs, *metadata.outputs]}
    assert told == {
        "IMAGE": ("BYTES", [-1]),
        "PIXELS": ("FP32", [-1, 32, 32, 3]),
        "PROBABILITY": ("FP32", [-1, 5]),
        "EMOJI": ("BYTES", [-1, 5]),
        "EMBEDDING": ("FP32", [-1, 6]),
    }
    assert metadata.versions == [served.service.served().model.version]
    assert "scaled to 37, the middle 32" in metadata.properties["PIXELS"]
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "timed:5ms", 64)
    assert {t.name: list(t.dims) for t in config.output} == {
        name: shape[1:] for name, (_, shape) in told.items() if name not in ("IMAGE", "PIXELS")
    }
    assert [(t.name, list(t.dims), t.optional) for t in config.input] == [
        ("IMAGE", [1], True),
        ("PIXELS", [32, 32, 3], True),
    ]
    assert config.parameters["labels"].string_value.split() == list(TINY_EMOJI)


async def test_models_are_loaded_by_the_registry_and_not_by_a_call(served: Running) -> None:
    for call in (
        served.oip.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny")),
        served.oip.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "emojinet model activate" in (caught.value.details() or "")
        assert from_rpc(caught.value, "").metadata["field"] == "method"


async def test_statistics_count_what_really_ran(tiny: Path) -> None:
    async with inference(tiny, "timed:40ms+1ms") as running:
        image = image_pb2.Image(content=CAT)
        await running.stub.Suggest(own.SuggestRequest(images=[image]), timeout=5)
        await asyncio.gather(
            *[running.oip.ModelInfer(pictures(CAT, CAT), timeout=5) for _ in "abc"]
        )
        await running.oip.ModelInfer(black(2), timeout=5)
        await refused(running, pictures(CAT, b"no image"))
        asked = pb.ModelStatisticsRequest(name="tiny")
        (done,) = (await running.oip.ModelStatistics(asked)).model_stats
        stats = done.inference_stats
        assert (done.name, done.inference_count, stats.success.count) == ("tiny", 9, 5)
        assert (stats.fail.count, stats.fail.ns > 0) == (1, True)
        phases = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
        assert {phase.count for phase in phases} == {5}
        assert sum(phase.ns for phase in phases) == pytest.approx(stats.success.ns, abs=1000)
        assert stats.compute_infer.ns >= 5 * 40e6
        batches = {b.batch_size: b.compute_infer for b in done.batch_stats}
        assert sum(b.count for b in batches.values()) == done.execution_count < 9
        assert sum(size * b.count for size, b in batches.items()) == 9
        for size, b in batches.items():
            assert b.ns / b.count >= (39 + size) * 1e6
        assert (await running.oip.ModelStatistics(pb.ModelStatisticsRequest())).model_stats == [
            done
        ]


async def test_calls_are_counted_by_method_and_code(served: Running) -> None:
    name = "emojinet_requests_total"
    assert served.registry.get_sample_value(name, {"method": "ModelInfer", "code": "OK"}) == 0
    await served.oip.ModelInfer(pictures(CAT), timeout=5)
    await refused(served, pictures())
    assert served.sample(name, method="ModelInfer", code="OK") == 1
    assert served.sample(name, method="ModelInfer", code="INVALID_ARGUMENT") == 1


async def test_nothing_of_an_unforeseen_exception_reaches_the_caller(served: Running) -> None:
    before = served.service.serving
    served.service.serving = "not a model: /secret/path"  # type: ignore[assignment]
    code, error = await refused(served, pictures(CAT))
    served.service.serving = before
    assert (code, type(error)) == ("INTERNAL", errors.Internal)
    assert "secret" not in str(error)


async def test_cancelled_calls_leave_the_queues_empty(tiny: Path) -> None:
    async with inference(tiny, "timed:50ms") as running:
        calls = [running.oip.ModelInfer(pictures(CAT), timeout=60) for _ in range(100)]
        await asyncio.sleep(0.3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await running.oip.ModelInfer(pictures(CAT), timeout=10)
        assert running.service.served().in_flight == 0
        for stage in ("decode", "device"):
            assert running.sample("emojinet_queue_depth", stage=stage) == 0


async def test_a_swap_fails_no_call_and_no_answer_mixes_two_models(
    tiny: Path, tmp_path: Path
) -> None:
    again = shutil.copytree(tiny, tmp_path / "tiny")
    with (again / "manifest.json").open("a") as file:
        file.write("\n")  # the version is its digest
    async with inference(tiny) as running:
        first, other = model.load(tiny), model.load(again)
        ask = pictures(*[CAT] * 8)
        calls = [running.oip.ModelInfer(ask, timeout=20) for _ in range(5)]
        serving = await running.start(other, "timed:8ms")
        calls += [running.oip.ModelInfer(ask, timeout=20) for _ in range(5)]
        await asyncio.sleep(0.1)
        old = running.service.served()
        turning = asyncio.create_task(live.turn(running.service, serving, running.metrics))
        calls += [running.oip.ModelInfer(ask, timeout=20) for _ in range(5)]
        answers = await asyncio.gather(*calls)
        await turning
        versions = [answer.model_version for answer in answers]
        assert set(versions) == {first.version, other.version}
        for one, version in ((old, first.version), (serving, other.version)):
            ran = sum(size * count for size, (count, _) in one.gate.queue.batches.items())
            assert ran == 8 * versions.count(version)


async def test_a_stream_answers_every_request_in_order_and_goes_on_after_an_error(
    served: Running,
) -> None:
    async def asks() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(50):
            ask = pictures(CAT) if number % 10 else pictures(b"no image")
            ask.id = str(number)
            yield ask

    responses = [response async for response in served.oip.ModelStreamInfer(asks(), timeout=30)]
    assert [int(response.infer_response.id) for response in responses] == list(range(50))
    for number, response in enumerate(responses):
        if number % 10:
            assert not response.error_message
            assert floats(response.infer_response, "PROBABILITY").shape == (1, 5)
            assert response.infer_response.parameters["triton_final_response"].bool_param
        else:
            assert response.error_message.startswith("INVALID_ARGUMENT: IMAGE[0]: ")
            assert not response.infer_response.outputs


async def test_a_stream_that_is_left_takes_its_work_along(tiny: Path) -> None:
    async def endless() -> AsyncIterator[pb.ModelInferRequest]:
        while True:
            yield pictures(CAT)

    async with inference(tiny, "timed:50ms") as running:
        stream = running.oip.ModelStreamInfer(endless())
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(5):
            while running.service.served().in_flight:
                await asyncio.sleep(0.01)
        assert running.sample("emojinet_queue_depth", stage="device") == 0


def test_the_client_library_never_loads_stubs_that_tritonclient_has_too() -> None:
    program = (
        "import sys, clients.cli, clients.client, services.shared.harness\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'inference'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    importers = [
        path
        for folder in ("clients", "services/shared", "services/crawler", "services/trainer")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(from|import) inference\b", path.read_text(), re.MULTILINE)
    ]
    assert importers == []
