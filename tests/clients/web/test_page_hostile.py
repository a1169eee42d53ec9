"""Whatever a file's name, an address, a server's word holds: to the page it is text."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, expect

from tests.clients.web.browser import File, answered, drop, opened
from tests.clients.web.moody import Moody, picture
from tests.clients.web.payloads import ELSEWHERE, payloads
from tests.clients.web.test_serve import started

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]
PAYLOADS = payloads()
# What the page's own templates make of a card, and nothing more.
STRANGERS = """
document.querySelectorAll(`#cards :is(script, iframe, object, embed, style, link, a, form, input,
  video, audio, svg:not(.remove svg), img:not(.picture img), [onerror], [onload])`).length
"""


@pytest.fixture(scope="module")
def moody() -> Iterator[Moody]:
    """A service whose words are hostile, too."""
    with Moody() as moody:
        yield moody


@pytest.fixture(scope="module")
def moody_url(moody: Moody) -> Iterator[str]:
    """Where its page is."""
    with started(moody.address) as (url, _):
        yield url


async def is_unharmed(page: Page) -> None:
    """Raises where anything was run or made; `opened` looks at dialogs and at what was loaded."""
    assert await page.evaluate("window.pwned") is None
    assert await page.evaluate(STRANGERS) == 0
    assert await page.evaluate("Object.prototype.pwned") is None
    assert await page.locator("base, meta[http-equiv]").count() == 0


async def test_a_hundred_hostile_file_names_are_text(browser: Browser, moody_url: str) -> None:
    assert len(set(PAYLOADS)) == 100
    async with opened(browser, moody_url) as page:
        await drop(page, *(File(name, picture("")) for name in PAYLOADS))
        await answered(page, 100)
        shown = await page.locator(".card h3").all_text_contents()
        assert [name.replace("/", ":") for name in shown] == [  # a browser's own doing
            name.replace("/", ":") for name in PAYLOADS
        ]
        await is_unharmed(page)
        assert await page.title() == "🍕 Emojini"


async def test_a_hundred_hostile_addresses_are_text(browser: Browser, moody_url: str) -> None:
    async with opened(browser, moody_url) as page:
        for payload in PAYLOADS:
            await page.fill("#url", f"http://127.0.0.1/{payload}?{payload}#{payload}")
            await page.press("#url", "Enter")
        await expect(page.locator(".card")).to_have_count(100)
        await expect(page.locator(".failed:not([hidden])")).to_have_count(100, timeout=30_000)
        await is_unharmed(page)


async def test_hostile_drags_lead_nowhere(browser: Browser, moody_url: str) -> None:
    async with opened(browser, moody_url) as page:
        for payload in PAYLOADS:
            await drop(page, html=f'<img src="{payload}"><p>{payload}', plain=payload)
            await drop(page, uri_list=payload)
        await is_unharmed(page)
        assert await page.evaluate("location.href") == f"{moody_url}/"


async def test_hostile_words_of_the_service_are_text(
    browser: Browser, moody: Moody, moody_url: str
) -> None:
    async with opened(browser, moody_url) as page:
        for payload in PAYLOADS[::20]:
            moody.hostile = payload
            files = File("a.jpg", picture("hostile")), File("b.jpg", picture("hostile fault"))
            for file in files:
                await drop(page, file)
                await expect(page.locator("article[aria-busy='true']")).to_have_count(0)
            await expect(page.locator(".detail").last).to_have_text(payload)
            await expect(page.locator(".name").last).to_have_text(payload)
            await page.locator(".emoji").last.click()
            await page.locator(".copy-all:visible").last.click()
            await is_unharmed(page)


async def test_a_picture_that_is_a_program_is_only_looked_at(
    browser: Browser, moody_url: str
) -> None:
    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" onload="window.pwned=1" width="9" height="9">
      <script>window.pwned=1</script><image href="{ELSEWHERE}/a.png"/></svg>"""
    async with opened(browser, moody_url) as page:
        await drop(page, File("a.svg", svg.encode()), File("a.html", svg.encode()))
        await expect(page.locator(".failed:not([hidden]) h4")).to_have_count(2)
        await is_unharmed(page)


async def test_a_link_with_a_hostile_query_is_text(browser: Browser, moody_url: str) -> None:
    query = quote("<script>window.pwned=1</script>")
    async with opened(browser, f"{moody_url}/?{query}#{query}") as page:
        await is_unharmed(page)
