"""A server's certificate and its key, taken anew from their files without a restart.

gRPC asks before every handshake; connections that stand go on with what they began with.
"""

import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import grpc

from services.shared.errors import FileUnreadable
from services.shared.fresh import Fresh, content

FLIGHTS = 4  # of messages, in which two sides agree, or have failed to


class _Loaded(NamedTuple):
    configuration: grpc.ServerCertificateConfiguration
    expiry_seconds: float  # since 1970


class Certificate:
    """A chain with its key, as PEM; with the authority of clients, only those get in.

    Raises:
        FileUnreadable: at the start alone. Later what was read before goes on.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None = None) -> None:
        self._chain, self._key, self._client_ca = chain, key, client_ca
        self._fresh = Fresh([chain, key, *([client_ca] if client_ca else [])], self._load)
        self._given = self._fresh.now()

    def credentials(self) -> grpc.ServerCredentials:
        """For one port, which follows the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._given.configuration,
            self._newer,  # type: ignore[arg-type]  # None is "no other"
            require_client_authentication=self._client_ca is not None,
        )

    def expiry_seconds(self) -> float:
        """When the certificate expires, in seconds since 1970."""
        return self._fresh.now().expiry_seconds

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC has not been given yet; called by its threads."""
        before, self._given = self._given, self._fresh.now()
        return None if self._given is before else self._given.configuration

    def _load(self) -> _Loaded:
        pairs, roots = [pair(self._chain, self._key)], None
        if self._client_ca:
            roots = authority(self._client_ca)
        expiry_seconds = expiry(self._chain, self._key)
        return _Loaded(grpc.ssl_server_certificate_configuration(pairs, roots), expiry_seconds)


def https(chain: Path, key: Path) -> ssl.SSLContext:
    """For a web server, which follows the files, too. Raises FileUnreadable."""

    def load() -> ssl.SSLContext:
        expiry(chain, key)
        return _holding(ssl.PROTOCOL_TLS_SERVER, chain, key)

    def turn(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = fresh.now()

    fresh = Fresh([chain, key], load)
    first = load()
    first.sni_callback = turn  # called for every handshake
    return first


def expiry(chain: Path, key: Path) -> float:
    """When a certificate expires, in seconds since 1970, by a handshake of its own with itself.

    Raises:
        FileUnreadable: no client would accept it; the message says why.
    """
    server = _holding(ssl.PROTOCOL_TLS_SERVER, chain, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may stand for itself
    client.load_verify_locations(chain)
    try:
        return ssl.cert_time_to_seconds(str(_shown(server, client)["notAfter"]))
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", None) or error.reason
        raise FileUnreadable(f"No client would accept {chain}: {why}.") from None


def _shown(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    """The certificate that a client sees, without a socket."""
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(here, there)
    answering = server.wrap_bio(there, here, server_side=True)
    for side in (asking, answering) * FLIGHTS:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return asking.getpeercert() or {}


def pair(chain: Path, key: Path) -> tuple[bytes, bytes]:
    """A key and its certificate, as gRPC takes them. Raises FileUnreadable."""
    contents = content(key), content(chain)
    _holding(ssl.PROTOCOL_TLS_CLIENT, chain, key)
    return contents


def authority(path: Path) -> bytes:
    """Certificates of authorities. Raises FileUnreadable."""
    roots = content(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=roots.decode())
    except (ssl.SSLError, ValueError):
        raise FileUnreadable(f"{path} holds no certificate of an authority, as PEM.") from None
    return roots


def _holding(side: int, chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    try:
        context.load_cert_chain(chain, key, password="")  # rather than ask for one
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise FileUnreadable(
            f"{chain} and {key} are not a certificate and its key, as PEM without password: {why}."
        ) from None
    except OSError as error:
        raise FileUnreadable(f"{chain} and {key} cannot be read: {error.strerror}.") from None
    return context
