import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from PIL import Image

from clients.client import from_rpc
from emojinet.v1 import image_pb2
from emojinet.v1 import inference_service_pb2 as pb
from services.inference import live
from services.shared import errors, model, network
from services.shared.cores import cores
from services.shared.photographs import installed
from tests.inference.running import Running, inference

CAT = next(path for path in installed() if path.name == "chelsea.png").read_bytes()
COFFEE = next(path for path in installed() if path.name == "coffee.png").read_bytes()


@pytest.fixture
async def served(tiny: Path) -> AsyncIterator[Running]:
    async with inference(tiny) as running:
        yield running


def request(*contents: bytes, **fields: object) -> pb.SuggestRequest:
    images = [image_pb2.Image(content=content) for content in contents]
    return pb.SuggestRequest(images=images, **fields)  # type: ignore[arg-type]


def reason(error: grpc.aio.AioRpcError) -> str:
    return errors.reason_name(from_rpc(error, ""))


async def refusal(running: Running, ask: pb.SuggestRequest, timeout: float = 5) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Suggest(ask, timeout=timeout)
    return caught.value.code().name, reason(caught.value)


async def test_suggestions_come_back_most_likely_first(served: Running) -> None:
    response = await served.stub.Suggest(request(CAT), timeout=5)
    (result,) = response.results
    assert [s.emoji for s in result.suggestions.suggestions] == ["🍕", "🐕", "❤️", "🌅", "🚗"]
    assert result.suggestions.suggestions[0].name == "pizza"
    assert result.suggestions.suggestions[0].probability == pytest.approx(0.5, abs=1e-4)


async def test_every_answer_says_which_model_spoke_and_on_what(served: Running) -> None:
    response = await served.stub.Suggest(request(CAT), timeout=5)
    assert response.model.name == "tiny"
    assert response.model.backend == "timed:5ms"
    assert response.model.precision == "exact"
    described = await served.stub.GetServedModel(pb.GetServedModelRequest(), timeout=5)
    assert described.model == response.model
    assert list(described.emoji) == ["🍕", "🐕", "❤️", "🌅", "🚗"]
    assert described.card.startswith("# tiny")


async def test_every_answer_says_where_its_time_went(served: Running) -> None:
    response = await served.stub.Suggest(request(CAT), timeout=5)
    timing = response.results[0].timing
    assert timing.batch_size == 1
    assert timing.decode.ToNanoseconds() > 0
    assert timing.compute.ToNanoseconds() >= 5e6
    parts = (timing.decode_wait, timing.decode, timing.queue_wait, timing.compute)
    assert timing.total.ToNanoseconds() >= sum(part.ToNanoseconds() for part in parts)


