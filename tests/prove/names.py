"""A name server for one name, whose addresses change: what a headless Service is to clients."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from dnslib import QTYPE, RR, A, DNSRecord  # type: ignore[import-untyped]
from dnslib.server import (  # type: ignore[import-untyped]
    BaseResolver,
    DNSHandler,
    DNSLogger,
    DNSServer,
)

NAME = "emojinet-inference.emojinet.test"


class _Addresses(BaseResolver):
    def __init__(self, addresses: Callable[[], Iterable[str]]) -> None:
        self._addresses = addresses

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        """All addresses to who asks for IPv4; no IPv6, and nobody may remember."""
        reply = request.reply()
        if request.q.qtype == QTYPE.A and str(request.q.qname).rstrip(".") == NAME:
            for address in self._addresses():
                reply.add_answer(RR(NAME, QTYPE.A, rdata=A(address), ttl=0))
        return reply


@contextmanager
def serving(addresses: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Yields what stands before the port in the target of a gRPC client."""
    server = DNSServer(_Addresses(addresses), "127.0.0.1", 0, logger=DNSLogger("-request,-reply"))
    server.start_thread()
    try:
        yield f"dns://127.0.0.1:{server.server.server_address[1]}/{NAME}"
    finally:
        server.stop()
        server.server.server_close()
