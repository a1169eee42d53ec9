"""Runs `emojinet` as people do: as a process of its own."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-m", "clients.cli"]


def emojinet(
    *arguments: str | bytes | os.PathLike[str],
    server: str = "",
    stdin: bytes = b"",
    **environment: str,
) -> "subprocess.CompletedProcess[bytes]":
    """What came of it; ends it after a minute."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=clean(EMOJINET_SERVER=server, **environment) if server else clean(**environment),
        check=False,
    )


def clean(**environment: str) -> dict[str, str]:
    """Our environment without what sets programs and Python, and these."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("EMOJINET_", "PYTHON"))}
    return {**ours, "LC_ALL": "C.UTF-8", **environment}
