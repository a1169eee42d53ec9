"""What the tests of the page share: one browser, and the servers behind it as real programs."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Playwright, async_playwright

from clients.demo import free_port, is_ready
from tests.clients.commandline import clean
from tests.clients.web.browser import CAMERA, launch
from tests.clients.web.test_serve import started


class Inference(NamedTuple):
    """A server that runs as a process."""

    address: str
    metrics_url: str


@contextmanager
def inference_program(
    model: Path, *flags: str, ports: tuple[int, int] | None = None
) -> Iterator[Inference]:
    """The inference service, ready, until the test is done with it."""
    port, metrics_port = ports or (free_port(), free_port())
    program = subprocess.Popen(
        [sys.executable, "-m", "services.inference", f"--model={model}",
         f"--port={port}", f"--metrics-port={metrics_port}", *flags],
        stderr=subprocess.DEVNULL, env=clean(),
    )  # fmt: skip
    try:
        assert is_ready(f"127.0.0.1:{port}", program)
        yield Inference(f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        program.terminate()
        program.wait(40)


@pytest.fixture(scope="session")
def inference(starter: Path) -> Iterator[Inference]:
    """The inference service with the starter."""
    with inference_program(starter) as running:
        yield running


@pytest.fixture(scope="session")
def url(inference: Inference) -> Iterator[str]:
    """Where the page is."""
    flags = f"--metrics-url={inference.metrics_url}", "--allow-addresses=127.0.0.2/32"
    with started(inference.address, *flags) as (url, _):
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    """What drives browsers."""
    async with async_playwright() as playwright:
        yield playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """One for all tests, with a camera."""
    browser = await launch(playwright, *CAMERA)
    yield browser
    await browser.close()
