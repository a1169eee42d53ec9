"""What the clients of services with long work share: calls, watching, and what goes wrong."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

import grpc

from clients.client import channel_options, from_rpc
from clients.credentials import Credentials, trouble
from services.shared.errors import EmojinetError, ServerUnreachable
from services.shared.watching import LIVE

TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # with a server that was there and is gone, while watching
RETRY_SECONDS = 0.5

T = TypeVar("T", bound=Any)
Note = Callable[[str], object]


class Calling:
    """Calls a server and waits for it, ten seconds at most; threads may share one."""

    SERVICE: str

    def __init__(
        self, server: str, stub: Callable[[grpc.Channel], Any], credentials: Credentials | None
    ) -> None:
        self._server = server
        credentials = credentials or Credentials.of_environment()
        # A server that comes back is found soon, not after gRPC's pauses of up to two minutes.
        options = [*channel_options(server), ("grpc.max_reconnect_backoff_ms", 1_000)]
        self._channel = credentials.channel(server, options)
        self._stub = stub(self._channel)

    def close(self) -> None:
        """Ends the connection, and with it all watching."""
        self._channel.close()

    def _call(
        self, method: Callable[..., Any], request: object, seconds: float = TIMEOUT_SECONDS
    ) -> Any:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as failure:
            raise self._error(failure) from failure

    def _watch(self, begin: Callable[[], Iterable[T]], note: Note) -> Iterator[T]:
        """What one stream after the other says, without repetitions, until it has ended.

        The server itself ends streams now and then, so that clients find its new replicas.
        """
        last: T | None = None
        losses, lost_seconds = 0, 0.0
        while True:
            error: EmojinetError = self._unreachable()
            try:
                for now in begin():
                    losses = 0
                    if now != last:
                        yield now
                    last = now
            except grpc.RpcError as failure:
                error = self._error(failure)
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise error from failure
            if last and last.state not in LIVE:
                return
            losses += 1
            if losses == 1:
                lost_seconds = time.monotonic()
            elif losses == 2:
                note(f"{self._server} does not answer; trying for {PATIENCE_SECONDS:.0f} s …")
            if time.monotonic() - lost_seconds > PATIENCE_SECONDS:
                raise error
            time.sleep(RETRY_SECONDS)

    def _error(self, failure: grpc.RpcError) -> EmojinetError:
        error = from_rpc(failure, self._server)
        if not isinstance(error, ServerUnreachable):
            return error
        return trouble(self._server, failure.details()) or self._unreachable()

    def _unreachable(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"No EmojiNet {self.SERVICE} answers at {self._server}: "
            f"start one with `python -m services.{self.SERVICE}`."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
