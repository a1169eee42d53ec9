"""The stand-in in a process of its own, for tests that kill crawlers or must not share a loop."""

import json
import subprocess
import sys
import urllib.request
from typing import Any, Self


class Child:
    """A context: `with Child("--seed", "1", "--posts", "500") as child: child.base_url …`."""

    def __init__(self, *options: str) -> None:
        self._command = [sys.executable, "-m", "tests.standin", *options]

    base_url: str
    urls: list[str]
    https_url: str
    https_urls: list[str]
    bad_https_url: str
    ca_file: str
    canary: int

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in ended with {self.process.wait()}")
        self.__dict__.update(json.loads(line))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        self.process.wait(10)

    def stats(self) -> dict[str, Any]:
        """What has been asked of it so far."""
        return self._call("/_stats")

    def emit(self, event: dict[str, Any]) -> int:
        """Makes something happen: an event, or `{"delete": 17}`, `{"create": 17}`."""
        number: int = self._call("/_emit", event)["seq"]
        return number

    def advance(self, seconds: float) -> float:
        now: float = self._call("/_clock/advance", {"seconds": seconds})["now"]
        return now

    def set(self, **values: object) -> None:
        """Changes attributes: `child.set(**{"cdn.latency": 0.1, "robots": {0: "disallow"}})`."""
        self._call("/_set", values)

    def _call(self, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.base_url + path, data), timeout=30) as reply:
            whole: dict[str, Any] = json.load(reply)
        return whole
