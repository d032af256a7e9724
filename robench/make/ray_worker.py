"""What a worker of a Ray cluster does, and what it says meanwhile."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from robench.make.pool import Failure, perform, prepare_worker, worn
from robench.make.sent import at_hand
from robench.plugin_code import loading

LISTEN = 0.5
"""Seconds between two looks at what workers say, and between two times that one says something."""


class Messages:
    """An actor that keeps what workers say until the driver asks for it, the latest of each; and
    what the driver says to a worker that is at work: which call is another's by now."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float, str]] = {}
        self._left: set[str] = set()

    def note(self, label: str, done: float, text: str) -> None:
        self._said[label] = (label, done, text)

    def take(self) -> list[tuple[str, float, str]]:
        said, self._said = list(self._said.values()), {}
        return said

    def leave(self, call: str) -> None:
        self._left.add(call)

    def is_left(self, call: str) -> bool:
        return call in self._left


class Worker:
    """An actor that does what it is sent."""

    def __init__(self) -> None:
        self._took = 0.0
        """Seconds of the last call."""

    def prepare(self) -> list[Any]:
        """What nobody has to be asked for twice; nothing came of it."""
        prepare_worker()
        gc.freeze()  # torch stays: to look through it again takes a quarter of a second
        return []

    def work(
        self, tasks: Sequence[Any], enough: float, messages: Any, sent: Mapping[str, Any], call: str
    ) -> list[tuple[Failure | None, float]]:
        """As below; nothing, if the driver has not waited for so long. Asked as it began, it might
        still be done twice: that gives the same results."""
        began, late = time.monotonic(), self._took > enough
        made = [] if late and _is_left(messages, call) else work(tasks, enough, messages, sent)
        self._took = time.monotonic() - began
        return made


def _is_left(messages: Any, call: str) -> bool:
    import ray

    with suppress(ray.exceptions.RayError):  # whatever becomes of the messages, the work goes on
        return bool(ray.get(messages.is_left.remote(call), timeout=10))
    return False


def work(
    tasks: Sequence[Any], enough: float, messages: Any, sent: Mapping[str, Any]
) -> list[tuple[Failure | None, float]]:
    """One task after the other. Returns what came of each and how many seconds it took: of those
    that were begun before `enough` seconds were over, and before this process was worn.

    Args:
        sent: names of files of the store -> Ray's references to their bytes. They are fetched here:
            of tasks that Ray itself brings different things, each waits for a worker to be given
            back and asked for anew, which takes a tenth of a second where there are several nodes.
    """
    if worn():
        return []  # the tasks are done by another
    loading.refresh()  # this process may have run another's tasks before
    said, until = -LISTEN, time.monotonic() + enough

    def tell(label: str, done: float, text: str) -> None:
        nonlocal said
        said = time.monotonic()
        messages.note.remote(label, done, text)

    made: list[tuple[Failure | None, float]] = []
    with at_hand(tasks[0].store, _fetched(sent)) if sent else nullcontext():
        for task in tasks:
            began = time.monotonic()
            if made and (worn() or began > until):
                break
            if began - said > LISTEN:
                tell(task.label, 0.0, "")
            made.append((perform(task, tell, every=LISTEN), time.monotonic() - began))
    return made


def _fetched(sent: Mapping[str, Any]) -> dict[str, Any]:
    import ray

    return dict(zip(sent, ray.get([*sent.values()]), strict=True))
