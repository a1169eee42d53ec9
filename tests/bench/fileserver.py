"""Serves pictures from memory over HTTP and HTTPS, in a process of its own.

`python -m tests.bench.fileserver FOLDER` prints its two base URLs as JSON and serves until its
input closes.
"""

import asyncio
import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Self

import trustme
import typer
import uvloop
from aiohttp import web


class FileServer:
    """A context in whose process others are served: `http`, `https` and `ca_file`."""

    http: str
    https: str
    ca_file: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fileserver", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self.__dict__.update(json.loads(self._process.stdout.readline()))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


async def serve(folder: Path) -> None:
    """Serves every file under `/{any}/{its name}`, with the path behind its end.

    So no two URLs give the same bytes, which nobody would have to decode twice.
    """
    bodies = {path.name: path.read_bytes() for path in folder.glob("*.jpg")}

    async def one(request: web.Request) -> web.Response:
        body = bodies.get(request.path.rpartition("/")[2])
        if body is None:
            return web.Response(status=404)
        return web.Response(body=body + request.path.encode(), content_type="image/jpeg")

    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    app = web.Application()
    app.router.add_get("/{name:.*}", one)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    ports = []
    for ssl_context in (None, context):
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        ports.append(site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]
    plain, secret = ports
    urls = {"http": f"http://127.0.0.1:{plain}", "https": f"https://127.0.0.1:{secret}"}
    print(json.dumps({**urls, "ca_file": str(ca_file)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(folder: Path) -> None:
    """Serves a folder of pictures."""
    uvloop.run(serve(folder))


if __name__ == "__main__":
    typer.run(main)
