"""A real Chromium, and what people do in it; every tab that is opened here is watched to its end.

A tab fails its test when the page ran into an error, when anything tried to break the policy or to
load from elsewhere, when a dialog came up, or when something moved that nobody had touched.
"""

import base64
import json
import mimetypes
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, Page, Playwright, Request, expect

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
LOCAL = ("", "blob", "data")  # schemes of what a page has made itself
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const { value, hadRecentInput, sources } of list.getEntries()) {
    const moved = sources.map(({ node, previousRect, currentRect }) => [
      (node?.outerHTML ?? node?.textContent ?? "").slice(0, 80), previousRect, currentRect,
    ]);
    window.shifts.push({ value, hadRecentInput, moved });
  }
}).observe({ type: "layout-shift", buffered: true });
"""
TRANSFER = """
(given) => {
  const transfer = new DataTransfer();
  for (const { name, type, body } of given.files ?? []) {
    const bytes = Uint8Array.from(atob(body), (byte) => byte.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  for (const [kind, text] of Object.entries(given.texts ?? {})) transfer.setData(kind, text);
  return transfer;
}
"""
DROP = f"""
(given) => {{
  const dataTransfer = ({TRANSFER})(given);
  window.droppedAt = performance.now();
  for (const kind of ["dragenter", "dragover", "drop"]) {{
    const event = new DragEvent(kind, {{ dataTransfer, bubbles: true, cancelable: true }});
    document.body.dispatchEvent(event);
  }}
}}
"""
PASTE = f"""
(given) => {{
  const clipboardData = ({TRANSFER})(given);
  const event = new ClipboardEvent("paste", {{ clipboardData, bubbles: true, cancelable: true }});
  document.activeElement.dispatchEvent(event);
}}
"""


class File(NamedTuple):
    """What a file manager would give."""

    name: str
    content: bytes

    def as_json(self) -> dict[str, str]:
        """As the page's side of `TRANSFER` takes it."""
        kind = mimetypes.guess_type(self.name)[0] or ""
        return {"name": self.name, "type": kind, "body": base64.b64encode(self.content).decode()}


async def launch(playwright: Playwright, *flags: str) -> Browser:
    """Debian's Chromium."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *flags])


class Watch:
    """What happened in a tab that should not have."""

    def __init__(self, page: Page, url: str) -> None:
        self._page, self._origin = page, urlsplit(url)[:2]
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("request", lambda request: self._asked(request.url))

    def dialogs_are_wrong(self) -> None:
        """Also keeps one that comes up from holding the tab."""

        async def refuse(dialog: Any) -> None:
            self.wrong.append(f"dialog: {dialog.message}")
            await dialog.dismiss()

        self._page.on("dialog", refuse)

    def _said(self, kind: str, text: str) -> None:
        if "Content Security Policy" in text or (kind == "error" and "Failed to load" not in text):
            self.wrong.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in LOCAL and parts[:2] != self._origin:
            self.wrong.append(f"asked elsewhere: {url}")

    async def moved(self) -> list[dict[str, Any]]:
        """The layout shifts that no click or key explains."""
        shifts: list[dict[str, Any]] = await self._page.evaluate("window.shifts ?? []")
        return [shift for shift in shifts if not shift["hadRecentInput"]]


@asynccontextmanager
async def opened(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """A page in a tab of its own, which must have been in order when the test is done with it."""
    async with await browser.new_context(**{**DESKTOP, **context}) as tab:
        tab.set_default_timeout(15_000)
        await tab.add_init_script(WATCH_SHIFTS)
        page = await tab.new_page()
        watch = Watch(page, url)
        watch.dialogs_are_wrong()
        await page.goto(url)
        yield page
        moved = [] if context.get("java_script_enabled") is False else await watch.moved()
        assert not watch.wrong, watch.wrong
        assert not moved, moved


def api_calls(page: Page) -> list[Request]:
    """What the page asks of the API from now on; the list grows."""
    calls: list[Request] = []

    def note(request: Request) -> None:
        if "/api/" in request.url:
            calls.append(request)

    page.on("request", note)
    return calls


async def drop(page: Page, *files: File, **texts: str) -> None:
    """Drops files, or a dragged picture's texts by kind, onto the page."""
    await page.evaluate(DROP, _given(files, texts))


async def paste(page: Page, *files: File, **texts: str) -> None:
    """Pastes files, or texts by kind, where the focus is."""
    await page.evaluate(PASTE, _given(files, texts))


def _given(files: Iterable[File], texts: dict[str, str]) -> dict[str, Any]:
    kinds = {f"text/{kind.replace('_', '-')}": text for kind, text in texts.items()}
    return {"files": [file.as_json() for file in files], "texts": kinds}


async def answered(page: Page, count: int = 1) -> None:
    """Waits until so many cards have their suggestions."""
    await expect(page.locator(".suggestions:not([hidden])")).to_have_count(count, timeout=20_000)


async def failed(page: Page, title: str) -> None:
    """Waits for a card that failed so."""
    await expect(page.locator(".failed:not([hidden]) h4").last).to_have_text(title, timeout=20_000)


async def complaints(page: Page) -> str:
    """What axe-core has against the page as it is now; empty when nothing."""
    found = (await Axe().run(page)).response["violations"]
    return "\n".join(
        f"{violation['id']}: {json.dumps([node['html'] for node in violation['nodes']])}"
        for violation in found
    )
