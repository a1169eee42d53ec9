"""`POST /api/suggest`: the answers of the inference service, and its refusals, over HTTP."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from clients.client import AsyncClient
from clients.remote import Remote
from clients.web import form as forms
from clients.web import room
from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors, photographs
from tests.clients.standin import MODEL, Standin, fail
from tests.clients.web.serving import form, serving
from tests.inference.running import inference

JPEG = b"\xff\xd8\xff\xe0 a picture"
CAT = next(path for path in photographs.installed() if path.name == "chelsea.png")


def refusing(error: errors.EmojinetError) -> Callable[[int, grpc.ServicerContext], Any]:
    """A server that answers every call so."""
    return lambda number, context: fail(context, error)


async def test_the_answer_is_the_one_that_grpc_gives(tiny: Path) -> None:
    options = {"max_suggestions": 3, "min_probability": 0.01}
    async with inference(tiny) as running, serving(running.address) as page:
        status, told = await page.suggest(
            form(("cat.png", CAT.read_bytes()), max_suggestions="3", min_probability="0.01")
        )
        async with AsyncClient(running.address) as client:
            same = await client.suggest([CAT.read_bytes()], timeout=10, **options)  # type: ignore[arg-type]
    assert status == 200
    assert told["model"] == {
        name: getattr(same.model, name) for name in ("name", "version", "backend", "precision")
    }
    result = told["results"][0]
    assert result["name"] == "cat.png"
    assert [
        (s.emoji, s.name, pytest.approx(s.probability, abs=1e-6))
        for s in same.results[0].suggestions.suggestions
    ] == [(s["emoji"], s["name"], s["probability"]) for s in result["suggestions"]]
    assert result["timing"]["total_seconds"] > 0


async def test_every_option_of_the_contract_reaches_the_server() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, _ = await page.suggest(
                form(
                    ("a.jpg", JPEG), explain_emoji="🍕", include_embedding="true", priority="bulk"
                ),
                "?max_suggestions=7&min_probability=0.25&model=standin",
            )
    assert status == 200
    asked = server.requests[0]
    assert asked.priority == pb.PRIORITY_BULK
    assert asked.include_embedding
    assert (asked.explain_emoji, asked.model) == ("🍕", "standin")
    assert (asked.max_suggestions, asked.min_probability) == (7, 0.25)


async def test_saliency_and_embedding_come_as_json() -> None:
    def look(content: bytes) -> pb.SuggestResult:
        result = pb.SuggestResult()
        result.suggestions.embedding.extend([0.5, -0.25])
        result.suggestions.saliency.MergeFrom(
            pb.Saliency(emoji="🍕", png=b"PNG", box=pb.Box(left=0.25, right=0.75, bottom=1))
        )
        return result

    with Standin(look) as server:
        async with serving(server.address) as page:
            _, told = await page.suggest(form(("a.jpg", JPEG)))
    seen = told["results"][0]
    assert seen["embedding"] == [0.5, -0.25]
    assert base64.b64decode(seen["saliency"]["png"]) == b"PNG"
    assert seen["saliency"]["box"] == {"left": 0.25, "top": 0, "right": 0.75, "bottom": 1}


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream"])
async def test_a_body_that_is_a_picture_is_one(kind: str) -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(JPEG, headers={"Content-Type": kind})
    assert (status, told["results"][0]["name"]) == (200, "")
    assert server.requests[0].images[0].content == JPEG


async def test_what_is_wrong_with_one_of_several_harms_no_other() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(
                form(("a.jpg", JPEG), ("b.txt", b"text"), ("c.jpg", JPEG))
            )
    assert status == 200
    assert [result["name"] for result in told["results"]] == ["a.jpg", "b.txt", "c.jpg"]
    assert ["error" in result for result in told["results"]] == [False, True, False]
    error = told["results"][1]["error"]
    assert (error["status"], error["reason"]) == (422, "ERROR_REASON_UNDECODABLE_IMAGE")


async def test_what_is_wrong_with_the_only_picture_is_the_answer() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(form(("b.txt", b"text")))
    assert (status, told["status"], told["detail"]) == (422, 422, "The bytes are no image.")


async def test_a_refusal_says_when_to_come_again() -> None:
    busy = errors.Overloaded("Others are ahead.", retry_seconds=20.3, waitMilliseconds="400")
    with Standin(before=refusing(busy)) as server:
        async with serving(server.address) as page, aiohttp.ClientSession() as session:
            url = f"{page.url}/api/suggest"
            async with session.post(url, data=form(("a.jpg", JPEG))) as response:
                told = await response.json(content_type=None)
                headers = response.headers
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Retry-After"] == "21"
    assert told == {
        "type": "tag:emojinet,2026:overloaded",
        "title": "Overloaded",
        "status": 429,
        "detail": "Others are ahead.",
        "code": "RESOURCE_EXHAUSTED",
        "reason": "ERROR_REASON_OVERLOADED",
        "metadata": {"waitMilliseconds": "400"},
        "retry_seconds": 20.3,
    }


async def test_the_callers_deadline_is_the_servers() -> None:
    left: list[float] = []
    with Standin(before=lambda number, context: left.append(context.time_remaining())) as server:
        async with serving(server.address) as page:
            await page.suggest(form(("a.jpg", JPEG), timeout_seconds="8.5"))
            await page.suggest(form(("a.jpg", JPEG)))
    assert 7 < left[0] < 9  # gRPC rounds up
    assert 9 < left[1] < 10.5


async def test_a_server_that_is_not_there_is_told_of() -> None:
    async with serving("127.0.0.1:9") as page:
        status, told = await page.suggest(form(("a.jpg", JPEG)))
        assert (status, told["reason"]) == (503, "ERROR_REASON_SERVER_UNREACHABLE")
        assert "python -m services.inference" in told["detail"]
        assert (await page.get("/healthz"))[0] == 200  # the page itself lives


async def test_a_client_that_goes_away_cancels_its_call() -> None:
    began, cancelled = threading.Event(), threading.Event()

    def before(number: int, context: grpc.ServicerContext) -> None:
        context.add_callback(cancelled.set)
        began.set()
        cancelled.wait(10)

    with Standin(before=before) as server:
        async with serving(server.address) as page:
            asking = asyncio.create_task(page.suggest(form(("a.jpg", JPEG))))
            assert await asyncio.to_thread(began.wait, 10)
            asking.cancel()
            assert await asyncio.to_thread(cancelled.wait, 10)


@pytest.mark.parametrize(
    ("data", "query", "field", "said"),
    [
        (form(), "?top=3", "top", "There is no field 'top'"),
        (form(("a.jpg", JPEG)), "?max_sugestions=3", "max_sugestions", "did you mean max_suggest"),
        (form(("a.jpg", JPEG)), "?max_suggestions=many", "max_suggestions", "a whole number"),
        (form(("a.jpg", JPEG)), "?timeout_seconds=0", "timeout_seconds", "more than 0"),
        (form(("a.jpg", JPEG)), "?timeout_seconds=nan", "timeout_seconds", "more than 0"),
        (form(("a.jpg", JPEG)), "?priority=high", "priority", "interactive or bulk, not 'high'"),
        (form(("a.jpg", JPEG)), "?include_embedding=maybe", "include_embedding", "true or false"),
        (form(max_suggestions="3"), "", "image", "There must be 1 to 64 pictures"),
        ({"image": "text"}, "", "", "An image must be a file"),
        ({}, "", "image", "curl -F image=@photo.jpg"),
        (b"x" * 70_000, "", "", "is too large for one without files"),
    ],
)
async def test_wrong_use_says_what_would_be_right(
    data: Any, query: str, field: str, said: str
) -> None:
    if isinstance(data, bytes):  # as curl --data-binary sends it
        more = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    else:
        more = {}
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(data, query, **more)
    assert (status, told["reason"]) == (400, "ERROR_REASON_MALFORMED_REQUEST")
    assert said in told["detail"]
    assert field in ("", told["metadata"]["field"])
    assert server.requests == []


async def test_a_file_under_another_name_is_asked_for_as_an_image() -> None:
    data = aiohttp.FormData()
    data.add_field("file", JPEG, filename="a.jpg")
    with Standin() as server:
        async with serving(server.address) as page:
            _, told = await page.suggest(data)
    assert told["detail"] == "There is no field 'file': did you mean image?"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "multipart/form-data"}, b"--x\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"nothing of the kind"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nContent-Dispo"),
        ({"Content-Type": "application/json"}, b'{"images": []}'),
        ({"Content-Type": "text/html; charset=\xff"}, b"<html>"),
    ],
)
async def test_a_broken_form_is_a_problem_and_no_fault(
    headers: dict[str, str], body: bytes
) -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(body, headers=headers)
    assert (status, told["code"]) == (400, "INVALID_ARGUMENT")


async def test_too_large_a_body_is_refused_without_being_kept() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 20)

    with Standin() as server:
        async with serving(server.address) as page:
            declared = await page.suggest(form(("a.jpg", bytes(100 << 20))))
            chunked = await page.suggest(endless(), headers={"Content-Type": "image/jpeg"})
    for status, told in (declared, chunked):
        assert (status, told["reason"]) == (413, "ERROR_REASON_IMAGE_TOO_LARGE")
    assert server.requests == []


async def test_pictures_that_are_too_much_together_are_refused_here() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(
                form(("a.jpg", JPEG + bytes(8 << 20)), ("b.jpg", JPEG + bytes(8 << 20)))
            )
    assert (status, told["reason"]) == (413, "ERROR_REASON_IMAGE_TOO_LARGE")
    assert "Together" in told["detail"]


async def test_uploads_that_would_take_all_memory_are_asked_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MAX_BYTES", 1 << 20)
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(form(("a.jpg", JPEG + bytes(2 << 20))))
            again, _ = await page.suggest(form(("a.jpg", JPEG)))  # what was held is given back
    assert (status, told["retry_seconds"], again) == (429, 1.0, 200)


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BODY_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield JPEG
        await asyncio.sleep(5)

    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(slow(), headers={"Content-Type": "image/jpeg"})
    assert (status, told["code"]) == (408, "DEADLINE_EXCEEDED")


@asynccontextmanager
async def host(routes: Mapping[str, Callable[[web.Request], Any]]) -> AsyncIterator[str]:
    """A host of pictures on loopback; its URL."""
    site = web.Application()
    for path, answer in routes.items():
        site.router.add_get(path, answer)
    runner = web.AppRunner(site, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def picture(request: web.Request) -> web.Response:
    return web.Response(body=JPEG)


async def moved(request: web.Request) -> web.Response:
    raise web.HTTPFound("/photo.jpg")


async def round_again(request: web.Request) -> web.Response:
    raise web.HTTPFound("/loop")


async def huge(request: web.Request) -> web.Response:
    return web.Response(body=bytes((10 << 20) + 1))


async def never(request: web.Request) -> web.Response:
    await asyncio.sleep(5)
    raise AssertionError("nobody waits so long")


HOST = {
    "/photo.jpg": picture,
    "/moved": moved,
    "/loop": round_again,
    "/huge": huge,
    "/never": never,
}


async def test_a_url_is_fetched_and_looked_at() -> None:
    with Standin() as server:
        async with host(HOST) as here, serving(server.address, allow=True) as page:
            status, told = await page.suggest(
                form(("", f"{here}/moved"), ("a.jpg", JPEG), include_picture="true")
            )
            _, without = await page.suggest({"url": f"{here}/photo.jpg"})
    assert status == 200
    assert [image.content for image in server.requests[0].images] == [JPEG, JPEG]
    fetched, sent = told["results"]
    assert (fetched["name"], base64.b64decode(fetched["picture"])) == (f"{here}/moved", JPEG)
    assert "picture" not in sent
    assert "picture" not in without["results"][0]


@pytest.mark.parametrize(
    ("path", "timeout", "status", "reason"),
    [
        ("/none", 10, 422, "URL_FAILED"),
        ("/loop", 10, 422, "URL_FAILED"),
        ("/huge", 10, 413, "IMAGE_TOO_LARGE"),
        ("/never", 1, 422, "URL_FAILED"),
    ],
)
async def test_a_url_that_gives_no_picture_says_why(
    path: str, timeout: int, status: int, reason: str
) -> None:
    with Standin() as server:
        async with host(HOST) as here, serving(server.address, allow=True) as page:
            found, told = await page.suggest({"url": here + path, "timeout_seconds": f"{timeout}"})
    assert (found, told["reason"]) == (status, f"ERROR_REASON_{reason}")
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x.jpg",
        "http://localhost:8080/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.0.0.1.nip.io./" + "x" * 9000,
        "file:///etc/passwd",
        "ws://example.org/",
        "javascript:alert(1)",
        "http://user:secret@example.org/",
        "not a url",
        "",
    ],
)
async def test_a_url_into_our_own_network_is_refused(url: str) -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest({"url": url})
    assert (status, told["reason"]) == (403, "ERROR_REASON_URL_REFUSED")
    assert server.requests == []


async def test_a_redirect_into_our_own_network_is_refused() -> None:
    asked: list[str] = []

    async def inside(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=JPEG)

    async def lead(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://127.0.0.2:{request.url.port}/inside")

    only = [ip_network("127.0.0.1/32")]
    async with host({"/lead": lead, "/inside": inside}) as here, Remote(only) as remote:
        told = await remote.picture(f"{here}/lead", 5)
    assert isinstance(told, errors.UrlRefused)
    assert asked == []


async def test_too_many_urls_are_refused() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(form(*[("", "http://127.0.0.1/")] * 9))
    assert (status, told["metadata"]["field"]) == (400, "image")


async def test_names_are_told_as_they_came() -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e.jpg"
    with Standin() as server:
        async with serving(server.address) as page:
            _, told = await page.suggest(form((hostile, JPEG), ("n" * 999, JPEG)))
    assert [result["name"] for result in told["results"]] == [hostile, "n" * 255]
    assert json.loads(json.dumps(told)) == told
    assert told["model"]["name"] == MODEL.name
