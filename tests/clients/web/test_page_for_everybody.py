"""The page for those who use a keyboard, a screen reader, a phone, or no JavaScript."""

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.clients.web.browser import (
    DESKTOP,
    PHONE,
    File,
    answered,
    complaints,
    drop,
    failed,
    opened,
)
from tests.clients.web.moody import Moody, picture
from tests.clients.web.test_page import CAT, COFFEE, STATIC, Silent, http_serving
from tests.clients.web.test_serve import started

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]
LEAST_TARGET_PX = 44
SMALL = f"""
() => [...document.querySelectorAll("button, input, summary, .top a")]
  .map((one) => [one.outerHTML.slice(0, 90), one.getBoundingClientRect()])
  .filter(([_, {{ width, height }}]) => width && Math.min(width, height) < {LEAST_TARGET_PX})
  .map(([html, {{ width, height }}]) => `${{html}}: ${{width}}x${{height}}`)
"""


@pytest.fixture(scope="module")
def moody_url() -> Iterator[str]:
    """Where a page is whose service fails as it is told."""
    with Moody() as moody, started(moody.address) as (url, _):
        moody.busy_times = 1_000
        yield url


async def focused(page: Page) -> str:
    """What has the focus, as a screen reader would call it."""
    return str(
        await page.evaluate("""() => {
          const { activeElement: one } = document;
          return one.getAttribute("aria-label") ?? one.textContent.trim();
        }""")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_axe_has_nothing_against_any_state_and_nothing_is_too_small_to_touch(
    scheme: str, device: dict[str, Any], browser: Browser, url: str, moody_url: str
) -> None:
    still = {**device, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with opened(browser, url, **still) as page:
        assert await complaints(page) == ""
        await page.click(".credits summary")
        await page.fill("#url", "cat")
        await page.press("#url", "Enter")
        await drop(page, CAT, COFFEE, File("notes.txt", b"no picture"))
        await answered(page, 2)
        await failed(page, "This is not a picture")
        await page.locator(".why").first.click()
        await expect(page.locator(".saliency").first).to_be_visible()
        await page.locator(".emoji").first.click()
        await expect(page.locator("#toast span")).to_be_visible()
        assert await complaints(page) == ""
        assert await page.evaluate(SMALL) == []
    async with opened(browser, moody_url, **still) as page:
        await page.clock.install()  # what is busy stays busy
        names = ("busy", "late", "busy", "busy", "busy")
        await drop(page, *(File(f"{name}.jpg", picture(name)) for name in names))
        await failed(page, "Many people are asking now")
        if device is DESKTOP:
            await page.click("#photograph")
            await expect(page.locator("#shutter")).to_be_enabled()
        assert await complaints(page) == ""
        assert await page.evaluate(SMALL) == []


async def test_the_waiting_state_is_for_everybody_too(browser: Browser, url: str) -> None:
    async with opened(browser, url, reduced_motion="reduce") as page:
        await page.route("**/api/suggest", lambda route: None)
        await drop(page, CAT)
        await expect(page.locator(".spent")).to_have_text("Looking at it")
        await expect(page.locator("article")).to_have_attribute("aria-busy", "true")
        assert await complaints(page) == ""
        motion = "getComputedStyle(document.querySelector('.ghost')).animationName"
        assert await page.evaluate(motion) == "none"
        await page.unroute_all(behavior="ignoreErrors")


async def test_everything_is_done_by_keyboard_alone(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        await page.keyboard.press("Tab")
        assert await focused(page) == "Skip to the suggestions"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.evaluate(outline) == "solid"
        await page.focus("[data-example='cat.jpg']")
        await page.keyboard.press("Enter")
        await answered(page)
        await page.focus(".skip")
        await page.keyboard.press("Enter")
        passed = []
        for _ in range(5):
            await page.keyboard.press("Tab")
            passed.append(await focused(page))
        assert passed == [
            "Remove cat.jpg",
            "Copy 🐱 cat face",
            "Why? 🐱 cat face",
            "Copy 🐈 cat",
            "Why? 🐈 cat",
        ]
        await page.keyboard.press("Space")
        await expect(page.locator(".saliency")).to_be_visible()
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#toast")).to_have_text("Copied 🐈 cat")
        await page.focus(".remove")
        await page.keyboard.press("Enter")
        await expect(page.locator(".card")).to_have_count(0)
        assert await focused(page) == "Choose pictures"


async def test_results_are_announced_and_headings_tell_the_structure(
    browser: Browser, url: str
) -> None:
    async with opened(browser, url) as page:
        await drop(page, CAT)
        await answered(page)
        await expect(
            page.get_by_role("status").filter(has_text="cat.png: cat face")
        ).to_be_attached()
        levels = [
            (int((await heading.evaluate("one => one.tagName"))[1]), await heading.text_content())
            for heading in await page.get_by_role("heading").all()
        ]
        assert [level for level, _ in levels] == [1, 2, 2, 3]
        await expect(page.get_by_role("img", name="cat.png")).to_be_visible()
        await expect(page.get_by_label("Or give the address of one")).to_be_visible()


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_nothing_moves_whatever_comes(
    device: dict[str, Any], browser: Browser, url: str
) -> None:
    async with opened(browser, url, **device) as page:  # which looks at all shifts in the end
        await drop(page, CAT)
        await drop(page, File("notes.txt", b"no picture"), COFFEE, File("tall.png", CAT.content))
        await answered(page, 3)
        await page.locator(".why").last.click()
        await expect(page.locator(".saliency").last).to_be_visible()
        await page.evaluate("scrollTo(0, 0)")
        await drop(page, File("long " * 60 + ".txt", b"no picture"))
        await expect(page.locator(".failed:not([hidden])")).to_have_count(2)
        await page.wait_for_timeout(300)
        width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0  # nothing stands out to the side


class Slow(Silent):
    """Sends the pages in parts that a browser has time to draw, and the rest as it is."""

    def do_GET(self) -> None:
        if self.path.startswith("/static/"):
            self.path = self.path.removeprefix("/static")
            super().do_GET()
            return
        page = (STATIC / {"/": "index.html"}.get(self.path, "service.html")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        cut = page.index(b"<main")
        for start, end in ((0, cut), *((n, n + 400) for n in range(cut, len(page), 400))):
            self.wfile.write(page[start:end])
            time.sleep(0.05)


@pytest.mark.parametrize("path", ["/", "/service"])
async def test_a_page_that_comes_slowly_does_not_move(path: str, browser: Browser) -> None:
    handler = partial(Slow, directory=str(STATIC))
    with http_serving(("127.0.0.1", 0), handler) as url:
        async with opened(browser, f"{url}{path}") as page:
            await expect(page.locator("h1")).to_be_visible()
            await page.wait_for_timeout(100)


@pytest.mark.parametrize(("path", "command"), [("/", "curl -F image=@"), ("/service", "curl ")])
async def test_without_javascript_a_command_is_shown(
    path: str, command: str, browser: Browser, url: str
) -> None:
    async with opened(browser, url + path, java_script_enabled=False) as page:
        await expect(page.locator(".noscript")).to_be_visible()
        await expect(page.locator(".noscript code")).to_contain_text(command)


async def test_a_phone_is_not_told_of_dropping(browser: Browser, url: str) -> None:
    async with opened(browser, url, **PHONE) as page:
        await expect(page.locator(".lead")).to_have_text(
            re.compile("Choose it"), use_inner_text=True
        )
        await expect(page.locator(".by-mouse")).to_be_hidden()
        await page.tap("[data-example='cat.jpg']")
        await answered(page)
        await expect(page.locator(".card")).to_be_in_viewport()
        await expect(page.locator("#more")).to_be_in_viewport()
