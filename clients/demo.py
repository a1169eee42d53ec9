"""`make demo`: starts the inference service, asks it about photographs, and ends it again."""

import contextlib
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared import photographs

SHOWN = ("chelsea.png", "coffee.png", "rocket.jpg", "china.jpg", "flower.jpg")
DATA = Path("data")
START_SECONDS = 240.0  # the first time, on a slow machine: the starter model is built
STOP_SECONDS = 40.0


def main(pictures: list[str]) -> int:
    """The exit code of `emojinet suggest` for the pictures, or for a few that packages ship."""
    if not pictures:
        pictures = [str(path) for path in photographs.installed() if path.name in SHOWN]
    if not (DATA / "registry" / "live.json").exists():
        say("Building the starter model, once: about 15 seconds …")
    log = DATA / "logs" / "demo.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, inference(file.fileno()) as address:
        if not address:
            say(f"The server did not start; {log} ends with:")
            say(log.read_text().rstrip().rpartition("\n")[2])
            return 1
        return subprocess.call([sys.executable, "-m", "clients.cli", "suggest", *pictures,
                                f"--server={address}"])  # fmt: skip


@contextlib.contextmanager
def inference(log: int) -> Iterator[str]:
    """The address of an inference service of our own; empty when it does not become ready."""
    address, metrics_port = f"127.0.0.1:{free_port()}", free_port()
    command = [sys.executable, "-m", "services.inference", f"--port={address.split(':')[1]}"]
    server = subprocess.Popen(
        [*command, f"--metrics-port={metrics_port}", f"--data={DATA}"], stdout=log, stderr=log
    )
    try:
        yield address if is_ready(address, server) else ""
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def is_ready(address: str, server: "subprocess.Popen[bytes]") -> bool:
    """Waits until the server says so; false when it ends first, or takes too long."""
    asked = health_pb2.HealthCheckRequest(service="ready")
    end = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        while server.poll() is None and time.monotonic() < end:
            with contextlib.suppress(grpc.RpcError):
                if check(asked, timeout=1).status == health_pb2.HealthCheckResponse.SERVING:
                    return True
            time.sleep(0.1)
    return False


def free_port() -> int:
    """A port that nobody listens on now, below those that Linux gives to others by itself."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def say(line: str) -> None:
    """To people, beside what programs read."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
