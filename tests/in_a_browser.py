"""A real browser for tests, and pages opened in it that note what they complain about."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<script>window.pwned=1</script>\"'</script><img src=x onerror=window.pwned=1>"


class Tab:
    """A page, what it complained about, and what it asked for."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.url = page, file.as_uri()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._hears = {
            "console": lambda message: self.complaints.append(message.text),
            "pageerror": lambda error: self.complaints.append(str(error)),
            "request": lambda request: self.requests.append(request.url),
        }
        for event, hear in self._hears.items():
            page.on(event, hear)

    def open(self, fragment: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(self.url + fragment)
        self.page.locator("#static").wait_for(state="hidden")  # the script has begun
        return self.page

    def models(self) -> list[str]:
        """Names of the rows that are shown, from top to bottom."""
        rows = self.page.locator("#board tr.m:visible th.model a")
        return [name.strip() for name in rows.all_inner_texts()]

    def numbers(self, column: str) -> list[float]:
        place = self.page.locator(f"#board thead button[data-sort='{column}']")
        index = place.evaluate(
            "(button) => [...button.closest('tr').cells].filter((head) => !head.hidden)"
            ".indexOf(button.closest('th'))"
        )
        cells = self.page.locator("#board tr.m:visible")
        read = "(rows, index) => rows.map(row => parseFloat(row.cells[index].textContent))"
        return list(cells.evaluate_all(read, index))

    def fragment(self) -> str:
        return str(self.page.evaluate("decodeURIComponent(location.hash)"))

    def leave(self) -> None:
        """Fails the test when the page complained, or asked for anything but itself."""
        self.page.goto("about:blank")
        for event, hear in self._hears.items():
            self.page.remove_listener(event, hear)
        assert self.complaints == []
        asked = {url.split("#")[0] for url in self.requests if not url.startswith("data:")}
        assert asked <= {"about:blank", self.url}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    """One page for all tests: to open a file in it again costs a third of what a new one does."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


Show = Callable[..., Tab]


@pytest.fixture
def show(window: Any) -> Iterator[Show]:
    """Says which file is to be shown, and how; what became of it is looked at after the test."""
    shown: list[Tab] = []

    def one(file: Path, scheme: str = "light", width: int = 1280, height: int = 900) -> Tab:
        window.set_viewport_size({"width": width, "height": height})
        window.emulate_media(media="screen", color_scheme=scheme, reduced_motion="no-preference")
        shown.append(Tab(window, file))
        return shown[-1]

    yield one
    for tab in shown:
        tab.leave()
