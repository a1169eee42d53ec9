"""The Emojini page in a real Chromium: every way to give a picture, and what one does with it."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, Playwright, expect

from services.shared import photographs
from tests.clients.standin import Context, Standin, hold
from tests.clients.web.browser import (
    CAMERA,
    PHONE,
    File,
    answered,
    api_calls,
    drop,
    failed,
    launch,
    opened,
    paste,
)
from tests.clients.web.test_serve import started

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]
PATHS = {path.stem: path for path in photographs.installed()}
CAT = File("cat.png", PATHS["chelsea"].read_bytes())
COFFEE = File("coffee.png", PATHS["coffee"].read_bytes())
STATIC = Path(__file__).parents[3] / "clients/web/static"
EXAMPLES = STATIC / "examples"


def jpeg(width: int, height: int, *, orientation: int = 1) -> bytes:
    """A cat of that size, as a camera that was held so would store it."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.open(PATHS["chelsea"]).resize((width, height)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def first_of(page: Page, card: int = 0) -> Any:
    """The likeliest emoji of a card."""
    return page.locator(".card").nth(card).locator(".emoji").first


async def test_each_dropped_file_has_a_card_with_five_suggestions(
    browser: Browser, url: str
) -> None:
    async with opened(browser, url) as page:
        await drop(page, CAT, COFFEE)
        await answered(page, 2)
        await expect(page.locator(".card h3")).to_have_text(["cat.png", "coffee.png"])
        await expect(first_of(page)).to_have_text("🐱")
        await expect(first_of(page, 1)).to_have_text("☕")
        await expect(page.locator(".suggestion")).to_have_count(10)
        await expect(page.locator(".share-of").first).to_have_text("51%")
        await expect(page.locator("#said")).to_contain_text("cat.png: cat face 51%, cat 44%")
        assert "Emojini" in await page.title()


