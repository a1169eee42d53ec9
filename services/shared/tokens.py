"""Bearer tokens: a server's file of those it knows, by their hashes; and a caller's file of one.

A line of the server's file is `role sha256 [name]`; `#` begins a comment. The name is for people.
A token has 256 random bits, so that its plain sha256 tells nobody anything.
"""

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from services.shared.errors import FileUnreadable
from services.shared.fresh import Fresh, content
from services.shared.roles import ROLES

SCHEME = "Bearer "
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")  # of RFC 6750, and not guessed at once
_HASH = re.compile(r"[0-9a-f]{64}")


class Tokens:
    """The tokens that a server knows, as its file has them now.

    Raises:
        FileUnreadable: at the start alone. Later what was read before goes on.
    """

    def __init__(self, path: Path) -> None:
        self._known = Fresh([path], lambda: _known(path))

    def role(self, token: str) -> str | None:
        """The role of a token, or None for one that is not known; by no earlier end of a search."""
        asked, found = hashlib.sha256(token.encode()).digest(), None
        for known, role in self._known.now():
            if hmac.compare_digest(known, asked):
                found = role
        return found


def _known(path: Path) -> list[tuple[bytes, str]]:
    """What the file says; of a line that is wrong its number alone is told, it may be a token."""
    known = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) not in (2, 3) or words[0] not in ROLES or not _HASH.fullmatch(words[1]):
            raise FileUnreadable(
                f"{path}: line {number} is not `role sha256 [name]` with a role of "
                f"{', '.join(ROLES)}; `emojinet token new` makes such lines."
            )
        known.append((bytes.fromhex(words[1]), words[0]))
    return known


def new() -> str:
    """A token nobody has."""
    return secrets.token_urlsafe(32)


def line(role: str, token: str, name: str) -> str:
    """What a server's file has to have of it."""
    return f"{role} {hashlib.sha256(token.encode()).hexdigest()} {name}"


def kept(path: Path) -> Fresh[str]:
    """The token of a caller's file, now and whenever it changes. Raises FileUnreadable."""
    return Fresh([path], lambda: _token(path))


def _token(path: Path) -> str:
    token = _text(path).strip()
    if not _TOKEN.fullmatch(token):
        raise FileUnreadable(f"{path} does not hold one token, of at least 16 characters.")
    return token


def _text(path: Path) -> str:
    return content(path).decode(errors="replace")
