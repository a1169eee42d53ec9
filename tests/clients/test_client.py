"""Both clients against a real server: each test of a call runs with the one and with the other."""

import asyncio
import json
import socket
import time
from typing import Any, Protocol

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from clients import client
from clients.client import AsyncClient, Client
from emojinet.v1 import error_reason_pb2 as reasons
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from tests.clients.standin import EMOJI, MODEL, Context, Standin, fail, hold

JPEG = b"\xff\xd8 and so on"


class Suggest(Protocol):
    def __call__(self, server: str, images: list[bytes], **options: Any) -> pb.SuggestResponse: ...


def suggest_sync(server: str, images: list[bytes], **options: Any) -> pb.SuggestResponse:
    with Client(server) as client:
        return client.suggest(images, **options)


def suggest_async(server: str, images: list[bytes], **options: Any) -> pb.SuggestResponse:
    async def call() -> pb.SuggestResponse:
        async with AsyncClient(server) as client:
            return await client.suggest(images, **options)

    return asyncio.run(call())


@pytest.fixture(params=[suggest_sync, suggest_async])
def suggest(request: pytest.FixtureRequest) -> Suggest:
    return request.param


def busy(retry_seconds: float | None, times: int = 1_000_000) -> Any:
    def before(number: int, context: Context) -> None:
        if number <= times:
            fail(context, errors.Overloaded("Others are ahead.", retry_seconds=retry_seconds))

    return before


def test_each_image_has_its_result_in_the_order_of_the_images(suggest: Suggest) -> None:
    with Standin() as server:
        response = suggest(server.address, [JPEG, b"no image", JPEG], timeout=10)

    assert [result.WhichOneof("outcome") for result in response.results] == [
        "suggestions",
        "error",
        "suggestions",
    ]
    assert [emoji for emoji, _, _ in EMOJI] == [
        suggestion.emoji for suggestion in response.results[0].suggestions.suggestions
    ]
    assert response.model == MODEL


def test_options_are_the_fields_of_the_request(suggest: Suggest) -> None:
    with Standin() as server:
        suggest(
            server.address,
            [JPEG],
            timeout=10,
            max_suggestions=7,
            min_probability=0.25,
            priority=pb.PRIORITY_BULK,
            include_embedding=True,
            explain_emoji="🍕",
            model="starter",
        )

    (request,) = server.requests
    assert (
        request.max_suggestions,
        request.min_probability,
        request.priority,
        request.include_embedding,
        request.explain_emoji,
        request.model,
    ) == (7, 0.25, pb.PRIORITY_BULK, True, "🍕", "starter")


def test_the_served_model_is_named_with_its_emoji_and_card() -> None:
    async def ask(server: str) -> pb.GetServedModelResponse:
        async with AsyncClient(server) as client:
            return await client.served_model()

    with Standin() as server, Client(server.address) as client:
        assert client.served_model().model == MODEL
        assert asyncio.run(ask(server.address)).emoji == ["🍕"]


def test_an_answer_larger_than_grpc_takes_by_itself_arrives(suggest: Suggest) -> None:
    def look(content: bytes) -> pb.SuggestResult:
        return pb.SuggestResult(
            suggestions=pb.Suggestions(saliency=pb.Saliency(png=bytes(5 << 20)))
        )

    with Standin(look) as server:
        (result,) = suggest(server.address, [JPEG], timeout=10).results

    assert len(result.suggestions.saliency.png) == 5 << 20


def test_a_busy_server_is_asked_again_when_it_said(suggest: Suggest) -> None:
    with Standin(before=busy(0.2, times=1)) as server:
        began = time.monotonic()
        response = suggest(server.address, [JPEG], timeout=10)
        took = time.monotonic() - began

    assert len(response.results) == 1
    assert len(server.requests) == 2
    assert took >= 0.2


def test_a_server_that_stays_busy_is_asked_only_a_few_times(suggest: Suggest) -> None:
    with Standin(before=busy(0)) as server, pytest.raises(errors.Overloaded):
        suggest(server.address, [JPEG], timeout=10)

    assert len(server.requests) == client.MAX_ATTEMPTS


def test_who_would_have_to_wait_beyond_the_deadline_is_told_at_once(suggest: Suggest) -> None:
    began = time.monotonic()
    with Standin(before=busy(60)) as server, pytest.raises(errors.Overloaded) as caught:
        suggest(server.address, [JPEG], timeout=30)

    assert time.monotonic() - began < 15
    assert len(server.requests) == 1
    assert caught.value.retry_seconds == 60


def test_waiting_and_trying_take_no_longer_than_the_caller_gave(suggest: Suggest) -> None:
    def before(number: int, context: Context) -> None:
        if number > 1:
            time.sleep(5)
        fail(context, errors.Overloaded("Others are ahead.", retry_seconds=0.5))

    with Standin(before=before) as server:
        began = time.monotonic()
        with pytest.raises(errors.EmojinetError) as caught:
            suggest(server.address, [JPEG], timeout=1.6)
        took = time.monotonic() - began

    assert grpc.StatusCode.DEADLINE_EXCEEDED is caught.value.code
    assert 1.5 <= took < 2.5


