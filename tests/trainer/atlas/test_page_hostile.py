"""Whatever captions, hashtags, addresses, segments and names hold: to the page it is text."""

from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from services.shared.vocabulary import inventory
from tests.clients.web.browser import CHROMIUM, QUIET, complaints
from tests.clients.web.payloads import payloads
from tests.trainer.atlas.making import atlas, find, frozen

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]
PAYLOADS = payloads()
MADE = """document.querySelectorAll(`iframe, object, embed, link, form, video, audio, base, math,
  template, details, [onerror], [onload], [onclick], [onfocus], script[src]`).length"""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory, starter: Path) -> Path:
    """An atlas of posts all of whose text is hostile."""
    root = tmp_path_factory.mktemp("hostile")
    emoji = [one.text for one in inventory()[200:212]]
    finds = [
        find(
            root / "jpeg",
            number,
            [emoji[number % len(emoji)], emoji[0]][: 1 + number % 2],
            author=f"author {number % 90}",
            seconds=1.4e9 + number * 50_000,
            tags=[PAYLOADS[number % len(emoji) * 8 + number % 8], "same"],
            words=[PAYLOADS[number % 100], PAYLOADS[-1 - number % 100]],
            uri=PAYLOADS[number % 100]
            if number % 3
            else f"https://evil.invalid/{PAYLOADS[number % 100]}",
            segment=PAYLOADS[number % 2].replace(",", ""),
        )
        for number in range(600)
    ]
    segments = ",".join(PAYLOADS[number].replace(",", "") for number in (0, 1))
    atlas(frozen(root, finds, emoji), root, starter, compare=f"segment={segments}")
    return root / "atlas" / "atlas.html"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(page_path: Path):  # type: ignore[no-untyped-def]
    """It, opened; nothing else may be asked for, and nothing said."""
    asked: list[str] = []
    said: list[str] = []
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        tab = await browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        await tab.goto(page_path.as_uri())
        yield tab
        await browser.close()
    assert [url for url in asked if not url.startswith(("data:", page_path.as_uri()))] == []
    assert said == []


async def is_unharmed(page: Page) -> None:
    assert await page.evaluate("window.pwned") is None
    assert await page.evaluate(MADE) == 0
    links = await page.evaluate("[...document.querySelectorAll('a[target]')].map(a => a.href)")
    assert all(link.startswith("https://evil.invalid/") for link in links)  # the posts' own address
    rels = await page.evaluate("[...document.querySelectorAll('a[target]')].map(a => a.rel)")
    assert {"noopener noreferrer nofollow"} >= set(rels)


async def test_a_hundred_payloads_are_text_on_every_emojis_page(page: Page) -> None:
    assert len(set(PAYLOADS)) == 100
    await is_unharmed(page)
    count = await page.locator("#grid a").count()
    assert count == 12
    for number in range(count):
        await page.locator("#grid a").nth(number).click()
        await page.locator("#sheet[open] .strip img").first.wait_for()
        await is_unharmed(page)
        await page.keyboard.press("Escape")
    assert "<script>window.pwned=1</script>" in await page.locator("body").inner_text()


async def test_hostile_searches_find_nothing_and_run_nothing(page: Page) -> None:
    for payload in PAYLOADS:
        await page.fill("#find", payload)
    await is_unharmed(page)
    await page.fill("#find", "zzzz")
    assert await page.locator("#count").text_content() == "0 emoji"
    await page.fill("#find", "")
    assert await page.locator("#grid li:visible").count() == 12


async def test_hostile_fragments_lead_nowhere(page: Page, page_path: Path) -> None:
    for fragment in ("e999999", "e0x", "e-1", "d1", "<img src=x onerror=window.pwned=1>"):
        await page.evaluate("(to) => { location.hash = to; }", fragment)
    await is_unharmed(page)
    assert await page.locator("#sheet[open]").count() == 0


async def test_the_page_is_for_everybody(page: Page) -> None:
    assert await complaints(page) == ""
    await page.locator("#grid a").first.click()
    assert await complaints(page) == ""
