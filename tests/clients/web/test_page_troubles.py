"""What the page says when something is wrong, and how it gets over it, in a real Chromium."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.async_api import Browser, Page, Route, expect

from clients.demo import free_port
from tests.clients.web.browser import File, answered, drop, failed, opened
from tests.clients.web.moody import BUSY, Moody, picture
from tests.clients.web.test_page import CAT
from tests.clients.web.test_serve import started

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def moody() -> Iterator[Moody]:
    """The service that fails as it is told."""
    with Moody() as moody:
        yield moody


@pytest.fixture(scope="module")
def moody_url(moody: Moody) -> Iterator[str]:
    """Where its page is."""
    with started(moody.address) as (url, _):
        yield url


def detail(page: Page) -> object:
    """What the last card that failed says about it."""
    return expect(page.locator(".failed:not([hidden]) .detail").last)


def png_of(width: int, height: int) -> bytes:
    """Only its header is true."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT"


async def test_what_is_wrong_with_a_picture_is_said_in_words(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        for file, title, said in (
            (File("notes.txt", b"no picture at all"), "This is not a picture", "send JPEG"),
            (File("empty.jpg", b""), "This file is empty", "no bytes"),
            (File("wall.png", png_of(30_000, 30_000)), "This picture is too large", "64,000,000"),
            (File("half.png", CAT.content[:9000]), "This is not a picture", ""),
        ):
            await drop(page, file)
            await failed(page, title)
            await expect(page.locator(".detail").last).to_contain_text(said)
            await expect(page.locator("#said")).to_contain_text(f"{file.name}: {title}")
        await expect(page.locator(".again:visible")).to_have_count(0)  # it would be the same


async def test_addresses_that_lead_nowhere_are_told(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        for address, title in (
            ("http://127.0.0.1/cat.png", "This address is not allowed"),
            ("https://no-such-host.invalid/cat.png", "This address gave no picture"),
            ("http://169.254.169.254/latest", "This address is not allowed"),
            ("http://[::1]/cat.png", "This address is not allowed"),
        ):
            await page.fill("#url", address)
            await page.press("#url", "Enter")
            await expect(page.locator(".card h3").last).to_have_text(address)
            await failed(page, title)


async def test_a_busy_service_is_asked_again_after_a_countdown(
    browser: Browser, moody: Moody, moody_url: str
) -> None:
    moody.seen.clear()
    async with opened(browser, moody_url) as page:
        await page.clock.install()
        await drop(page, File("a.jpg", picture("busy")))
        await failed(page, "Many people are asking now")
        await expect(page.locator(".detail")).to_have_text(BUSY)
        await expect(page.locator(".countdown")).to_have_text(re.compile(r"Tries again in 1\d s"))
        await page.clock.run_for(10_000)
        await expect(page.locator(".countdown")).to_have_text(re.compile(r"Tries again in \d s"))
        await page.clock.run_for(5_000)
        await answered(page)
    assert moody.seen["busy"] == 2


async def test_a_busy_service_is_asked_at_once_when_people_say_so(
    browser: Browser, moody: Moody, moody_url: str
) -> None:
    moody.seen.clear()
    async with opened(browser, moody_url) as page:
        await drop(page, File("a.jpg", picture("busy")))
        await page.get_by_role("button", name="Try now").click()
        await answered(page)
        await expect(page.locator(".remove")).to_be_focused()


async def test_after_a_few_tries_it_is_for_people_to_say(
    browser: Browser, moody: Moody, moody_url: str
) -> None:
    moody.seen.clear()
    moody.busy_times = 8
    async with opened(browser, moody_url) as page:
        await page.clock.install()
        await drop(page, File("a.jpg", picture("busy")))
        for tries in range(1, 8):
            await expect(page.locator(".countdown")).to_contain_text("Tries again in")
            assert moody.seen["busy"] == tries
            async with page.expect_response("**/api/suggest"):
                await page.clock.run_for(15_001)
        await expect(page.locator(".countdown")).to_contain_text("No more tries by itself")
        await page.clock.run_for(60_000)
        assert moody.seen["busy"] == 8
        await page.get_by_role("button", name="Try now").click()
        await answered(page)
    moody.busy_times = 1


async def test_what_is_wrong_with_the_service_is_said_in_words(
    browser: Browser, moody_url: str
) -> None:
    async with opened(browser, moody_url) as page:
        for mood, title, said in (
            ("late", "That took too long", "It takes 12 s at the least."),
            ("fault", "Something went wrong in the service", "The log has it under 0a1b2c."),
        ):
            await drop(page, File("a.jpg", picture(mood)))
            await failed(page, title)
            await expect(page.locator(".detail").last).to_have_text(said)
            await page.get_by_role("button", name="Try again").last.click()
            await failed(page, title)


async def test_a_why_that_fails_is_told_over_the_picture(browser: Browser, moody_url: str) -> None:
    async with opened(browser, moody_url) as page:
        await drop(page, File("a.jpg", picture("")))
        await answered(page)
        await page.locator(".why").first.click()
        await expect(page.locator(".note")).to_contain_text("The answer made no sense")
        await expect(page.locator(".why").first).to_have_attribute("aria-pressed", "false")


async def test_a_service_that_is_away_is_asked_until_it_is_back(browser: Browser) -> None:
    port = free_port()
    with started(f"127.0.0.1:{port}") as (url, _):
        async with opened(browser, url) as page:
            await drop(page, File("a.jpg", picture("")))
            await failed(page, "The emoji service is away")
            await expect(page.locator(".countdown")).to_contain_text("Tries again in")
            with Moody(port):
                await answered(page)


async def test_a_page_whose_server_stops_is_tried_until_it_is_back(
    browser: Browser, moody: Moody
) -> None:
    port, programs = free_port(), ExitStack()
    with programs:
        url, _ = programs.enter_context(started(moody.address, f"--port={port}"))
        async with opened(browser, url) as page:
            programs.close()
            await drop(page, File("a.jpg", picture("")))
            await failed(page, "This page's server does not answer")
            await page.click("[data-example='cat.jpg']")
            await expect(page.locator("#toast")).to_contain_text("The example does not load")
            programs.enter_context(started(moody.address, f"--port={port}"))
            await answered(page)


async def test_without_a_network_it_says_so_and_goes_on_with_one(
    browser: Browser, url: str
) -> None:
    async with opened(browser, url) as page:
        await page.context.set_offline(True)
        await drop(page, CAT)
        await failed(page, "You are offline")
        await page.context.set_offline(False)
        await answered(page)


async def test_an_answer_that_never_comes_is_not_waited_for(browser: Browser, url: str) -> None:
    async def never(route: Route) -> None:
        """Nothing real can be trusted to take half a minute."""

    async with opened(browser, url) as page:
        await page.clock.install()
        await page.route("**/api/suggest", never)
        async with page.expect_request("**/api/suggest"):
            await drop(page, CAT)
        await page.clock.run_for(31_000)
        await failed(page, "That took too long")
        await page.unroute_all(behavior="ignoreErrors")


async def test_a_proxy_that_answers_in_its_own_way_is_understood(
    browser: Browser, url: str
) -> None:
    async def page_of_a_proxy(route: Route) -> None:
        await route.fulfill(status=statuses.pop(), body="<h1>nginx</h1>", content_type="text/html")

    statuses: list[int] = []
    async with opened(browser, url) as page:
        await page.route("**/api/suggest", page_of_a_proxy)
        for status, title in (
            (200, "The answer made no sense"),
            (413, "This picture is too large"),
            (502, "The emoji service is away"),
        ):
            statuses.append(status)
            await drop(page, CAT)
            await failed(page, title)


async def test_a_reason_from_the_future_is_shown_as_it_is_told(browser: Browser, url: str) -> None:
    async def answer(route: Route) -> None:
        told = {"reason": "ERROR_REASON_constructor", "detail": "Cats are not served on Fridays."}
        await route.fulfill(status=418, json=told)

    async with opened(browser, url) as page:
        await page.route("**/api/suggest", answer)
        await drop(page, CAT)
        await failed(page, "That did not work")
        await expect(page.locator(".detail")).to_have_text("Cats are not served on Fridays.")
