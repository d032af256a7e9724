"""Where tasks run: in this process, or in worker processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from robench.errors import RobenchError

Told = Callable[[str, float, str], None]
"""label of the task, share done, a few words."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    error: str
    message: str
    traceback: str

    @property
    def short(self) -> str:
        text = self.message.strip().split("\n")[0][:300]
        return text if self.error == "RobenchError" else f"{self.error}: {text}"


class Pool(Protocol):
    """Takes tasks, gives futures of None (done) or Failure."""

    def submit(self, task: Any) -> Future[Any]: ...
    def revive(self) -> None:
        """Start again after a worker process died."""
        ...

    def close(self) -> None: ...


def perform(task: Any, tell: Told) -> Failure | None:
    """Run a task; an exception becomes a Failure, so that one bad plugin stops nothing else."""
    last = 0.0

    def rarely(done: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            tell(task.label, done, text)

    try:
        task.run(rarely)
    except RobenchError as error:
        return Failure("RobenchError", str(error), "")
    except Exception as error:
        return Failure(type(error).__name__, str(error), traceback.format_exc())
    return None


class Inline:
    """Runs each task at once, here."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def submit(self, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._told(task.label, 0.0, "")
        future.set_result(perform(task, self._told))
        return future

    def revive(self) -> None:
        """Nothing to start again."""

    def close(self) -> None:
        """Nothing to stop."""


class Processes:
    """Worker processes on this machine, one torch thread each."""

    def __init__(self, jobs: int, told: Told) -> None:
        self._jobs = jobs
        self._context = multiprocessing.get_context("spawn")
        self._queue: Any = self._context.SimpleQueue()
        self._listener = threading.Thread(target=_listen, args=(self._queue, told), daemon=True)
        self._listener.start()
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._jobs, self._context, initializer=_start_worker, initargs=(self._queue,)
        )

    def submit(self, task: Any) -> Future[Any]:
        try:
            return self._executor.submit(_work, task)
        except RuntimeError:  # the pool broke between two submissions
            self.revive()
            return self._executor.submit(_work, task)

    def revive(self) -> None:
        if self._executor._broken:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._start()

    def close(self) -> None:
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        self._queue.put(None)
        self._listener.join(timeout=5)


def _listen(queue: Any, told: Told) -> None:
    while (message := queue.get()) is not None:
        told(*message)


_tell: Told = lambda label, done, text: None  # noqa: E731 (replaced in each worker)


def _start_worker(queue: Any) -> None:
    """Leave Ctrl-C to the parent, end with it, compute on one thread."""
    global _tell
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _tell = lambda label, done, text: queue.put((label, done, text))  # noqa: E731


def _work(task: Any) -> Failure | None:
    _tell(task.label, 0.0, "")
    return perform(task, _tell)