async def test_one_bad_image_has_its_own_error_and_changes_nothing_for_its_neighbours(
    served: Running,
) -> None:
    ask = request(CAT, b"", b"no image", CAT[: len(CAT) // 2], COFFEE)
    response = await served.stub.Suggest(ask, timeout=5)
    found = [errors.info(result.error.details).reason for result in response.results]
    assert found == [
        "",
        "ERROR_REASON_EMPTY_IMAGE",
        "ERROR_REASON_UNDECODABLE_IMAGE",
        "ERROR_REASON_UNDECODABLE_IMAGE",
        "",
    ]
    alone = await served.stub.Suggest(request(CAT), timeout=5)
    assert response.results[0].suggestions == alone.results[0].suggestions


async def test_a_single_bad_image_is_the_error_of_its_result_and_the_call_is_ok(
    served: Running,
) -> None:
    response = await served.stub.Suggest(request(b"no image"), timeout=5)
    assert response.results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_an_image_over_ten_mebibytes_is_too_large(served: Running) -> None:
    response = await served.stub.Suggest(request(CAT + bytes(10 << 20)), timeout=5)
    info = errors.info(response.results[0].error.details)
    assert info.reason == "ERROR_REASON_IMAGE_TOO_LARGE"
    assert info.metadata["limit"] == str(10 << 20)


async def test_a_message_over_sixteen_mebibytes_is_refused_by_the_channel(served: Running) -> None:
    ask = request(*[bytes(6 << 20)] * 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Suggest(ask, timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (request(), "images"),
        (request(*[CAT[:9]] * 65), "images"),
        (request(CAT, max_suggestions=-1), "max_suggestions"),
        (request(CAT, max_suggestions=101), "max_suggestions"),
        (request(CAT, min_probability=-0.1), "min_probability"),
        (request(CAT, min_probability=float("nan")), "min_probability"),
        (request(CAT, priority=7), "priority"),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(
    served: Running, ask: pb.SuggestRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Suggest(ask, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc(caught.value, "").metadata["field"] == field


async def test_the_numbers_of_a_request_are_honoured(served: Running) -> None:
    response = await served.stub.Suggest(request(CAT, max_suggestions=2), timeout=5)
    assert len(response.results[0].suggestions.suggestions) == 2
    response = await served.stub.Suggest(request(CAT, min_probability=0.15), timeout=5)
    assert [s.emoji for s in response.results[0].suggestions.suggestions] == ["🍕", "🐕", "❤️"]


async def test_another_model_than_the_served_one_is_not_found(served: Running) -> None:
    version = (await served.stub.Suggest(request(CAT), timeout=5)).model.version
    for name in ("tiny", f"tiny@{version}"):
        await served.stub.Suggest(request(CAT, model=name), timeout=5)
    found = await refusal(served, request(CAT, model="other"))
    assert found == ("NOT_FOUND", "ERROR_REASON_UNKNOWN_MODEL")


async def test_an_emoji_that_the_model_lacks_cannot_be_explained(served: Running) -> None:
    found = await refusal(served, request(CAT, explain_emoji="🦀"))
    assert found == ("NOT_FOUND", "ERROR_REASON_UNKNOWN_EMOJI")


async def test_a_deadline_that_even_an_idle_server_would_miss_is_refused_at_once(
    tiny: Path,
) -> None:
    async with inference(tiny, "timed:2000ms") as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Suggest(request(CAT), timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason(caught.value) == "ERROR_REASON_DEADLINE_TOO_SHORT"
        labels = {"reason": "deadline", "priority": "interactive"}
        assert running.sample("emojinet_shed_total", **labels) == 1


async def test_what_only_this_server_cannot_answer_in_time_says_when_to_try_again(
    tiny: Path,
) -> None:
    async with inference(tiny, "timed:600ms") as running:
        calls = [running.stub.Suggest(request(CAT), timeout=6) for _ in range(40)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [o for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
        assert {o.code() for o in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (from_rpc(refused[0], "").retry_seconds or 0) >= 0.05
        assert 4 <= len(outcomes) - len(refused) <= 10
        labels = {"reason": "overloaded", "priority": "interactive"}
        assert running.sample("emojinet_shed_total", **labels) == len(refused)
        waits = {"stage": "decode", "outcome": "shed", "priority": "interactive"}
        assert running.sample("emojinet_queue_wait_seconds_count", **waits) == len(refused)


async def test_a_thousand_cancelled_calls_leave_the_queues_empty(tiny: Path) -> None:
    async with inference(tiny, "timed:50ms") as running:
        calls = [running.stub.Suggest(request(CAT), timeout=60) for _ in range(1000)]
        await asyncio.sleep(0.5)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await running.stub.Suggest(request(CAT), timeout=10)
        for stage in ("decode", "device"):
            assert running.sample("emojinet_queue_depth", stage=stage) == 0
        served = {"stage": "device", "outcome": "served", "priority": "interactive"}
        assert running.sample("emojinet_queue_wait_seconds_count", **served) < 200


async def test_without_a_model_the_precondition_fails(served: Running) -> None:
    before, served.service.serving = served.service.serving, None
    found = await refusal(served, request(CAT))
    served.service.serving = before
    assert found == ("FAILED_PRECONDITION", "ERROR_REASON_NO_MODEL")


async def test_nothing_of_an_unforeseen_exception_reaches_the_caller(served: Running) -> None:
    before = served.service.serving
    served.service.serving = "not a model: /secret/path"  # type: ignore[assignment]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Suggest(request(CAT), timeout=5)
    served.service.serving = before
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert "str" not in (caught.value.details() or "").split()
    assert reason(caught.value) == "ERROR_REASON_INTERNAL"


async def test_calls_are_counted_by_method_and_code(served: Running) -> None:
    await served.stub.Suggest(request(CAT), timeout=5)
    await refusal(served, request())
    assert served.sample("emojinet_requests_total", method="Suggest", code="OK") == 1
    labels = {"method": "Suggest", "code": "INVALID_ARGUMENT"}
    assert served.sample("emojinet_requests_total", **labels) == 1


async def test_a_stream_answers_each_request_by_its_id_and_goes_on_after_an_error(
    served: Running,
) -> None:
    async def asks() -> AsyncIterator[pb.SuggestStreamRequest]:
        for number in range(50):
            ask = request(CAT) if number % 10 else request()
            yield pb.SuggestStreamRequest(id=number, request=ask)

    responses = {r.id: r async for r in served.stub.SuggestStream(asks(), timeout=30)}
    assert sorted(responses) == list(range(50))
    failed = [id_ for id_, r in responses.items() if r.HasField("error")]
    assert sorted(failed) == [0, 10, 20, 30, 40]
    bulk = {"stage": "device", "outcome": "served", "priority": "bulk"}
    assert served.sample("emojinet_queue_wait_seconds_count", **bulk) == 45


async def test_a_swap_fails_no_call_and_every_answer_names_one_model(tiny: Path) -> None:
    async with inference(tiny) as running:
        first = model.load(tiny)
        other = dataclasses.replace(first, name="other", folder=first.folder)
        calls = [running.stub.Suggest(request(CAT), timeout=10) for _ in range(20)]
        serving = await running.start(other)
        more = [running.stub.Suggest(request(CAT), timeout=10) for _ in range(5)]
        turning = asyncio.create_task(live.turn(running.service, serving, running.metrics))
        more += [running.stub.Suggest(request(CAT), timeout=10) for _ in range(20)]
        answers = await asyncio.gather(*calls, *more)
        await turning
        names = [answer.model.name for answer in answers]
        assert set(names) == {"tiny", "other"}
        assert names[-1] == "other"
        info = {"version": first.version, "backend": "timed:5ms", "precision": "exact"}
        assert running.sample("emojinet_model_info", name="other", **info) == 1
        assert running.sample("emojinet_model_info", name="tiny", **info) == 0


async def test_answers_agree_with_an_offline_forward_pass_of_the_same_model(starter: Path) -> None:
    published = model.load(starter)
    net = network.read(published)
    torch.set_num_threads(1)  # the server's workers want the cores, too
    async with inference(starter, "openvino") as running:
        for path in installed():
            content = path.read_bytes()
            ask = request(content, max_suggestions=100)
            response = await running.stub.Suggest(ask, timeout=10)
            view = model.view(published.preprocessing, content)[None]
            offline = published.probabilities(network.look(net, view)[0])[0]
            for s in response.results[0].suggestions.suggestions:
                index = published.vocabulary.index(s.emoji)
                assert s.probability == pytest.approx(offline[index], abs=1e-4)


async def test_only_the_one_call_of_a_server_gets_all_cores(starter: Path) -> None:
    async with inference(starter, "openvino") as running:
        assert running.service.serving is not None
        seconds = running.service.serving.gate.curve.seconds
        before = dict(seconds)
        await running.stub.Suggest(request(CAT), timeout=10)
        # What all cores have computed tells nothing of a batch on one.
        assert (seconds == before) is (cores() > 1)
        for _ in range(3):
            calls = [running.stub.Suggest(request(CAT), timeout=10) for _ in range(4)]
            await asyncio.gather(*calls)
        assert seconds != before


async def test_a_cat_is_explained_and_embedded(starter: Path) -> None:
    async with inference(starter, "openvino") as running:
        ask = request(CAT, explain_emoji="🐱", include_embedding=True)
        response = await running.stub.Suggest(ask, timeout=10)
        seen = response.results[0].suggestions
        assert seen.suggestions[0].emoji in ("🐱", "🐈")
        assert len(seen.embedding) == 1280
        evidence = np.asarray(Image.open(io.BytesIO(seen.saliency.png)))
        assert evidence.shape == (224, 224)
        assert evidence.max() > 200
        assert evidence.std() > 20
        assert 0 <= seen.saliency.box.left < seen.saliency.box.right <= 1
