"""The whole product on one machine: its processes, and the supervisor that keeps them running.

The supervisor is supervisord, asked by XML-RPC. It works in `data/up`, and its configuration names
no path of the user's: there is no way to write some (` #`, ` ;`) into such a file, and the path of
a socket has 107 bytes at most.
"""

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from clients import tether
from services.shared.errors import ServerUnreachable, StorageFailed

HOST = "127.0.0.1"
SOCKET, CONFIG, PID = "supervisor.sock", "supervisord.conf", "supervisord.pid"
ASK_SECONDS = 5.0
LAUNCH_SECONDS = 30.0
LOG_END_BYTES = 64 * 1024
# Settings of one server or of its callers, which are not those of all that we start. Nor is TLS:
# nothing that we start leaves this machine.
NOT_PASSED_ON = {
    f"EMOJINET_{name}"
    for name in (
        "CLIENT_CERT", "CLIENT_KEY", "CRAWLER", "HEALTH_PORT", "HOST", "INSECURE", "METRICS_PORT",
        "METRICS_URL", "PORT", "SERVER", "TLS_CA", "TLS_CERT", "TLS_CLIENT_CA", "TLS_KEY",
        "TRAINER",
    )
}  # fmt: skip
_CONFIG = """\
[supervisord]
identifier = {offset}
logfile = supervisord.log
logfile_maxbytes = 1MB
logfile_backups = 1
pidfile = {pid}
umask = {umask:03o}
nocleanup = true
[unix_http_server]
file = /proc/self/cwd/{socket}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
# Who fails within `startsecs` is started again with pauses, each a second longer: no service takes
# longer to find out that it cannot start. Inference finishes what it has begun for 30 seconds.
_PROGRAM = """\
[program:{name}]
command = {command}
directory = %(ENV_PWD)s
startsecs = 20
startretries = 1000
autorestart = true
stopwaitsecs = 40
redirect_stderr = true
stdout_logfile = ../logs/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


class Service(NamedTuple):
    """A program, and where it answers: as a rule, which an offset moves."""

    name: str
    port: int
    metrics_port: int = 0

    def address(self, offset: int) -> str:
        """Of the service itself."""
        return f"{HOST}:{self.port + offset}"

    def ports(self, offset: int) -> list[int]:
        """All that it listens on."""
        return [port + offset for port in (self.port, self.metrics_port) if port]

    def command(self, offset: int) -> list[str]:
        """The module to run, and its flags."""
        place = [f"--host={HOST}", f"--port={self.port + offset}"]
        metrics = self.metrics_port + offset
        if self is WEB:
            url = f"http://{HOST}:{INFERENCE.metrics_port + offset}/metrics"
            server = f"--server={INFERENCE.address(offset)}"
            return ["clients.cli", "web", *place, server, f"--metrics-url={url}"]
        flags = ["--reflection"] if self is INFERENCE else []
        return [f"services.{self.name}", *place, f"--metrics-port={metrics}", *flags]


CRAWLER = Service("crawler", 50052, 9102)
TRAINER = Service("trainer", 50053, 9103)
INFERENCE = Service("inference", 50051, 9101)
WEB = Service("web", 8080)
SERVICES = (CRAWLER, TRAINER, INFERENCE, WEB)


class Gone(Exception):
    """There is no supervisor, or no longer: what a killed one left behind answers nobody."""


