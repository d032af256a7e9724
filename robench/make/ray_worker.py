"""What a worker of a Ray cluster does, and what it says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from robench.make.pool import Failure, perform, prepare_worker, worn
from robench.make.sent import at_hand
from robench.plugin_code import loading

LISTEN = 0.5
"""Seconds between two looks at what workers say, and between two times that one says something."""


class Messages:
    """An actor that keeps what workers say until the driver asks for it: the latest of each."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float, str]] = {}

    def note(self, label: str, done: float, text: str) -> None:
        self._said[label] = (label, done, text)

    def take(self) -> list[tuple[str, float, str]]:
        said, self._said = list(self._said.values()), {}
        return said


class Worker:
    """An actor that does what it is sent."""

    def prepare(self) -> list[Any]:
        """What nobody has to be asked for twice; nothing came of it."""
        prepare_worker()
        return []

    def work(self, *given: Any) -> list[tuple[Failure | None, float]]:
        return work(*given)


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
