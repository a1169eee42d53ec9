"""Failures that cross a program's boundary, and the one place they become a gRPC status.

EmojinetError
├── the caller's request
│   ├── MalformedRequest    INVALID_ARGUMENT     a field breaks its rule
│   ├── UnknownModel        NOT_FOUND            another model is served
│   ├── UnknownEmoji        NOT_FOUND            not in the vocabulary
│   ├── UnknownCrawl        NOT_FOUND            no crawl of that name
│   ├── UnknownDataset      NOT_FOUND            no data set of that name
│   ├── UnknownRun          NOT_FOUND            no run of that name
│   ├── AlreadyExists       ALREADY_EXISTS       a data set of that name does
│   └── NotReady            FAILED_PRECONDITION  needs what is not there yet
├── the caller's image (the error of its result, never of the call)
│   ├── EmptyImage          INVALID_ARGUMENT     no bytes
│   ├── UndecodableImage    INVALID_ARGUMENT     no image, or a broken one
│   ├── UnsupportedFormat   INVALID_ARGUMENT     a kind of file we do not decode
│   ├── ImageTooLarge       INVALID_ARGUMENT     bytes or pixels
│   ├── DecodeLimit         INVALID_ARGUMENT     more time or memory than an honest image needs
│   └── DecoderDied         UNAVAILABLE          twice, for reasons of its own
├── where crawls take from and put to
│   ├── BadSource           FAILED_PRECONDITION  not what it should be
│   ├── SourceRefused       PERMISSION_DENIED    a token that is missing, wrong or expired
│   ├── SourceUnavailable   UNAVAILABLE          does not answer now
│   ├── StorageFailed       RESOURCE_EXHAUSTED   a full or failing disk
│   └── BadDataset          FAILED_PRECONDITION  missing, incomplete or altered
├── what is trained
│   ├── TrainingFailed      FAILED_PRECONDITION  a loss that is not finite, nothing to learn from
│   └── UselessModel        FAILED_PRECONDITION  no better than the most frequent emoji
├── the caller
│   ├── Unauthenticated     UNAUTHENTICATED      a token that is missing or unknown
│   └── Forbidden           PERMISSION_DENIED    the token's role may not do this
├── this server, now
│   ├── Overloaded          RESOURCE_EXHAUSTED   others are ahead; carries RetryInfo
│   ├── DeadlineTooShort    DEADLINE_EXCEEDED    even an idle server would miss it
│   ├── NoModel             FAILED_PRECONDITION  none is loaded yet
│   ├── BadModel            FAILED_PRECONDITION  missing, altered or not runnable here
│   ├── Draining            UNAVAILABLE          shutting down
│   ├── DeviceDied          UNAVAILABLE          the accelerator's worker did
│   └── Internal            INTERNAL             nobody foresaw it; the log has the id
└── found by a program, before or instead of a server
    ├── FileNotFound        NOT_FOUND
    ├── FileUnreadable      PERMISSION_DENIED
    ├── UrlRefused          PERMISSION_DENIED
    ├── UrlFailed           NOT_FOUND
    └── ServerUnreachable   UNAVAILABLE
"""

import contextlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from emojinet.v1 import error_reason_pb2 as reasons

Detail = TypeVar("Detail", error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)
DOMAIN = "emojinet"
PUSHBACK = "grpc-retry-pushback-ms"
MAX_RETRY_SECONDS = 86_400.0
CODES = {code.value[0]: code for code in grpc.StatusCode}


