"""The second view in a real Chromium: the service living."""

import asyncio
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from clients.demo import free_port
from clients.web.service import Samples
from tests.clients.commandline import COMMAND, clean
from tests.clients.web.browser import DESKTOP, PHONE, api_calls, complaints, opened
from tests.clients.web.conftest import inference_program
from tests.clients.web.test_page import EXAMPLES
from tests.clients.web.test_serve import started

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]
INKED = """
(place) => {
  const canvas = document.querySelector(`[data-chart="${place}"] canvas`);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}
"""


@contextmanager
def load(address: str, rate: int) -> Iterator[None]:
    """People who ask all the time, until the test is done with them."""
    people = subprocess.Popen(
        [*COMMAND, "load", str(EXAMPLES / "cat.jpg"), f"--server={address}", f"--rate={rate}",
         "--duration=60", "--deadline=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean(),
    )  # fmt: skip
    try:
        yield
    finally:
        people.terminate()
        people.wait(20)


def value(page: Page, plate: str) -> Any:
    """What one of the large figures says."""
    return expect(page.locator(f"[data-plate='{plate}'] .value"))


def cell(page: Page, figure: str, column: int = 0) -> Any:
    """What the table says of a figure: now, at the mean, at most."""
    return expect(page.get_by_role("row", name=figure).get_by_role("cell").nth(column))


async def agreed_capacity(page: Page, metrics_url: str) -> float:
    """What the service says that it can do, images a second, once the page says the same."""
    async with asyncio.timeout(10):
        while True:
            with urllib.request.urlopen(metrics_url, timeout=5) as told:
                capacity = Samples(told.read().decode()).total("capacity_images_per_second")
            if await page.inner_text("#capacity") == f"of about {capacity:.0f} it can do":
                return capacity
            await asyncio.sleep(0.2)


async def test_the_figures_move_under_load(tiny: Path, browser: Browser) -> None:
    more = re.compile(r"^[1-9]")
    with (
        inference_program(tiny, "--backend=timed:20ms") as inference,
        started(inference.address, f"--metrics-url={inference.metrics_url}") as (url, _),
    ):
        async with opened(browser, f"{url}/service") as page:
            await expect(page.locator("#state")).to_contain_text("Measuring")
            await expect(page.locator("#model")).to_contain_text("tiny@")
            await expect(page.locator("#model")).to_contain_text("timed:20ms, exact precision")
            await value(page, "images").to_have_text("0")
            await value(page, "wait").to_have_text("0 ms")
            before = await page.evaluate(INKED, "images")
            with load(inference.address, 150):
                await value(page, "refused").to_have_text(more, timeout=20_000)
                await value(page, "demand").to_have_text(re.compile(r"^(\d\d|1\d\d)%$"))
                await value(page, "images").to_have_text(more)
                await value(page, "wait").to_have_text(re.compile(r"^[\d,]{3,} ms$"))
                await expect(page.locator("[data-plate='wait']")).to_have_class(re.compile("over"))
                await cell(page, "Images a second", 2).to_have_text(more)
                calls = page.get_by_role("row", name="RESOURCE_EXHAUSTED").get_by_role("cell")
                await expect(calls).to_have_text(more)
            # A sleep may last longer than 20 ms, and never takes less.
            assert 39.5 < await agreed_capacity(page, inference.metrics_url) < 50.5
            chart = page.get_by_role("img", name=re.compile(r"Images a second: now \d"))
            await expect(chart).to_be_visible()
            assert await page.evaluate(INKED, "images") > before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_axe_has_nothing_against_it(
    scheme: str, device: dict[str, Any], browser: Browser, url: str
) -> None:
    async with opened(browser, f"{url}/service", **{**device, "color_scheme": scheme}) as page:
        await expect(page.locator("#state")).to_contain_text("Living")
        assert await complaints(page) == ""
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


async def test_a_service_that_is_away_is_told_and_looked_at_again(
    tiny: Path, browser: Browser
) -> None:
    ports = free_port(), free_port()
    with ExitStack() as programs:
        running = programs.enter_context(
            inference_program(tiny, "--backend=timed:1ms", ports=ports)
        )
        web = started(running.address, f"--metrics-url={running.metrics_url}")
        with web as (url, _):
            async with opened(browser, f"{url}/service") as page:
                await expect(page.locator("#state")).to_contain_text("Living")
                programs.close()
                await expect(page.locator("#state")).to_contain_text("The emoji service is away")
                await expect(page.locator("#trouble")).to_contain_text("No metrics answer at")
                await value(page, "wait").to_have_text("–")
                await cell(page, "Queue wait").to_have_text("–")
                assert await complaints(page) == ""
                again = inference_program(tiny, "--backend=timed:1ms", ports=ports)
                programs.enter_context(again)
                await expect(page.locator("#state")).to_contain_text("Living", timeout=15_000)
                await expect(page.locator("#trouble")).to_be_hidden()


async def test_the_page_says_when_its_own_server_is_away(tiny: Path, browser: Browser) -> None:
    with ExitStack() as programs:
        url, _ = programs.enter_context(started("127.0.0.1:9"))
        async with opened(browser, f"{url}/service") as page:
            await expect(page.locator("#trouble")).to_contain_text("No metrics answer at")
            programs.close()
            words = "This page's server does not answer"
            await expect(page.locator("#state")).to_contain_text(words)


async def test_totals_that_fall_are_a_restart_and_no_rate_is_negative(
    browser: Browser, url: str
) -> None:
    totals = iter([(500, 9.0), (600, 11.0), (7, 0.2), (27, 0.4)])
    seconds = iter(range(100, 1000, 2))

    async def restarted(route: Route) -> None:
        """As when all of it happens between two looks, which chance alone can bring about."""
        response = await route.fetch()
        told = await response.json()
        images, busy = next(totals, (27, 0.4))
        told |= {"images": images, "waits": images, "seconds": next(seconds)}
        told["stages"]["device"]["busy_seconds"] = busy
        await route.fulfill(json=told)

    async with opened(browser, f"{url}/service") as page:
        await page.route("**/api/service", restarted)
        await page.clock.install()
        await page.reload()
        state = expect(page.locator("#state"))
        for words, images in (
            ("Measuring", "–"), ("Living", "50"), ("It has started again", "–"), ("Living", "10"),
        ):  # fmt: skip
            await state.to_contain_text(words)
            await value(page, "images").to_have_text(images)
            await page.clock.run_for(2000)
        texts = " ".join(await page.locator("#numbers td").all_text_contents())
        assert "-" not in texts
        assert "−" not in texts


async def test_a_hidden_tab_does_not_look(browser: Browser, url: str) -> None:
    async with opened(browser, f"{url}/service") as page:
        looks = api_calls(page)
        await expect(page.locator("#state")).to_contain_text("Living")
        hide = """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
        await page.evaluate(hide, True)
        before = len(looks)
        await page.wait_for_timeout(2500)
        assert len(looks) == before
        async with page.expect_request("**/api/service"):
            await page.evaluate(hide, False)
