"""What a transfer of files looks like in a terminal, and in plain lines where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from robench.make.progress import FIRST_LINE, LINES, bars

DRAWN = 0.1
"""Seconds between two drawings."""


class FilesBar:
    """A bar over files, and which one it is at."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._progress = bars(console)
        self._progress.disable = not console.is_terminal
        self._bar = self._progress.add_task(what, total=None, text="")
        self._drawn, self._next_line = 0.0, time.monotonic() + FIRST_LINE

    def __enter__(self) -> FilesBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, known: int, name: str) -> None:
        """So many files are done, of as many as are known by now."""
        now = time.monotonic()
        if self._console.is_terminal and now - self._drawn > DRAWN:
            self._drawn = now
            folder, _, leaf = name.rpartition("/")
            text = f"{folder.partition('/')[0]}/{leaf[:12]}"
            self._progress.update(self._bar, completed=done, total=known, text=text)
            self._progress.refresh()
        elif not self._console.is_terminal and now > self._next_line:
            self._next_line = now + LINES
            self._console.print(f"{self._what}: {done} of {known} files", highlight=False)
