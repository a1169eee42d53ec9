"""`make pictures`: the pictures of the documents, taken from the running programs.

The page is taken in Debian's Chromium with Noto's emoji, which `make test-system` installs.
"""

import asyncio
import subprocess
import sys
from io import StringIO
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, async_playwright
from rich.console import Console
from rich.text import Text

from services.shared import registry, starter
from services.shared.photographs import installed
from tests.clients.web.browser import DESKTOP, answered, launch, opened
from tests.clients.web.conftest import inference_program
from tests.clients.web.test_serve import started

DOCS = Path(__file__).parents[1] / "docs"
REGISTRY = Path("data/registry")
EXAMPLES = ("cat.jpg", "coffee.jpg")
COLOURS = 256


def terminal() -> None:
    """`docs/demo.svg`, what `make demo` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "clients.demo"], capture_output=True, text=True, check=True
    )
    text = done.stdout
    for path in installed():  # only the names are of interest
        text = text.replace(str(path), path.name)
    console = Console(record=True, width=72, file=StringIO())
    console.print(Text("$ make demo", style="bold green"))
    console.print(Text(text))
    (DOCS / "demo.svg").write_text(console.export_svg(title="make demo"))


async def page(url: str) -> None:
    """`docs/page.png`, the page with two pictures, and why the first is what it is."""
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        async with opened(browser, url, **DESKTOP, device_scale_factor=2) as tab:
            for count, example in enumerate(EXAMPLES, start=1):
                await tab.locator(f"[data-example='{example}']").click()
                await answered(tab, count)
            await tab.get_by_role("button", name="Why?").first.click()
            await tab.locator("canvas").first.wait_for()
            await _taken(tab, DOCS / "page.png")
        await browser.close()


async def _taken(tab: Page, path: Path) -> None:
    await tab.evaluate("scrollTo(0, 0)")
    await tab.wait_for_timeout(1_000)  # whatever still moves comes to rest
    await tab.screenshot(path=path)
    # A repository keeps every version for good: a palette is a third of the bytes.
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    """Writes them all."""
    terminal()
    model = registry.folder(REGISTRY, starter.ensure(REGISTRY))
    with inference_program(model) as inference, started(inference.address) as (url, _):
        asyncio.run(page(url))


if __name__ == "__main__":
    main()
