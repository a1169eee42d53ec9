"""What went wrong, as HTTP tells it: RFC 9457 problems that carry the contract's reason."""

import math
from http import HTTPStatus
from typing import Any

import grpc
from starlette.responses import JSONResponse

from emojinet.v1 import error_reason_pb2 as reasons
from services.shared import errors
from services.shared.errors import EmojinetError

MEDIA_TYPE = "application/problem+json"
PREFIX = "ERROR_REASON_"
# As google.rpc.Code maps them; CANCELLED has no better number than the one that nginx logs.
STATUSES = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
BY_STATUS = {status: code for code, status in STATUSES.items()} | {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# Where HTTP has a word of its own for what happened.
BY_REASON = {
    reasons.ERROR_REASON_EMPTY_IMAGE: 422,
    reasons.ERROR_REASON_UNDECODABLE_IMAGE: 422,
    reasons.ERROR_REASON_DECODE_LIMIT: 422,
    reasons.ERROR_REASON_UNSUPPORTED_FORMAT: 415,
    reasons.ERROR_REASON_IMAGE_TOO_LARGE: 413,
    reasons.ERROR_REASON_NO_MODEL: 503,
    reasons.ERROR_REASON_URL_FAILED: 422,  # 404 would speak of our own URL
    # The token is the page's, not that of whoever reads this.
    reasons.ERROR_REASON_UNAUTHENTICATED: 502,
    reasons.ERROR_REASON_FORBIDDEN: 502,
}


def as_object(error: EmojinetError) -> dict[str, Any]:
    """The problem's members; `status` is what HTTP says where this is the only outcome."""
    reason = errors.reason_name(error).removeprefix(PREFIX)
    told = {
        "type": f"tag:emojinet,2026:{reason.lower().replace('_', '-')}",
        "title": reason.replace("_", " ").capitalize().replace("Url", "URL"),
        "status": BY_REASON.get(error.reason, STATUSES.get(error.code, 500)),
        "detail": str(error),
        "code": error.code.name,
        "reason": errors.reason_name(error),
        "metadata": error.metadata,
    }
    if error.retry_seconds is not None:
        told["retry_seconds"] = error.retry_seconds
    return told


def response(problem: dict[str, Any]) -> JSONResponse:
    """The problem as the whole answer."""
    headers = {}
    if (seconds := problem.get("retry_seconds")) is not None:
        headers["Retry-After"] = str(math.ceil(seconds))  # HTTP knows whole seconds alone
    return JSONResponse(problem, problem["status"], headers, MEDIA_TYPE)


def of_http(status: int, detail: str) -> dict[str, Any]:
    """A problem of HTTP alone: no such path, no such method, a body that does not come."""
    title = HTTPStatus(status).phrase
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": BY_STATUS.get(status, grpc.StatusCode.INVALID_ARGUMENT).name,
        "reason": errors.reason_name(errors.MalformedRequest),
        "metadata": {},
    }
