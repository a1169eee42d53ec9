"""Who is let in, where a server knows tokens: everyone else is refused, whatever they ask for."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from services.shared import errors
from services.shared.errors import EmojinetError, Forbidden, Unauthenticated
from services.shared.roles import ANYONE, NEEDED, OPERATE, may
from services.shared.tokens import SCHEME, Tokens


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Looks at the token of every call; of one that it refuses the request is not even read."""

    def __init__(self, tokens: Tokens, count: Callable[[str, grpc.StatusCode], None]) -> None:
        self._tokens, self._count = tokens, count

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's own handler, or one that refuses."""
        needed = NEEDED.get(details.method)
        if needed == ANYONE:
            return await continuation(details)
        token = _token(details.invocation_metadata)
        role = self._tokens.role(token) if token else None
        if role is None:
            return self._refused(details.method, UNKNOWN if token else MISSING)
        if needed is not None and may(role, needed):
            return await continuation(details)
        if needed is None and await continuation(details) is None:
            return None  # there is no such method, whoever asks
        return self._refused(details.method, FORBIDDEN)

    def _refused(self, method: str, refusal: "_Refusal") -> Any:
        if method in NEEDED:  # nobody else's words become a label
            self._count(method.rpartition("/")[2], refusal.error.code)
        return refusal.handler


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token of `authorization: Bearer …`; empty where there is none."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and value.startswith(SCHEME):
            return value[len(SCHEME) :]
    return ""


class _Refusal:
    """Answers methods of every kind: as one of streams it waits for no request."""

    def __init__(self, error: EmojinetError) -> None:
        self.error, self.handler = error, grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, requests: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await errors.abort(context, self.error)


MISSING = _Refusal(Unauthenticated("This server wants a token, and none came with the call."))
UNKNOWN = _Refusal(Unauthenticated("This server does not know the call's token."))
FORBIDDEN = _Refusal(Forbidden(f"The token's role may not do this; {OPERATE} may.", role=OPERATE))
