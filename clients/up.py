"""`emojinet up` and `emojinet down`: the whole product on one machine."""

import contextlib
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import grpc
import typer
from rich.console import Console

from clients import options, supervised
from clients.progress import columns, printable_text
from clients.supervised import CRAWLER, HOST, INFERENCE, SERVICES, TRAINER, WEB, Service, Supervisor
from services.shared.printable import printable

START_SECONDS = 240.0  # the first time, on a slow machine: the starter model is built
LOCK_SECONDS = 60.0  # another has begun: a `down` waits for the last answers, 40 s at most
PORT_SECONDS = 5.0  # what dies with its supervisor has let go of its ports by then
TRIES = 2  # failed starts, after which people are told; the supervisor goes on trying
LOOK_SECONDS = 0.2
MAX_OFFSET = 15_000
REFUSED_OFFSET = 2_000  # no browser opens port 10080, a back-up program's
LISTENING = "0A"  # in /proc/net/tcp
NAME_CHARACTERS = 60
FULL_BYTES = 1 << 20  # less is left of a disk on which services fail, even to say so

Data = Annotated[Path | None, typer.Option(help="Where everything is kept.", show_default="data")]


def data_or_default(data: Path | None) -> Path:
    """Where services look, too, when nothing is said."""
    return data or Path(os.environ.get("EMOJINET_DATA", "data"))


