"""The web program as a whole: its pages, its headers, and the description that it keeps to."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from clients.web import app
from emojinet.v1 import inference_service_pb2 as pb
from tests.clients.standin import Context, Standin
from tests.clients.web.serving import form, serving
from tests.clients.web.test_service import CAT, metrics
from tests.inference.running import inference

DESCRIPTION = json.loads((Path(app.__file__).parent / "openapi.json").read_text())


def keeps_to(schema: str, told: Any) -> None:
    """Raises unless the JSON is what the description says of it."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": DESCRIPTION["components"]}
    Draft202012Validator(reference).validate(told)


async def test_the_description_is_served_and_is_valid() -> None:
    async with serving("127.0.0.1:9") as page:
        _, _, told = await page.get("/api/openapi.json")
    assert told == DESCRIPTION
    validate(told)


async def test_answers_keep_to_the_description(tiny: Path) -> None:
    async with inference(tiny) as running:
        with metrics(running.registry) as url:
            async with serving(running.address, url) as page:
                pictures = form(("a.png", CAT), ("b.txt", b"no picture"), include_embedding="1")
                status, told = await page.suggest(pictures)
                assert status == 200
                keeps_to("Suggested", told)
                keeps_to("Problem", told["results"][1]["error"])
                _, _, service = await page.get("/api/service")
                keeps_to("Service", service)
                _, problem = await page.suggest(form(("b.txt", b"no picture")))
                keeps_to("Problem", problem)
                _, _, served = await page.get("/api/model")
                keeps_to("Model", served["model"])
                assert served["emoji"][0] == "🍕"


async def test_the_description_names_every_option_of_the_contract() -> None:
    named = {p["name"] for p in DESCRIPTION["paths"]["/api/suggest"]["post"]["parameters"]}
    fields = set(pb.SuggestRequest.DESCRIPTOR.fields_by_name) - {"images"}
    assert named == fields | {"include_picture", "timeout_seconds"}


@pytest.mark.parametrize("path", ["/", "/service", "/api/model", "/api/nothing", "/static/none"])
async def test_every_answer_carries_the_strict_policy(path: str) -> None:
    async with serving("127.0.0.1:9") as page:
        _, headers, _ = await page.get(path)
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/none", 404),
        ("/api/suggest", 405),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
async def test_what_is_not_there_is_a_problem(path: str, status: int) -> None:
    async with serving("127.0.0.1:9") as page:
        found, headers, told = await page.get(path)
    assert (found, headers["Content-Type"]) == (status, "application/problem+json")
    keeps_to("Problem", told)


async def test_the_page_of_another_site_may_not_use_the_api() -> None:
    with Standin() as server:
        async with serving(server.address) as page:
            elsewhere = {"Sec-Fetch-Site": "cross-site"}
            status, told = await page.suggest(form(("a.jpg", b"\xff\xd8")), headers=elsewhere)
            assert (status, told["code"]) == (403, "PERMISSION_DENIED")
            own = {"Sec-Fetch-Site": "same-origin"}
            status, _ = await page.suggest(form(("a.jpg", b"\xff\xd8")), headers=own)
            assert status == 200
    assert len(server.requests) == 1


async def test_what_nobody_foresaw_tells_an_id_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(app, "STATIC", tmp_path)  # a page that is not where it belongs
    async with serving("127.0.0.1:9") as page:
        status, headers, told = await page.get("/")
    assert (status, told["reason"]) == (500, "ERROR_REASON_INTERNAL")
    assert str(tmp_path) not in json.dumps(told)
    assert len(told["metadata"]["id"]) == 12
    assert "content-security-policy" in headers


async def test_a_server_that_answers_nonsense_is_a_problem() -> None:
    class Mute(Standin):
        def Suggest(self, request: pb.SuggestRequest, context: Context) -> pb.SuggestResponse:
            return pb.SuggestResponse()

    with Mute() as server:
        async with serving(server.address) as page:
            status, told = await page.suggest(form(("a.jpg", b"\xff\xd8")))
    assert (status, told["reason"]) == (500, "ERROR_REASON_INTERNAL")