class Supervisor:
    """A supervisord that runs; leaving the context ends the connection, not the supervisor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = xmlrpc.client.ServerProxy("http://supervisor", _Transport(folder))
        self._rpc: Any = self._server.supervisor

    def offset(self) -> int:
        """What was added to all ports."""
        return int(self._ask(self._rpc.getIdentification))

    def processes(self) -> dict[str, dict[str, Any]]:
        """What `getProcessInfo` says of each, by name."""
        return {info["name"]: info for info in self._ask(self._rpc.getAllProcessInfo)}

    def start(self, name: str) -> bool:
        """Starts what does not run, at once; false if there was no need to."""
        state = self.processes()[name]["statename"]
        if state == "BACKOFF":
            self._ask(self._rpc.stopProcess, name, False)
        elif state not in ("STOPPED", "FATAL"):
            return False
        self._ask(self._rpc.startProcess, name, False)
        return True

    def stop(self) -> None:
        """Asks all processes to end, and does not wait for it."""
        self._ask(self._rpc.stopAllProcesses, False)

    def end(self) -> None:
        """Ends the supervisor itself, and waits until it has."""
        with contextlib.suppress(Gone):
            self._ask(self._rpc.shutdown)
            while True:
                with contextlib.suppress(ServerUnreachable):
                    self._ask(self._rpc.getState)
                time.sleep(0.05)

    def _ask(self, method: Any, *arguments: object) -> Any:
        try:
            return method(*arguments)
        except (FileNotFoundError, NotADirectoryError, ConnectionError):
            raise Gone from None
        except (OSError, xmlrpc.client.Error) as error:
            why = "it ends" if isinstance(error, xmlrpc.client.Error) else error
            raise ServerUnreachable(
                f"The supervisor in {self._folder} does not answer: {why}. Its process has the "
                f"number that is in {PID} there."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server("close")()


class _Transport(xmlrpc.client.Transport):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._to = _Connection(folder)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return self._to

    def close(self) -> None:
        self._to.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("supervisor")
        self._folder = folder

    def connect(self) -> None:
        folder = os.open(self._folder, os.O_PATH)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ASK_SECONDS)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # short, wherever it lies
        except BaseException:
            self.sock.close()
            raise
        finally:
            os.close(folder)


def running(folder: Path) -> Supervisor | None:
    """The supervisor that works in a folder, if one does."""
    supervisor = Supervisor(folder)
    try:
        supervisor.offset()
    except Gone:
        return None
    return supervisor


def launch(data: Path, offset: int) -> Supervisor:
    """A new supervisor, which starts everything; its ports must be free.

    Raises:
        StorageFailed: what it needs cannot be written, or it does not start.
    """
    folder = data / "up"
    try:
        (data / "logs").mkdir(parents=True, exist_ok=True)
        (folder / SOCKET).unlink(missing_ok=True)
        (folder / CONFIG).write_text(_config(offset))
    except OSError as error:
        why = f"{error.filename or folder} cannot be used: {error.strerror}. Choose another --data."
        raise StorageFailed(why, path=str(folder)) from None
    kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    # The last has a program tell in one line, not in a frame, what is wrong with its settings.
    new = {"EMOJINET_DATA": str(data.absolute()), "PWD": os.getcwd(), "TYPER_USE_RICH": "0"}
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", CONFIG]
    try:
        done = subprocess.run(
            command, cwd=folder, env=kept | new, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LAUNCH_SECONDS, check=False,
        )  # fmt: skip
        said = done.stderr or done.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stderr or b""
    if supervisor := running(folder):
        return supervisor
    lines = [line for line in said.decode(errors="replace").splitlines() if "For help" not in line]
    why = lines[-1].removeprefix("Error: ") if lines else "it ended at once"
    raise StorageFailed(f"The supervisor in {folder} does not start: {why}", path=str(folder))


def _config(offset: int) -> str:
    umask = os.umask(0o077)
    os.umask(umask)
    own = _CONFIG.format(offset=offset, umask=umask, socket=SOCKET, pid=PID)
    tied = [sys.executable, "-I", "-S", str(Path(tether.__file__).absolute())]
    commands = {s.name: shlex.join([*tied, *s.command(offset)]) for s in SERVICES}
    return own + "".join(
        _PROGRAM.format(name=name, command=command.replace("%", "%%"))
        for name, command in commands.items()
    )


def page_answers(address: str, seconds: float) -> bool:
    """Whether the page says that it is well; raises TimeoutError if it says nothing in time."""
    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_path(data: Path, name: str) -> Path:
    """Where a service's output goes."""
    return data / "logs" / f"{name}.log"


def last_words(log: Path) -> str:
    """The last line of a log that says anything, as people read it; empty if there is none."""
    for line in reversed(list(_end(log))):
        try:
            return str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            if any(character.isalnum() for character in line):
                return re.sub("^(emojinet|[Ee]rror): ", "", line.strip())
    return ""


def _end(log: Path) -> Iterator[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
            yield from file.read().decode(errors="replace").splitlines()
    except OSError:
        return
