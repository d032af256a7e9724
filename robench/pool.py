"""Where tasks run: in this process, or in worker processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from robench import loading, time_limit
from robench.errors import RobenchError, conceal, cut, printable
from robench.store import Damaged

Told = Callable[[str, float, str], None]
"""label of the task, share done, a few words."""


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


SAID, FIRST_LINE, WHOLE = 200, 300, 20_000
"""Characters that are kept of what a task says of how far it is, and of the first line and the
whole of what a failure says."""


class WorkerDied(Exception):
    """The process that ran a task is gone, and with it what the task had done so far."""


class Pool(Protocol):
    """Takes tasks, gives futures of None (done) or Failure; WorkerDied is raised from a future."""

    @property
    def slots(self) -> int:
        """How many tasks it is worth handing over at a time."""
        ...

    def submit(self, task: Any) -> Future[Any]: ...

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
    said = _readable(error)
    if isinstance(error, RobenchError):
        return Failure("RobenchError", said, "")
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException:  # a plugin's own exception may fail at saying what it is
        trace = ""
    name = printable(type(error).__name__)
    return Failure(name, said + _where(error), _kept(trace), isinstance(error, Damaged))


def _where(error: BaseException) -> str:
    """Where a plugin's own code raised, and when, as far as that is known: ` (my_defense.py:12 in
    loss, epoch 1, step 3)`."""
    libraries = [Path(path) for path in sysconfig.get_paths().values()] + [Path(__file__).parent]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and not any(Path(frame.filename).is_relative_to(library) for library in libraries)
    ]
    said = [f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}"] if own else []
    said += getattr(error, "__notes__", [])
    return cut(printable(conceal(f" ({', '.join(said)})")), FIRST_LINE) if said else ""


def _readable(error: BaseException) -> str:
    try:
        return _kept(str(error))
    except BaseException:
        return "(an error that cannot be printed)"


def _kept(text: str) -> str:
    """What can be written to a page, a terminal or a file: no passwords, no controls, not too
    long."""
    lines = cut(conceal(cut(text, 10 * WHOLE)), WHOLE).split("\n")
    return "\n".join(map(printable, lines))


def worn() -> str | None:
    """Why this process is not to go on, after what plugins left in it; None: it may."""
    guard = sys.modules.get("robench.guard")
    return guard.worn if guard is not None else None


class Inline:
    """Runs each task at once, here; once this process is worn, in one that is renewed."""

    slots = 1

    def __init__(self, told: Told) -> None:
        self._told = told
        self._beside: Processes | None = None

    def submit(self, task: Any) -> Future[Any]:
        if worn() and _travels(task):
            self._beside = self._beside or Processes(1, self._told)
            return self._beside.submit(task)
        future: Future[Any] = Future()
        self._told(task.label, 0.0, "")
        future.set_result(perform(task, self._told))
        return future

    def close(self) -> None:
        if self._beside is not None:
            self._beside.close()


def _travels(task: Any) -> bool:
    try:
        pickle.dumps(task)
    except Exception:  # of a module that was handed over, for example
        return False
    return True


@dataclass(frozen=True)
class _Flight:
    """A task in the hands of a process."""

    executor: ProcessPoolExecutor
    process: BaseProcess | None
    task: Any
    future: Future[Any]
    started: float

    def code(self) -> int | None:
        """How its process exited, as far as is known."""
        return self.process.exitcode if self.process is not None else None


def _process(executor: ProcessPoolExecutor) -> BaseProcess | None:
    return next(iter((executor._processes or {}).values()), None)


class Processes:
    """Worker processes on this machine, one torch thread each.

    Every process is an executor of its own: one that dies takes its own task with it and no other.
    """

    def __init__(self, jobs: int, told: Told) -> None:
        self.slots = 2 * jobs  # the next task is at hand when one is done
        self._context = multiprocessing.get_context("spawn")
        self._queue: Any = self._context.SimpleQueue()
        self._listener = threading.Thread(target=_listen, args=(self._queue, told), daemon=True)
        self._listener.start()
        self._lock = threading.RLock()
        self._waiting: deque[tuple[Any, Future[Any]]] = deque()
        self._executors = [self._executor() for _ in range(jobs)]
        self._idle = list(self._executors)
        self._closed = False

    def _executor(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, self._context, initializer=_start_worker, initargs=(self._queue,)
        )

    def submit(self, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((task, future))
            self._start()
        return future

    def _start(self) -> None:
        """Give waiting tasks to idle processes. The lock is held."""
        while self._idle and self._waiting and not self._closed:
            executor = self._idle.pop()
            try:
                inner = executor.submit(_work, self._waiting[0][0])
            except BrokenProcessPool:  # it died with nothing to do
                self._idle.append(self._replace(executor))
                continue
            task, future = self._waiting.popleft()
            flight = _Flight(executor, _process(executor), task, future, time.monotonic())
            inner.add_done_callback(partial(self._done, flight))

    def _done(self, flight: _Flight, done: Future[Any]) -> None:
        """A process is free again, or gone. Called from its executor's own thread."""
        executor, task, future = flight.executor, flight.task, flight.future
        error = CancelledError() if done.cancelled() else done.exception()
        failure, why = done.result() if error is None else (None, None)
        with self._lock:
            if self._closed:
                return
            if isinstance(error, BrokenProcessPool) or why is not None:
                executor = self._replace(executor)
            self._idle.append(executor)
            self._start()
        if error is None:
            future.set_result(failure)
        elif time_limit.ended(task.time_limit, time.monotonic() - flight.started, flight.code()):
            said = f"it had to be ended with its process {time_limit.GRACE:g} s later"
            future.set_result(
                Failure(
                    "RobenchError", f"ran past its time_limit of {task.time_limit:g} s; {said}", ""
                )
            )
        elif isinstance(error, BrokenProcessPool):
            future.set_exception(WorkerDied("its worker process died (out of memory?)"))
        else:  # the task itself could not be sent
            future.set_result(Failure(type(error).__name__, _readable(error), ""))

    def _replace(self, executor: ProcessPoolExecutor) -> ProcessPoolExecutor:
        executor.shutdown(wait=False, cancel_futures=True)
        self._executors.remove(executor)
        self._executors.append(self._executor())
        return self._executors[-1]

    def close(self) -> None:
        with self._lock:
            self._closed = True
        processes = []
        for executor in self._executors:
            processes += list((executor._processes or {}).values())
            executor.shutdown(wait=False, cancel_futures=True)
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
    prepare_worker()
    _tell = lambda label, done, text: queue.put((label, done, text))  # noqa: E731


def prepare_worker() -> None:
    """One thread and steady convolutions, so that bits depend neither on the machine nor on chance;
    what hangs may end the process."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    time_limit.may_end_process = True


def _work(task: Any) -> tuple[Failure | None, str | None]:
    """Why the task failed, and why its process is to be renewed."""
    _tell(task.label, 0.0, "")
    return perform(task, _tell), worn()
