"""Whom a server lets in: over TLS, by certificates and tokens; in plaintext only from here."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry, Gauge

from services.shared import certificate
from services.shared.certificate import Certificate
from services.shared.guard import Guard
from services.shared.tokens import Tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """What the flags said."""

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    insecure: bool = False

    def check(self, host: str) -> None:
        """Raises ValueError, which says what would be right, for flags that do not go together."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key need each other")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
        if not (self.tls_cert or self.insecure or is_loopback(host)):
            raise ValueError(
                f"--host {host} can be reached from other machines: give --tls-cert and --tls-key, "
                "or --insecure where all that can reach it is trusted"
            )

    def credentials(self, registry: CollectorRegistry) -> grpc.ServerCredentials | None:
        """How to bind a port; None is plaintext. Raises FileUnreadable."""
        if not (self.tls_cert and self.tls_key):
            return None
        shown = Certificate(self.tls_cert, self.tls_key, self.tls_client_ca)
        expires = datetime.fromtimestamp(shown.expiry_seconds(), UTC)
        log.info("TLS by %s, which expires at %s", self.tls_cert, expires.isoformat())
        gauge = Gauge(
            "emojinet_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970.",
            registry=registry,
        )
        gauge.set_function(shown.expiry_seconds)
        return shown.credentials()

    def https(self) -> ssl.SSLContext | None:
        """For a web server; None is plaintext. Raises FileUnreadable."""
        if not (self.tls_cert and self.tls_key):
            return None
        return certificate.https(self.tls_cert, self.tls_key)

    def guards(self, count: Callable[[str, grpc.StatusCode], None]) -> list[Guard]:
        """The interceptors in front of all others: none where anyone may call."""
        return [Guard(Tokens(self.tokens), count)] if self.tokens else []


FROM_HERE = Access()  # anyone who is on this machine


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from this machine alone.

    >>> is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("db.lan")
    (True, True, False, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
