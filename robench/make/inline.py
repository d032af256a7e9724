"""Where tasks run one after the other: in this process."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from robench.make.pool import Pool, Told, perform, worn


class Inline:
    """Runs each task at once, here; once this process is worn, in one that is renewed.

    Args:
        renew: whether another process may do the work: not where the store lives in this one.
    """

    slots = 1

    def __init__(self, told: Told, renew: bool = True) -> None:
        self._told, self._renew = told, renew
        self._beside: Pool | None = None

    def submit(self, task: Any) -> Future[Any]:
        if self._renew and worn() and _travels(task):
            from robench.make.workers import Processes

            self._beside = self._beside or Processes(1, self._told)
            return self._beside.submit(task)
        future: Future[Any] = Future()
        self._told(task.label, 0.0, "")
        future.set_result(perform(task, self._told))
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        done = {future for future in futures if future.done()}
        return done or (self._beside.wait(futures, seconds) if self._beside is not None else set())

    def close(self) -> None:
        if self._beside is not None:
            self._beside.close()


def _travels(task: Any) -> bool:
    try:
        pickle.dumps(task)
    except Exception:  # of a module that was handed over, for example
        return False
    return True
