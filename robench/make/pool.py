"""Where tasks run: in this process, or in worker processes that end with their parent."""

from __future__ import annotations

import re
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from robench.errors import RobenchError, conceal, cut, printable
from robench.plugin_code import loading, time_limit
from robench.plugin_code.time_limit import until
from robench.store.store import Damaged

Told = Callable[..., None]
"""label of the task, share done, a few words, and, if it is not beginning only now, for how many
seconds it has been at work."""


WHERE = re.compile(r" \([^()]+:\d+ in [^()]+\)$")
"""The end of a failure's message that says where a plugin raised."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    error: str
    message: str
    traceback: str

    damaged: bool = False
    """Whether it met something in the store that is not whole, and was set aside."""

    @property
    def short(self) -> str:
        """Its first line, as pages and terminals may show it."""
        lines = self.message.strip().split("\n")
        text = cut(printable(lines[0]), FIRST_LINE)
        if len(lines) > 1 and (where := WHERE.search(lines[-1])):
            text += cut(printable(where[0]), FIRST_LINE)
        return text if self.error == "RobenchError" else f"{cut(self.error, 80)}: {text}"


SAYING = 5.0
"""Seconds that an exception may take to say what it is."""
SAID, FIRST_LINE, WHOLE = 200, 300, 20_000
"""Characters that are kept of what a task says of how far it is, and of the first line and the
whole of what a failure says."""


class WorkerDied(Exception):
    """The process that ran a task is gone, and with it what the task had done so far."""


class Pool(Protocol):
    """Takes tasks, gives futures of None (done) or Failure; WorkerDied is raised from a future."""

    @property
    def workers(self) -> int:
        """How many tasks it does at a time."""
        ...

    @property
    def slots(self) -> int:
        """How many tasks it is worth handing over at a time."""
        ...

    def submit(self, task: Any) -> Future[Any]: ...

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Those that are done, once one is, or after so many seconds."""
        ...

    def close(self) -> None: ...


def perform(task: Any, tell: Told, every: float = 0.1) -> Failure | None:
    """Run a task; an exception becomes a Failure, so that one bad plugin stops nothing else.

    Args:
        every: seconds between two messages to `tell`, at least.
    """
    last = 0.0

    def rarely(done: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > every:
            last = now
            tell(task.label, done, cut(printable(conceal(str(text)[:SAID])), SAID))

    try:
        with loading.held_still():
            task.run(rarely)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that calls sys.exit() ends its cell only
        return failure_of(error)
    return None


def failure_of(error: BaseException) -> Failure:
    """What an exception of whatever kind comes to, in texts of bounded length."""
    said = _said(lambda: _kept(str(error)), "(an error that cannot be printed)")
    if isinstance(error, RobenchError):
        return Failure("RobenchError", said, "")
    trace = _said(lambda: "".join(traceback.format_exception(error)), "")
    name = printable(type(error).__name__)
    return Failure(name, said + _where(error), _kept(trace), isinstance(error, Damaged))


def _where(error: BaseException) -> str:
    """Where a plugin's own code raised, and when, as far as that is known: ` (my_defense.py:12 in
    loss, epoch 1, step 3)`."""
    package = Path(__file__).parents[1]
    libraries = [Path(path) for path in sysconfig.get_paths().values()] + [package]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and not any(Path(frame.filename).is_relative_to(library) for library in libraries)
    ]
    said = [f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}"] if own else []
    said += getattr(error, "__notes__", [])
    return cut(printable(conceal(f" ({', '.join(said)})")), FIRST_LINE) if said else ""


def _said(ask: Callable[[], str], otherwise: str) -> str:
    """What an exception says of itself: a plugin's own may fail at that, or never end."""
    try:
        with until(time.monotonic() + SAYING):
            return ask()
    except BaseException:
        return otherwise


def _kept(text: str) -> str:
    """What can be written to a page, a terminal or a file: no passwords, no controls, not too
    long."""
    lines = cut(conceal(cut(text, 10 * WHOLE)), WHOLE).split("\n")
    return "\n".join(map(printable, lines))


def worn() -> str | None:
    """Why this process is not to go on, after what plugins left in it; None: it may."""
    guard = sys.modules.get("robench.plugin_code.guard")
    return guard.worn if guard is not None else None


def prepare_worker() -> None:
    """One thread and steady convolutions, so that bits depend neither on the machine nor on chance;
    what hangs may end the process."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    time_limit.may_end_process = True
