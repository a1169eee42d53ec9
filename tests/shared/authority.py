"""Certificates made on the spot, and put where a server looks for its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

DAY = timedelta(days=1)


class Authority:
    """Issues certificates into a folder; whoever trusts `ca` trusts them."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self._ca = folder, trustme.CA()
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str = "server", *identities: str, days: float = 7) -> tuple[Path, Path]:
        """The files of a certificate and its key, put in place of older ones of that name."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(
            *(identities or ("127.0.0.1", "localhost")),
            not_before=now - 30 * DAY,
            not_after=now + days * DAY,
        )
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        _put(key, made.private_key_pem.bytes())
        _put(chain, b"".join(pem.bytes() for pem in made.cert_chain_pems))
        return chain, key


def _put(path: Path, content: bytes) -> None:
    staged = path.with_suffix(".new")
    staged.write_bytes(content)
    staged.replace(path)