def up(
    data: Data = None,
    port_offset: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, max=MAX_OFFSET, show_default="0", help="Added to every port."
        ),
    ] = None,
) -> None:
    """Start everything on this machine: crawler, trainer, inference and the page.

    What runs already is left alone. A service that dies is started again, with pauses that grow.
    `emojinet status` shows them, `emojinet down` ends them.
    """
    if port_offset == REFUSED_OFFSET:
        raise typer.BadParameter(f"no browser opens port {WEB.port + port_offset}: choose another")
    data = data_or_default(data)
    with _alone(data / "up"):
        running, begun = _running(data, port_offset)
    with running:
        offset = running.offset()
        _follow(running, data, offset)
    _tell(data, offset, begun)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps two at the same instant from starting two supervisors."""
    with options.needs("up"):
        import supervisor  # type: ignore[import-untyped]  # noqa: F401

        from services.shared import harness
    descriptor = harness.lock(folder, "emojinet up or down", LOCK_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def _running(data: Path, offset: int | None) -> tuple[Supervisor, bool]:
    """The supervisor, with all services begun; whether there was anything to begin."""
    running = supervised.running(data / "up")
    if running is None:
        _require_free_ports(data, offset or 0)
        return supervised.launch(data, offset or 0), True
    if offset not in (None, running.offset()):
        _give_up(
            f"it runs already, with --port-offset {running.offset()}: {typed('down', data)} ends it"
        )
    return running, any([running.start(service.name) for service in SERVICES])


def _require_free_ports(data: Path, offset: int) -> None:
    killed = (data / "up" / supervised.PID).exists()
    end = time.monotonic() + (PORT_SECONDS if killed else 0)
    while (busy := taken(offset)) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    if busy:
        for port in busy:
            options.say(f"emojinet: port {port} is in use by another program{_holder(port)}")
        free = next((n for n in range(1000, MAX_OFFSET, 2000) if not taken(n)), 1000)
        _give_up(f"stop it, or choose others: {typed('up', data, free)}")


def taken(offset: int) -> list[int]:
    """The ports that somebody listens on now."""
    return [port for s in SERVICES for port in s.ports(offset) if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """Which program listens on a port, where we may know."""
    tables = Path("/proc/net").glob("tcp*")
    rows = [row.split() for path in tables for row in path.read_text().splitlines()]
    here = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == LISTENING]
    sockets = {f"socket:[{row[9]}]" for row in here}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            links = (os.path.realpath(link) for link in (process / "fd").iterdir())
            if sockets & {link.rpartition("/")[2] for link in links}:
                command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
                return f" ({printable(command.strip())[:NAME_CHARACTERS]}, PID {process.name})"
    return ""


def _follow(supervisor: Supervisor, data: Path, offset: int) -> None:
    """Shows how services become ready; ends the program if one does not."""
    try:
        failed = _failed(supervisor, data, offset)
    except supervised.Gone:
        _give_up(f"somebody has ended it: {typed('up', data, offset)} starts it again")
    except KeyboardInterrupt:
        options.say(f"It goes on without you. Look again with {typed('status', data)}.")
        raise
    if not failed:
        return
    for name, how in failed.items():
        log = supervised.log_path(data, name)
        words = supervised.last_words(log) or "it says nothing"
        options.say(f"emojinet: {name} {how}: {printable(words)}")
        options.say(f"  log: {log}; how it ended: {data / 'up' / 'supervisord.log'}")
    if shutil.disk_usage(data).free < FULL_BYTES:
        options.say(f"The disk that holds {data} is full: make room on it.")
    well = ", ".join(service.name for service in SERVICES if service.name not in failed)
    options.say(
        f"Running all the same: {well or 'nothing'}. What failed is tried again by itself, or at\n"
        f"once by {typed('up', data)}. {typed('down', data)} ends everything."
    )
    raise typer.Exit(1)


def _failed(supervisor: Supervisor, data: Path, offset: int) -> dict[str, str]:
    """Waits until every service is ready or has failed; those that failed, and how."""
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    waiting = [service for service in SERVICES if not _is_ready(service, offset)]
    failed = dict[str, str]()
    if INFERENCE in waiting and _builds_starter(data):
        console.print("The starter model is built, once: about 15 seconds …")
    ends = {name: {info["stop"]} for name, info in supervisor.processes().items()}
    with console.status("") as status:
        while waiting:
            status.update(f"Starting {', '.join(service.name for service in waiting)} …")
            time.sleep(LOOK_SECONDS)
            seconds = time.monotonic() - began
            for name, info in supervisor.processes().items():
                ends[name].add(info["stop"])
            for service in tuple(waiting):
                if _is_ready(service, offset):
                    console.print(f"{service.name:9}  ready after {seconds:.1f} s")
                elif len(ends[service.name]) > TRIES:
                    failed[service.name] = "does not start"
                elif seconds > START_SECONDS:
                    failed[service.name] = f"is not ready after {seconds:.0f} s"
                else:
                    continue
                waiting.remove(service)
    return failed


def _builds_starter(data: Path) -> bool:
    registry = Path(os.environ.get("EMOJINET_REGISTRY", data / "registry"))
    return not (registry / "live.json").exists() and "EMOJINET_MODEL" not in os.environ


def _is_ready(service: Service, offset: int) -> bool:
    """Whether it says so itself."""
    if service is WEB:
        try:
            return supervised.page_answers(service.address(offset), 1)
        except TimeoutError:
            return False
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    asked = health_pb2.HealthCheckRequest(service="ready")
    with grpc.insecure_channel(service.address(offset), [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _tell(data: Path, offset: int, begun: bool) -> None:
    """Where everything is, and what to do with it."""
    print(f"EmojiNet runs{'' if begun else ' already'}: http://{WEB.address(offset)}")
    table = columns("", "")
    for service in SERVICES:
        if service is not WEB:
            table.add_row(service.name, service.address(offset))
    table.add_row("logs", printable_text(str(data / "logs")))
    Console().print(table)
    print(f"{typed('status', data)} shows what it does, {typed('down', data)} ends it.")
    if offset:
        print("So that other commands find it:")
        print(
            f"export EMOJINET_SERVER={INFERENCE.address(offset)} "
            f"EMOJINET_CRAWLER={CRAWLER.address(offset)} EMOJINET_TRAINER={TRAINER.address(offset)}"
        )


def down(data: Data = None) -> None:
    """End everything that `emojinet up` has started, once it has finished what it had begun."""
    data = data_or_default(data)
    ended = False
    if (data / "up").is_dir():
        with _alone(data / "up"):
            if running := supervised.running(data / "up"):
                with running:
                    _end(running)
                ended = True
    where = printable(str(data))
    print(
        f"EmojiNet has ended; its data stays in {where}." if ended else f"Nothing runs in {where}."
    )


def _end(supervisor: Supervisor) -> None:
    left = {service.name for service in SERVICES}
    with Console(stderr=True).status("") as status:
        while left:
            status.update(f"Ending {', '.join(sorted(left))}: what they have begun is finished …")
            supervisor.stop()  # again: one may have just been started anew
            for name, info in supervisor.processes().items():
                if name in left and info["statename"] in ("STOPPED", "FATAL"):
                    left.remove(name)
                    print(f"{name:9}  ended")
            time.sleep(LOOK_SECONDS if left else 0)
    supervisor.end()


def typed(verb: str, data: Path, offset: int = 0) -> str:
    """A command as people can type it here: by `make`, if they did so."""
    if data == data_or_default(None):
        flags = ""
        if "MAKELEVEL" in os.environ and verb != "status":
            return f"`make {verb}{f' OFFSET={offset}' if offset else ''}`"
    else:
        flags = f" --data {printable(shlex.quote(str(data)))}"
    moved = f" --port-offset {offset}" if offset else ""
    path = str(Path(sys.executable).with_name("emojinet"))
    program = "emojinet" if shutil.which("emojinet") else min(path, os.path.relpath(path), key=len)
    return f"`{program} {verb}{flags}{moved}`"


def _give_up(why: str) -> NoReturn:
    options.say(f"emojinet: {why}")
    raise typer.Exit(1)
