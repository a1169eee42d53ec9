"""The settings that come as flags or as `EMOJINET_*`; one that no program knows is an error.

A misspelt variable that is passed over in silence runs a service with a default that nobody chose.
All programs know the settings of all: one environment serves a server and the commands beside it.
"""

from collections.abc import Mapping
from difflib import get_close_matches

PREFIX = "EMOJINET_"
SERVICES = frozenset(
    PREFIX + name
    for name in (
        "ALLOW_ADDRESSES",
        "BACKEND",
        "CA_FILE",
        "CONTACT",
        "DATA",
        "HEALTH_PORT",
        "HOST",
        "INSECURE",
        "METRICS_PORT",
        "MODEL",
        "PORT",
        "PRECISION",
        "REGISTRY",
        "TLS_CERT",
        "TLS_CLIENT_CA",
        "TLS_KEY",
        "TOKENS",
    )
)
CLIENTS = frozenset(
    PREFIX + name
    for name in (
        "ALLOW_ADDRESSES",
        "CLIENT_CERT",
        "CLIENT_KEY",
        "CRAWLER",
        "HOST",
        "INSECURE",
        "METRICS_URL",
        "REGISTRY",
        "SERVER",
        "SLACK_APP_TOKEN_FILE",
        "SLACK_SIGNING_SECRET_FILE",
        "SLACK_TOKEN_FILE",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
        "TOKEN_FILE",
        "TRAINER",
    )
)
PROOFS = frozenset({"EMOJINET_FAULT"})  # where a proof has a service die
KNOWN = SERVICES | CLIENTS | PROOFS


class UnknownSetting(ValueError):
    """The environment has an `EMOJINET_*` that no program knows; the message names those it has."""


def check(environ: Mapping[str, str]) -> None:
    """Raises UnknownSetting for the first `EMOJINET_*` in `environ` that no program knows.

    >>> check({"EMOJINET_PORT": "50051", "PATH": "/bin"})
    >>> check({"EMOJINET_PROT": "50051"})
    Traceback (most recent call last):
    services.shared.settings.UnknownSetting: unknown setting EMOJINET_PROT: did you mean \
EMOJINET_PORT? Known are ALLOW_ADDRESSES, BACKEND, CA_FILE, CLIENT_CERT, CLIENT_KEY, CONTACT, \
CRAWLER, DATA, FAULT, HEALTH_PORT, HOST, INSECURE, METRICS_PORT, METRICS_URL, MODEL, PORT, \
PRECISION, REGISTRY, SERVER, SLACK_APP_TOKEN_FILE, SLACK_SIGNING_SECRET_FILE, SLACK_TOKEN_FILE, \
TLS_CA, TLS_CERT, TLS_CLIENT_CA, TLS_KEY, TOKENS, TOKEN_FILE, TRAINER
    """
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in KNOWN:
            close = get_close_matches(name, KNOWN, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            known = ", ".join(sorted(known.removeprefix(PREFIX) for known in KNOWN))
            raise UnknownSetting(f"unknown setting {name}: {hint}Known are {known}")