class EmojinetError(Exception):
    """A failure the caller is told about: what was wrong, what would be right, and its facts."""

    code: grpc.StatusCode
    reason: reasons.ErrorReason

    def __init__(
        self, message: str, *, retry_seconds: float | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.metadata = metadata
        self.retry_seconds = retry_seconds


class MalformedRequest(EmojinetError):
    """A field of the request breaks its rule."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = reasons.ERROR_REASON_MALFORMED_REQUEST


class UnknownModel(EmojinetError):
    """Another model is served than the one asked for."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_UNKNOWN_MODEL


class UnknownEmoji(EmojinetError):
    """The served model does not know the emoji."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_UNKNOWN_EMOJI


class UnknownCrawl(EmojinetError):
    """There is no crawl of that name."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_UNKNOWN_CRAWL


class UnknownDataset(EmojinetError):
    """There is no data set of that name."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_UNKNOWN_DATASET


class UnknownRun(EmojinetError):
    """There is no run of that name."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_UNKNOWN_RUN


class AlreadyExists(EmojinetError):
    """A data set of that name exists."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = reasons.ERROR_REASON_ALREADY_EXISTS


class NotReady(EmojinetError):
    """What was asked for needs something that is not there yet."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_NOT_READY


class BadSource(EmojinetError):
    """A source of posts is not what it should be."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_BAD_SOURCE


class SourceRefused(EmojinetError):
    """A source of posts does not let us in."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_SOURCE_REFUSED


class SourceUnavailable(EmojinetError):
    """A source of posts does not answer now."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_SOURCE_UNAVAILABLE


class StorageFailed(EmojinetError):
    """A disk is full or failing."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = reasons.ERROR_REASON_STORAGE_FAILED


class BadDataset(EmojinetError):
    """A data set on disk is missing, incomplete or altered."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_BAD_DATASET


class TrainingFailed(EmojinetError):
    """A training cannot go on."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_TRAINING_FAILED


class UselessModel(EmojinetError):
    """A model is no better than always saying the most frequent emoji."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_USELESS_MODEL


class ImageError(EmojinetError):
    """What is wrong with one image; harms no other."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class EmptyImage(ImageError):
    """The image has no bytes."""

    reason = reasons.ERROR_REASON_EMPTY_IMAGE


class UndecodableImage(ImageError):
    """The bytes are no image, or a broken one."""

    reason = reasons.ERROR_REASON_UNDECODABLE_IMAGE


class UnsupportedFormat(ImageError):
    """The bytes are a kind of file that is not decoded here."""

    reason = reasons.ERROR_REASON_UNSUPPORTED_FORMAT


class ImageTooLarge(ImageError):
    """More bytes or more pixels than an image may have."""

    reason = reasons.ERROR_REASON_IMAGE_TOO_LARGE


class DecodeLimit(ImageError):
    """Decoding took more time or memory than any honest image of this size needs."""

    reason = reasons.ERROR_REASON_DECODE_LIMIT


class DecoderDied(ImageError):
    """The decoder died twice for reasons of its own."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_DECODER_DIED


class Unauthenticated(EmojinetError):
    """The server wants a token, and got none, or one that it does not know."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = reasons.ERROR_REASON_UNAUTHENTICATED


class Forbidden(EmojinetError):
    """The role of the caller's token may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_FORBIDDEN


class Overloaded(EmojinetError):
    """An idle server would have answered in time, this one cannot."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = reasons.ERROR_REASON_OVERLOADED


class DeadlineTooShort(EmojinetError):
    """Even an idle server would miss the deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = reasons.ERROR_REASON_DEADLINE_TOO_SHORT


class NoModel(EmojinetError):
    """No model is loaded yet."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_NO_MODEL


class BadModel(EmojinetError):
    """A model on disk is missing, incomplete, altered, or cannot run here."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = reasons.ERROR_REASON_BAD_MODEL


class Draining(EmojinetError):
    """The server is shutting down; another replica will answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_DRAINING


class DeviceDied(EmojinetError):
    """The worker that held the accelerator died."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_DEVICE_DIED


class Internal(EmojinetError):
    """Something nobody foresaw; the log has the details under the id."""

    code = grpc.StatusCode.INTERNAL
    reason = reasons.ERROR_REASON_INTERNAL


class FileNotFound(EmojinetError):
    """There is no such file on the caller's machine."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_FILE_NOT_FOUND


class FileUnreadable(EmojinetError):
    """The file may not or cannot be read, or is not what it should be."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_FILE_UNREADABLE


class UrlRefused(EmojinetError):
    """The URL is none that we fetch."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = reasons.ERROR_REASON_URL_REFUSED


class UrlFailed(EmojinetError):
    """The URL's host did not give the file."""

    code = grpc.StatusCode.NOT_FOUND
    reason = reasons.ERROR_REASON_URL_FAILED


class ServerUnreachable(EmojinetError):
    """Nothing that speaks the contract answers at the address."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = reasons.ERROR_REASON_SERVER_UNREACHABLE


def reason_name(error: EmojinetError | type[EmojinetError]) -> str:
    """The reason as it travels in `ErrorInfo.reason`."""
    return reasons.ErrorReason.Name(error.reason)


def to_proto(error: EmojinetError) -> status_pb2.Status:
    """The status with `ErrorInfo`, and `RetryInfo` where trying again later may help (AIP-193)."""
    status = status_pb2.Status(code=error.code.value[0], message=_utf8(str(error)))
    facts = {key: _utf8(value) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=reason_name(error), domain=DOMAIN, metadata=facts)
    status.details.add().Pack(info)
    if error.retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_seconds * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_proto(status: status_pb2.Status) -> EmojinetError:
    """The error that `to_proto` was given; `Internal` for a status that is none of ours."""
    found = info(status.details)
    kind = _by_reason().get(found.reason, Internal) if found.domain == DOMAIN else Internal
    error = kind(status.message, retry_seconds=_retry_seconds(status.details))
    if kind is Internal:  # a reason newer than this program is treated by its code
        error.code = CODES.get(status.code, Internal.code)
    error.metadata = dict(found.metadata)  # not as keywords: a server may send any key
    return error


def _utf8(text: str) -> str:
    """Names of files may hold bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


@cache
def _by_reason() -> dict[str, type[EmojinetError]]:
    return {reason_name(kind): kind for kind in _kinds(EmojinetError)}


def _kinds(parent: type[EmojinetError]) -> Iterator[type[EmojinetError]]:
    for kind in parent.__subclasses__():
        yield from _kinds(kind)
        if hasattr(kind, "reason"):
            yield kind


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: EmojinetError) -> NoReturn:
    """Ends the RPC with the status of `error`; never returns."""
    facts = tuple(error.metadata.items())
    status = _status(type(error), str(error), error.retry_seconds, facts)  # type: ignore[arg-type]
    trailers = status.trailing_metadata
    if error.retry_seconds is not None:  # for clients that know gRPC's own word for it (gRFC A6)
        trailers = (*trailers, (PUSHBACK, str(round(error.retry_seconds * 1000))))
    await context.abort(status.code, status.details, trailers)


