"""A real Chromium for tests that open pages: Debian's, or another one on the PATH; without one they are skipped."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest

FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(PATH is None, reason="no Chromium; apt-get install chromium")


@contextlib.contextmanager
def opened(*, width: int = 1280, height: int = 900) -> Iterator:
    """A page of a browser of its own (playwright, synchronous); `page.errors` is what the console and scripts said."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.errors = []
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
            yield page
        finally:
            browser.close()


def overflow(page) -> int:
    """Pixels by which a page is wider than its window: 0 for one that does not scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
