"""What a request asks for, read within bounds: pictures, URLs of pictures, options.

A body is counted as it comes: as its own, and as part of what all requests together may hold. None
of it touches a disk.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from clients.client import SuggestOptions
from clients.web.room import Held
from emojinet.v1 import inference_service_pb2 as pb
from services.shared.errors import ImageTooLarge, MalformedRequest

MAX_PICTURES, MAX_URLS = 64, 8
MAX_PICTURES_BYTES = (16 << 20) - (64 << 10)  # what one message of gRPC holds beside its frame
MAX_BODY_BYTES = 17 << 20
MAX_TEXT_BYTES = 64 << 10  # of a form without files
MAX_FIELD_BYTES = 16 << 10
MAX_NAME = 255
BODY_SECONDS = 30.0  # within which a body has to be here
DRAIN_BYTES, DRAIN_SECONDS = 128 << 20, 20.0
TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS = 10.0, 60.0
HOW = "Send pictures as parts of a form: curl -F image=@photo.jpg"
Value = str | UploadFile | bytes
PRIORITIES = {"interactive": pb.PRIORITY_INTERACTIVE, "bulk": pb.PRIORITY_BULK}


class Picture(NamedTuple):
    """One picture that was sent, or the URL of one."""

    name: str
    content: bytes = b""
    url: str | None = None


@dataclass(slots=True)
class Asked:
    """A request, understood."""

    pictures: list[Picture]
    options: SuggestOptions = field(default_factory=SuggestOptions)
    timeout_seconds: float = TIMEOUT_SECONDS
    include_picture: bool = False


async def read(request: Request, held: Held) -> Asked:
    """The request, which is then read to its end.

    Raises:
        MalformedRequest, ImageTooLarge: it is none, or too much.
        Overloaded: all requests together are.
        HTTPException: it does not come.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            items = await _items(request, held)
    except TimeoutError:
        raise HTTPException(408, f"The body did not come within {BODY_SECONDS:.0f} s.") from None
    asked = Asked([])
    try:
        for name, value in [*request.query_params.multi_items(), *items]:
            await _take(asked, name, value)
    finally:
        for _, value in items:
            if isinstance(value, UploadFile):
                await value.close()
    urls = sum(picture.url is not None for picture in asked.pictures)
    if not 1 <= len(asked.pictures) <= MAX_PICTURES or urls > MAX_URLS:
        raise MalformedRequest(
            f"There must be 1 to {MAX_PICTURES} pictures, of which {MAX_URLS} as URLs, and there "
            f"are {len(asked.pictures)} and {urls}. {HOW}",
            field="image",
        )
    return asked


def too_large(what: str) -> ImageTooLarge:
    """The refusal of more than a request may hold."""
    return ImageTooLarge(
        f"{what} more than {MAX_PICTURES_BYTES >> 10:,} KiB. A picture may have 10 MiB, all of a "
        "request together 16: scale them down, or send fewer at once.",
        limit=str(MAX_PICTURES_BYTES),
    )


async def _items(request: Request, held: Held) -> Sequence[tuple[str, Value]]:
    """The body's parts, in their order; one that is no form is a picture."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            body = _body(request, held, MAX_BODY_BYTES)
            parser = MultiPartParser(
                request.headers,
                body,
                max_files=MAX_PICTURES,
                max_fields=MAX_PICTURES,
                max_part_size=MAX_FIELD_BYTES,
            )
            parser.spool_max_size = MAX_BODY_BYTES
            return (await parser.parse()).multi_items()
        if kind == "application/x-www-form-urlencoded":  # what curl calls any data, too
            return await _text_items(request, held)
    except MultiPartException as error:
        raise MalformedRequest(f"The form is broken: {error.message} {HOW}", field="") from None
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise MalformedRequest(f"A body of type {kind[:80]} is not understood. {HOW}", field="")
    content = b"".join([chunk async for chunk in _body(request, held, MAX_BODY_BYTES)])
    return [("image", content)]


async def _text_items(request: Request, held: Held) -> Sequence[tuple[str, Value]]:
    try:
        body = _body(request, held, MAX_TEXT_BYTES)
        return (await FormParser(request.headers, body).parse()).multi_items()
    except ImageTooLarge:
        raise MalformedRequest(
            f"The body is called a form, and is too large for one without files. {HOW}, or say "
            "what it is: -H 'Content-Type: image/jpeg'.",
            field="",
        ) from None


async def _take(asked: Asked, name: str, value: Value) -> None:
    """Takes in one part of the form, or of the query."""
    if name == "image":
        asked.pictures.append(await _sent(value))
    elif name == "url" and isinstance(value, str):
        asked.pictures.append(Picture(value[:MAX_NAME], url=value))
    else:
        _set(asked, name, value)


async def _sent(value: Value) -> Picture:
    if isinstance(value, bytes):  # a body that is itself the picture
        return Picture("", value)
    if isinstance(value, str):
        raise MalformedRequest(f"An image must be a file, and one is text. {HOW}", field="image")
    return Picture((value.filename or "")[:MAX_NAME], await value.read())


async def _body(request: Request, held: Held, limit: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks, while they are few enough."""
    size = 0
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal() or int(declared) <= limit:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                break
            held.take(len(chunk))
            yield chunk
        else:
            return
    if "expect" not in request.headers:
        await _drained(request)
    raise too_large("The request has")


async def _drained(request: Request) -> None:
    """Takes in what nobody will read: a client that still sends would not hear the refusal."""
    size = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES:
                message = await request.receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _set(asked: Asked, name: str, value: Value) -> None:
    """Takes in an option, by its name in the contract."""
    if name not in OPTIONS:
        known = ("image", "url", *OPTIONS)
        # Whoever sends a file under any name means a picture.
        close = get_close_matches(name, known, n=1) if isinstance(value, str) else ["image"]
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
        raise MalformedRequest(f"There is no field {name[:80]!r}: {hint}", field=name[:80])
    parse, right = OPTIONS[name]
    try:
        if not isinstance(value, str):
            raise ValueError
        parsed = parse(value)
    except (ValueError, KeyError):
        told = value[:80] if isinstance(value, str) else "a file"
        raise MalformedRequest(f"{name} must be {right}, not {told!r}.", field=name) from None
    if name in ("timeout_seconds", "include_picture"):
        setattr(asked, name, parsed)
    else:
        asked.options[name] = parsed  # type: ignore[literal-required]


def _whole(text: str) -> int:
    if not 0 <= (number := int(text)) < 2**31:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) <= MAX_TIMEOUT_SECONDS:
        raise ValueError
    return seconds


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(names)


# What remains to be checked, the server checks: it knows the rules of its contract.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "max_suggestions": (_whole, "a whole number"),
    "min_probability": (float, "a number"),
    "priority": (PRIORITIES.__getitem__, _one_of(PRIORITIES)),
    "include_embedding": (_flag, "true or false"),
    "include_picture": (_flag, "true or false"),
    "explain_emoji": (str, "an emoji"),
    "model": (str, "a model's name"),
    "timeout_seconds": (_seconds, f"more than 0, and at most {MAX_TIMEOUT_SECONDS:.0f}"),
}