# Under overload thousands of refusals say the same, and have to cost next to nothing.
@lru_cache(maxsize=256)
def _status(
    kind: type[EmojinetError],
    message: str,
    retry_seconds: float | None,
    facts: tuple[tuple[str, str], ...],
) -> grpc.Status:
    error = kind(message, retry_seconds=retry_seconds)
    error.metadata = dict(facts)
    return rpc_status.to_status(to_proto(error))


def info(details: Iterable[any_pb2.Any]) -> error_details_pb2.ErrorInfo:
    """The `ErrorInfo` among a status's details; an empty one where there is none."""
    return _unpacked(details, error_details_pb2.ErrorInfo) or error_details_pb2.ErrorInfo()


def _retry_seconds(details: Iterable[any_pb2.Any]) -> float | None:
    found = _unpacked(details, error_details_pb2.RetryInfo)
    if found is None:
        return None
    delay = found.retry_delay  # of any numbers: ToTimedelta would raise
    return min(max(0, delay.seconds * 10**9 + delay.nanos) / 10**9, MAX_RETRY_SECONDS)


def _unpacked(details: Iterable[any_pb2.Any], kind: type[Detail]) -> Detail | None:
    """The first detail of that kind that can be read: a server may send any bytes."""
    for detail in details:
        found = kind()
        with contextlib.suppress(DecodeError):
            if detail.Unpack(found):
                return found
    return None
