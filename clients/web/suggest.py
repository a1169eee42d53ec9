"""`POST /api/suggest`: pictures in, what the inference service answers out."""

import asyncio
import base64
import time
from collections.abc import Coroutine
from typing import Any

from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clients import answers
from clients.client import AsyncClient
from clients.pictures import LIMIT_BYTES
from clients.remote import Remote
from clients.web import form, problems
from clients.web.form import Asked, Picture
from clients.web.room import Held, Room
from emojinet.v1 import inference_service_pb2 as pb
from emojinet.v1.model_pb2 import ServedModel
from services.shared import errors
from services.shared.errors import EmojinetError

GONE = 499  # nobody reads it


class Suggest:
    """Answers requests for suggestions; one object for all of them."""

    def __init__(self, client: AsyncClient, remote: Remote, room: Room) -> None:
        self._client, self._remote, self._room = client, remote, room

    async def __call__(self, request: Request) -> Response:
        """The answer; raises EmojinetError for what concerns the request as a whole."""
        with self._room.held() as held:
            asked = await form.read(request, held)
            return await _unless_gone(request, self._answer(asked, held))

    async def _answer(self, asked: Asked, held: Held) -> Response:
        deadline = time.monotonic() + asked.timeout_seconds
        held.take(sum(LIMIT_BYTES for picture in asked.pictures if picture.url is not None))
        contents = await asyncio.gather(*(self._content(p, deadline) for p in asked.pictures))
        sound = [content for content in contents if isinstance(content, bytes)]
        if sum(map(len, sound)) > form.MAX_PICTURES_BYTES:
            raise form.too_large("Together the pictures have")
        left = max(0.001, deadline - time.monotonic())
        response = (
            await self._client.suggest(sound, timeout=left, **asked.options)
            if sound
            else pb.SuggestResponse()
        )
        if len(response.results) != len(sound):
            raise errors.Internal(f"The server sent {len(response.results)} for {len(sound)}.")
        seen = iter(response.results)
        results: list[dict[str, Any]] = [
            _result(picture, next(seen), asked)
            if isinstance(content, bytes)
            else {"name": picture.name, "error": problems.as_object(content)}
            for picture, content in zip(_with(asked.pictures, contents), contents, strict=True)
        ]
        if len(results) == 1 and "error" in results[0]:
            return problems.response(results[0]["error"])
        return JSONResponse({**_model(response.model), "results": results})

    async def _content(self, picture: Picture, deadline: float) -> bytes | EmojinetError:
        if picture.url is None:
            return picture.content
        return await self._remote.picture(picture.url, deadline - time.monotonic())


def _with(pictures: list[Picture], contents: list[bytes | EmojinetError]) -> list[Picture]:
    """The pictures, those that were fetched with their content."""
    return [
        picture._replace(content=content) if isinstance(content, bytes) else picture
        for picture, content in zip(pictures, contents, strict=True)
    ]


def _result(picture: Picture, result: pb.SuggestResult, asked: Asked) -> dict[str, Any]:
    """One picture's answer, by the contract's names."""
    if result.HasField("error"):
        return {"name": picture.name, "error": _problem(result.error)}
    found = result.suggestions
    told: dict[str, Any] = {
        "name": picture.name,
        "suggestions": answers.suggestions(found),
        "timing": answers.timing(result.timing),
    }
    if found.HasField("saliency"):
        told["saliency"] = _saliency(found.saliency)
    if found.embedding:
        told["embedding"] = list(found.embedding)
    if picture.url is not None and asked.include_picture:
        told["picture"] = base64.b64encode(picture.content).decode()
    return told


def _problem(status: status_pb2.Status) -> dict[str, Any]:
    return problems.as_object(errors.from_proto(status))


def _saliency(seen: pb.Saliency) -> dict[str, Any]:
    box = seen.box
    return {
        "emoji": seen.emoji,
        "png": base64.b64encode(seen.png).decode(),
        "box": {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom},
    }


def _model(model: ServedModel) -> dict[str, Any]:
    """Which model spoke; nothing where no picture came to it."""
    return {"model": model_object(model)} if model.name else {}


def model_object(model: ServedModel) -> dict[str, str]:
    """A model's label, as in JSON."""
    return {name: getattr(model, name) for name in model.DESCRIPTOR.fields_by_name}


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer, or its cancelling when nobody waits for it any more."""
    work = asyncio.create_task(answer)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await work if work.done() else Response(status_code=GONE)
    finally:
        work.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