async def test_a_picture_is_pasted_with_the_keyboard(browser: Browser, url: str) -> None:
    granted = ["clipboard-read", "clipboard-write"]
    async with opened(browser, url, permissions=granted) as page:
        await page.evaluate("""async () => {
          const picture = await (await fetch("/static/examples/cat.jpg")).blob();
          const image = await createImageBitmap(picture);
          const canvas = new OffscreenCanvas(image.width, image.height);
          canvas.getContext("2d").drawImage(image, 0, 0);
          const png = await canvas.convertToBlob();
          await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
        }""")
        await page.keyboard.press("Control+V")
        await answered(page)
        await expect(first_of(page)).to_have_text("🐱")


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_serving(
    where: tuple[str, int], handler: Callable[..., SimpleHTTPRequestHandler]
) -> Iterator[str]:
    """The URL of a web server of our own."""
    with ThreadingHTTPServer(where, handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{where[0]}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    """The URL of a web server on an address that the page's server may ask."""
    with http_serving(("127.0.0.2", 0), partial(Silent, directory=str(EXAMPLES))) as url:
        yield url


async def test_addresses_are_typed_pasted_and_dragged_and_their_picture_is_shown(
    browser: Browser, url: str, pictures: str
) -> None:
    async with opened(browser, url) as page:
        await page.fill("#url", f"{pictures}/cat.jpg")
        await page.press("#url", "Enter")
        await answered(page, 1)
        await page.evaluate("document.activeElement.blur()")
        await paste(page, plain=f"{pictures}/coffee.jpg")
        await answered(page, 2)
        html = f'<a href="https://shop.invalid/"><img src="{pictures}/flower.jpg"></a>'
        await drop(page, html=html, uri_list="https://shop.invalid/")
        await answered(page, 3)
        await expect(page.locator(".picture img:visible")).to_have_count(3)
        await expect(first_of(page, 1)).to_have_text("☕")
        await page.locator(".why").first.click()
        await expect(page.locator(".saliency:visible")).to_have_count(1)


async def test_what_is_no_address_is_told_beside_the_field(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        for text in ("cat", "javascript:alert(1)", "file:///etc/passwd", "data:text/html,x"):
            await page.fill("#url", text)
            await page.press("#url", "Enter")
            await expect(page.locator("#url-wrong")).to_contain_text("begins with https://")
        await expect(page.locator("#url")).to_be_focused()
        await page.evaluate("document.activeElement.blur()")
        await paste(page, plain="a paragraph of text")
        await expect(page.locator("#toast")).to_contain_text("neither a picture nor the address")
        await expect(page.locator(".card")).to_have_count(0)


class Crowd:
    """Keeps every call for a while, and knows how many there were at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._here = seconds, Lock(), 0
        self.most = 0

    def __call__(self, number: int, context: Context) -> None:
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        time.sleep(self._seconds)
        with self._lock:
            self._here -= 1


async def test_of_many_picked_pictures_three_at_a_time_are_asked_about(
    browser: Browser, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(8)]
    for path in paths:
        path.write_bytes(jpeg(64, 48))
    crowd = Crowd(0.15)
    with Standin(before=crowd) as server, started(server.address) as (url, _):
        async with opened(browser, url) as page:
            await page.set_input_files("#files", paths)
            await expect(page.locator(".card")).to_have_count(8)
            await answered(page, 8)
    assert crowd.most == 3
    assert len(server.requests) == 8


async def test_an_example_is_one_click_away(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        for name, emoji in (("rocket", "🚀"), ("flower", "🌸"), ("palace", "🏰")):
            await page.click(f"[data-example='{name}.jpg']")
            await expect(page.locator(".emoji", has_text=emoji)).to_be_visible()
    assert max(path.stat().st_size for path in EXAMPLES.glob("*.jpg")) <= 40_000


async def test_an_emoji_is_copied_and_so_are_all(browser: Browser, url: str) -> None:
    granted = ["clipboard-read", "clipboard-write"]
    async with opened(browser, url, permissions=granted) as page:
        await drop(page, CAT)
        await answered(page)
        await first_of(page).click()
        await expect(page.locator("#toast")).to_have_text("Copied 🐱 cat face")
        assert await page.evaluate("navigator.clipboard.readText()") == "🐱"
        await page.click(".copy-all")
        assert (await page.evaluate("navigator.clipboard.readText()")).startswith("🐱🐈")


async def test_an_emoji_is_copied_where_the_browser_has_no_clipboard_for_pages(
    browser: Browser, url: str
) -> None:
    async with opened(browser, url) as page:  # as over http from another machine
        await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        await drop(page, CAT)
        await answered(page)
        await first_of(page).click()
        await expect(page.locator("#toast")).to_have_text("Copied 🐱 cat face")
        await page.focus("#url")
        await page.keyboard.press("Control+V")
        await expect(page.locator("#url")).to_have_value("🐱")


@pytest.mark.parametrize(
    ("size", "orientation", "ratio"), [((800, 400), 1, 2), ((800, 400), 6, 0.5)]
)
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
async def test_why_lies_where_the_answer_says(
    size: tuple[int, int], orientation: int, ratio: float, device: dict[str, Any],
    browser: Browser, url: str,
) -> None:  # fmt: skip
    async with opened(browser, url, **device) as page:
        await drop(page, File("cat.jpg", jpeg(*size, orientation=orientation)))
        await answered(page)
        async with page.expect_response("**/api/suggest") as asked:
            await page.locator(".why").first.click()
        box = (await (await asked.value).json())["results"][0]["saliency"]["box"]
        await expect(page.locator(".saliency")).to_be_visible()
        picture = await page.locator(".picture").bounding_box()
        overlay = await page.locator(".saliency").bounding_box()
        assert picture
        assert overlay
        assert picture["width"] / picture["height"] == pytest.approx(ratio, rel=0.01)
        found = {
            "left": (overlay["x"] - picture["x"]) / picture["width"],
            "top": (overlay["y"] - picture["y"]) / picture["height"],
            "right": (overlay["x"] + overlay["width"] - picture["x"]) / picture["width"],
            "bottom": (overlay["y"] + overlay["height"] - picture["y"]) / picture["height"],
        }
        assert found == pytest.approx(box, abs=0.005)
        dim, lit = await page.evaluate("""() => {
          const canvas = document.querySelector(".saliency");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const alphas = data.filter((_, at) => at % 4 === 3);
          return [Math.max(...alphas), Math.min(...alphas)];
        }""")
        assert dim > 150 > 90 > lit


async def test_why_is_toggled_replaced_and_asked_only_once(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        asked = api_calls(page)
        await drop(page, CAT)
        await answered(page)
        first, second = page.locator(".why").nth(0), page.locator(".why").nth(1)
        overlay = page.locator(".saliency")
        await first.click()
        await expect(overlay).to_be_visible()
        await expect(page.locator(".note")).to_have_text("Bright is what speaks for 🐱")
        await expect(page.locator("#said")).to_contain_text("What speaks for cat face is mostly")
        await second.click()
        await expect(page.locator(".note")).to_have_text("Bright is what speaks for 🐈")
        await expect(first).to_have_attribute("aria-pressed", "false")
        await expect(second).to_have_attribute("aria-pressed", "true")
        await second.click()
        await expect(overlay).to_be_hidden()
        await expect(page.locator(".note")).to_be_hidden()
        await first.click()
        await expect(overlay).to_be_visible()
    assert len(asked) == 3


async def test_a_result_is_shared_as_a_picture(browser: Browser, url: str, tmp_path: Path) -> None:
    async with opened(browser, url) as page:
        await drop(page, File("../my <b>cat</b> \u202egnp.png", CAT.content))
        await answered(page)
        async with page.expect_download() as saved:
            await page.click(".share")
        download = await saved.value
        await download.save_as(tmp_path / "shared.png")
    assert download.suggested_filename == "emojini-b-gnp.png"
    with Image.open(tmp_path / "shared.png") as image:
        assert (image.format, image.size) == ("PNG", (1080, 1350))
    assert 200_000 < (tmp_path / "shared.png").stat().st_size < 4_000_000


async def test_a_phone_shares_by_its_own_means(browser: Browser, url: str) -> None:
    async with opened(browser, url, **PHONE) as page:
        await page.evaluate("""() => {
          navigator.canShare = () => true;
          navigator.share = async ({ files }) => { window.shared = files[0].name; };
        }""")
        await drop(page, CAT)
        await answered(page)
        await page.click(".share")
        await expect(page.locator("#toast")).to_have_text("Shared")
        assert await page.evaluate("window.shared") == "emojini-cat.png"


async def test_a_photo_is_taken_from_the_live_view(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        await page.click("#photograph")
        await expect(page.locator("#shutter")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#camera")).to_be_hidden()
        await answered(page)
        await expect(page.locator(".card h3")).to_have_text("photo.jpg")
        assert await page.evaluate("document.getElementById('camera-live').srcObject") is None


async def test_without_a_camera_or_a_permission_it_is_said_what_to_do(
    playwright: Playwright, url: str
) -> None:
    for flags, said in (((), "No camera was found"), (CAMERA[:1], "does not let this page")):
        browser = await launch(playwright, *flags)
        async with opened(browser, url) as page:
            await page.click("#photograph")
            await expect(page.locator("#camera-wrong")).to_contain_text(said)
            await page.keyboard.press("Escape")
            await expect(page.locator("#camera")).to_be_hidden()
        await browser.close()


async def test_a_phone_photographs_with_its_own_camera(browser: Browser, url: str) -> None:
    async with opened(browser, url, **PHONE) as page:
        async with page.expect_file_chooser() as chosen:
            await page.tap("#photograph")
        chooser = await chosen.value
        assert await chooser.element.get_attribute("capture") == "environment"
        await chooser.set_files(
            {"name": "image.jpg", "mimeType": "image/jpeg", "buffer": jpeg(640, 480)}
        )
        await answered(page)
        await expect(page.locator(".card")).to_be_in_viewport()


async def test_a_card_that_is_removed_ends_its_request(browser: Browser) -> None:
    with (
        Standin(before=lambda number, context: hold(context)) as server,
        started(server.address) as (url, _),
    ):
        async with opened(browser, url) as page:
            await drop(page, *(File(f"{n}.jpg", jpeg(64, 48)) for n in range(4)))
            await expect(page.locator(".spent").nth(3)).to_have_text("Waits for its turn")
            async with page.expect_event("requestfailed"):
                await page.locator(".remove").first.click()
            await expect(page.locator(".card")).to_have_count(3)
            await expect(page.locator(".remove").first).to_be_focused()
            for _ in range(3):
                await page.locator(".remove").first.click()
            await expect(page.locator("#empty")).to_be_visible()
            await expect(page.locator("#choose")).to_be_focused()


async def test_of_an_animation_the_first_frame_is_shown_and_said_to_be_looked_at(
    browser: Browser, url: str
) -> None:
    cat = Image.open(PATHS["chelsea"])
    frames = [cat, Image.new("RGB", cat.size, "red")]
    animated, still = io.BytesIO(), io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:], duration=50)
    frames[0].save(still, "GIF")
    async with opened(browser, url) as page:
        await drop(page, File("moves.gif", animated.getvalue()))
        await answered(page)
        await expect(page.locator(".note")).to_contain_text("only its first frame")
        await drop(page, File("stands.gif", still.getvalue()))
        await answered(page, 2)
        await expect(page.locator(".note").nth(1)).to_be_hidden()


async def test_a_folder_is_not_a_picture(browser: Browser, url: str) -> None:
    async with opened(browser, url) as page:
        await page.evaluate(
            "DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true })"
        )
        await drop(page, File("holiday", b""))
        await expect(page.locator("#toast")).to_contain_text("Folders cannot be opened here")
        await expect(page.locator(".card")).to_have_count(0)


async def test_a_picture_of_more_than_10_mib_is_sent_smaller_and_the_card_says_so(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    large, other = tmp_path / "large.png", tmp_path / "large.bin"
    Image.open(PATHS["chelsea"]).resize((2600, 1500)).save(large, compress_level=0)
    other.write_bytes(bytes(11 << 20))
    async with opened(browser, url) as page:
        async with page.expect_request("**/api/suggest") as sent:
            await page.set_input_files("#files", large)
        await answered(page)
        await expect(page.locator(".note")).to_contain_text("Scaled down before sending: it has 11")
        await expect(first_of(page)).to_have_text("🐱")
        body = (await sent.value).post_data_buffer
        assert body is None or len(body) < 10 << 20
        await page.set_input_files("#files", other)
        await failed(page, "This file is too large")