def test_a_refusal_that_names_no_time_is_final(suggest: Suggest) -> None:
    with Standin(before=busy(None)) as server, pytest.raises(errors.Overloaded):
        suggest(server.address, [JPEG], timeout=10)

    assert len(server.requests) == 1


def test_a_server_that_drains_is_tried_again(suggest: Suggest) -> None:
    def before(number: int, context: Context) -> None:
        if number < 3:
            fail(context, errors.Draining("Shutting down."))

    with Standin(before=before) as server:
        suggest(server.address, [JPEG], timeout=10)

    assert len(server.requests) == 3


def test_a_failure_that_is_not_of_the_moment_is_not_tried_again(suggest: Suggest) -> None:
    def before(number: int, context: Context) -> None:
        fail(context, errors.Internal("Id 42.", id="42"))

    with Standin(before=before) as server, pytest.raises(errors.Internal):
        suggest(server.address, [JPEG], timeout=10)

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "kind",
    [
        errors.MalformedRequest,
        errors.UnknownModel,
        errors.UnknownEmoji,
        errors.DeadlineTooShort,
        errors.NoModel,
        errors.BadModel,
        errors.Draining,
        errors.DeviceDied,
        errors.Internal,
    ],
)
def test_every_failure_of_a_server_arrives_as_its_own_type(
    kind: type[errors.EmojinetError], suggest: Suggest
) -> None:
    def before(number: int, context: Context) -> None:
        error = kind("What was wrong.", field="images")
        error.metadata["message"] = "a key that is no keyword here"
        fail(context, error)

    with Standin(before=before) as server, pytest.raises(kind, match="What was wrong") as caught:
        suggest(server.address, [JPEG], timeout=10)

    assert caught.value.metadata == {
        "field": "images",
        "message": "a key that is no keyword here",
    }


def ended(code: grpc.StatusCode, *details: Any) -> Any:
    """Ends the call with details that our servers do not send."""

    def before(number: int, context: Context) -> None:
        status = status_pb2.Status(code=code.value[0], message="Hm.")
        for detail in details:
            status.details.add().CopyFrom(detail)
        context.abort_with_status(rpc_status.to_status(status))

    return before


def packed(message: Any) -> any_pb2.Any:
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


@pytest.mark.parametrize(
    "details",
    [
        (),
        (
            packed(
                error_details_pb2.ErrorInfo(reason="ERROR_REASON_OF_NEXT_YEAR", domain="emojinet")
            ),
        ),
        (packed(error_details_pb2.ErrorInfo(reason="ERROR_REASON_OVERLOADED", domain="else.org")),),
        (any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff"),),
    ],
    ids=["no details", "a reason of later", "a reason of others", "nonsense"],
)
def test_a_failure_without_a_reason_we_know_keeps_its_code(
    details: tuple[Any, ...], suggest: Suggest
) -> None:
    before = ended(grpc.StatusCode.FAILED_PRECONDITION, *details)
    with (
        Standin(before=before) as server,
        pytest.raises(errors.EmojinetError, match="Hm") as caught,
    ):
        suggest(server.address, [JPEG], timeout=10)

    assert grpc.StatusCode.FAILED_PRECONDITION is caught.value.code
    assert caught.value.reason == reasons.ERROR_REASON_UNSPECIFIED


def test_where_nobody_listens_the_error_says_how_to_start_a_server(suggest: Suggest) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(errors.ServerUnreachable) as caught:
            suggest(address, [JPEG], timeout=10)

    assert address in str(caught.value)
    assert "python -m services.inference" in str(caught.value)
    assert "--local" in str(caught.value)


def test_another_server_than_ours_is_no_server(suggest: Suggest) -> None:
    before = ended(grpc.StatusCode.UNIMPLEMENTED)
    with Standin(before=before) as server, pytest.raises(errors.ServerUnreachable):
        suggest(server.address, [JPEG], timeout=10)


async def test_a_cancelled_task_cancels_its_call() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def before(number: int, context: Context) -> None:
        loop.call_soon_threadsafe(arrived.set)
        hold(context)
        loop.call_soon_threadsafe(gone.set)

    with Standin(before=before) as server:
        async with AsyncClient(server.address) as client:
            call = asyncio.create_task(client.suggest([JPEG], timeout=60))
            await arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(gone.wait(), 10)


def test_only_unavailable_is_retried_by_the_service_config() -> None:
    config = json.loads(client.SERVICE_CONFIG.read_text())

    (method,) = config["methodConfig"]
    service = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
    assert [{"service": service}] == method["name"]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert config["retryThrottling"]
