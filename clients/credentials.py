"""What a client shows to servers, and by which authority it knows them; how it connects.

Certificates are read when it connects, and the token whenever its file has changed. A token goes
over TLS, or to this machine, and nowhere else; nothing that is printed or logged has it.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import grpc

from services.shared import certificate, tokens
from services.shared.errors import FileUnreadable, ServerUnreachable

LOOPBACK = re.compile(r"(localhost|127\.[\d.]+|\[::1\]):")
ENVIRONMENT = {
    "tls_ca": "EMOJINET_TLS_CA",
    "client_cert": "EMOJINET_CLIENT_CERT",
    "client_key": "EMOJINET_CLIENT_KEY",
    "token_file": "EMOJINET_TOKEN_FILE",
}
Options = Sequence[tuple[str, Any]]
_KINDS = {"unary_unary", "unary_stream", "stream_unary", "stream_stream"}
# Of what gRPC says of a connection that fails, what people can do something about.
_TROUBLES = (
    ("WRONG_VERSION_NUMBER", "speaks no TLS: leave --tls-ca away where that is right."),
    ("certificate has expired", "has a certificate that has expired: it needs a new one."),
    ("certificate is not yet valid", "has a certificate that is not yet valid: mind the clocks."),
    ("CERTIFICATE_VERIFY_FAILED", "has a certificate of another authority than --tls-ca names."),
    (
        "Hostname Verification",
        "has a certificate of another name: use an address that stands in it.",
    ),
    (
        "last error: UNAVAILABLE: .*(Socket closed|Connection reset by peer)",
        "ends connections at once: it may speak TLS, so say --tls-ca, or want a certificate, so "
        "say --client-cert and --client-key, of the authority that it trusts.",
    ),
)


class Credentials(NamedTuple):
    """Files; with none of them a client speaks plaintext, and shows nothing."""

    tls_ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    token_file: Path | None = None

    @classmethod
    def of_environment(cls) -> Self:
        """Those that `EMOJINET_TLS_CA` and its kin name."""
        named = {field: os.environ.get(name) for field, name in ENVIRONMENT.items()}
        return cls(**{field: Path(name) for field, name in named.items() if name})

    def channel(self, server: str, options: Options) -> grpc.Channel:
        """A way to the server, whose calls bear the token.

        Raises:
            FileUnreadable: a file is not what it should be.
            ServerUnreachable: a token would have to travel in plaintext.
        """
        tls, token = self._tls(), self._token(server)
        plain = grpc.insecure_channel
        made = grpc.secure_channel(server, tls, options) if tls else plain(server, options)
        return cast(grpc.Channel, _Bearing(made, token)) if token else made

    def aio_channel(self, server: str, options: Options) -> grpc.aio.Channel:
        """As `channel`, for asyncio."""
        tls, token = self._tls(), self._token(server)
        plain = grpc.aio.insecure_channel
        made = grpc.aio.secure_channel(server, tls, options) if tls else plain(server, options)
        return cast(grpc.aio.Channel, _Bearing(made, token)) if token else made

    def _tls(self) -> grpc.ChannelCredentials | None:
        if (self.client_cert is None) != (self.client_key is None):
            raise FileUnreadable("--client-cert and --client-key need each other.")
        if self.tls_ca is None:
            if self.client_cert:
                raise FileUnreadable("--client-cert needs --tls-ca, the servers' authority.")
            return None
        roots = certificate.authority(self.tls_ca)
        if self.client_cert and self.client_key:
            pair = certificate.pair(self.client_cert, self.client_key)
            return grpc.ssl_channel_credentials(roots, *pair)
        return grpc.ssl_channel_credentials(roots)

    def _token(self, server: str) -> Callable[[], str] | None:
        if self.token_file is None:
            return None
        if self.tls_ca is None and not LOOPBACK.match(server):
            raise ServerUnreachable(
                f"The token would go to {server} in plaintext: say --tls-ca, or leave it away."
            )
        return tokens.kept(self.token_file).now


class _Bearing:
    """A channel whose calls bear a token: the newest, and at no cost but its own."""

    def __init__(self, channel: object, token: Callable[[], str]) -> None:
        self._channel, self._token = channel, token

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        return self._borne(found) if name in _KINDS else found

    def _borne(self, kind: Callable[..., Any]) -> Callable[..., Any]:
        def made(*method: Any, **how: Any) -> Callable[..., Any]:
            call = kind(*method, **how)
            return lambda *request, **more: call(*request, metadata=self._metadata(), **more)

        return made

    def _metadata(self) -> tuple[tuple[str, str]]:
        return (("authorization", tokens.SCHEME + self._token()),)


def trouble(server: str, details: str | None) -> ServerUnreachable | None:
    """What is wrong with a connection, where gRPC's words for it tell."""
    said = (told for words, told in _TROUBLES if re.search(words, details or "", re.DOTALL))
    return next((ServerUnreachable(f"The server at {server} {told}") for told in said), None)
