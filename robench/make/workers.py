"""Where tasks run on this machine: in this process, or in workers, which are watched, and are ended
with all that they started.

Where it may, a worker begins as a copy of this process, which takes some hundredths of a second;
else as a process of its own, which imports everything again.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from typing import Any

from robench.make.pool import (
    Failure,
    Pool,
    Told,
    WorkerDied,
    failure_of,
    perform,
    prepare_worker,
    worn,
)
from robench.plugin_code import time_limit

LOOK = 1.0
"""Seconds between two looks at who is alive and who is late, at most."""
PATIENCE = 2.0
"""Seconds that a worker in the middle of its work gets to end by itself, before it is killed."""


def may_copy(device: str) -> bool:
    """Whether workers may begin as copies of this process: not where a GPU or the system's own
    libraries hold threads and handles that a copy does not have."""
    if sys.platform != "linux" or device != "cpu":
        return False
    import torch

    return not torch.cuda.is_available()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    flight: tuple[Any, Future[Any]] | None = None
    """The task in its hands."""
    deadline: float = float("inf")
    limit: float = time_limit.DAY
    """Seconds that end at the deadline."""


class Processes:
    """A Pool (pool.py) of worker processes, one torch thread each. One that dies takes its own task
    with it and no other.

    Everything happens in the thread that calls: there are no others to be copied with a process.

    Args:
        copy: whether workers begin as copies (see may_copy).
    """

    def __init__(self, jobs: int, told: Told, copy: bool = False) -> None:
        self.workers, self.slots = jobs, 2 * jobs  # the next task is at hand when one is done
        self._jobs, self._told, self._copy = jobs, told, copy
        self._context: Any = multiprocessing.get_context("fork" if copy else "spawn")
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[Any, Future[Any]]] = deque()

    def submit(self, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((task, future))
        self._give()
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Those that are done, once one is, or after so many seconds."""
        until = time.monotonic() + seconds
        while not (done := {future for future in futures if future.done()}):
            left = until - time.monotonic()
            if left <= 0:
                break
            self.turn(min(left, LOOK))
        return done

    def turn(self, seconds: float) -> None:
        """Hear what workers say within so many seconds, and look whether they live and are in
        time."""
        busy = [worker for worker in self._workers if worker.flight is not None]
        left = min((worker.deadline for worker in busy), default=float("inf")) - time.monotonic()
        for ready in wait_for([w.connection for w in busy], max(0.0, min(left, seconds))):
            self._hear(next(worker for worker in busy if worker.connection is ready))
        for worker in busy:
            if worker.flight is None:
                continue
            if time.monotonic() > worker.deadline:
                self._late(worker)
            elif _is_gone(worker.process) and not worker.connection.poll():
                self._died(worker)
        self._give()

    def _give(self) -> None:
        """Waiting tasks to idle workers, which are started as they are needed."""
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.flight is None), None)
            if idle is None and len(self._workers) == self._jobs:
                return
            task, future = flight = self._waiting.popleft()
            try:
                data, first = pickle.dumps(task), None
            except Exception as error:  # of a module that was handed over, for example
                if not self._copy:
                    future.set_result(Failure(type(error).__name__, str(error), ""))
                    continue
                data, first = pickle.dumps(None), task  # a copy of this process has it already
                if idle is not None:
                    self._end(idle)
                    idle = None
            worker = idle or self._start(first)
            try:
                worker.connection.send_bytes(data)
            except OSError:  # it died with nothing to do
                self._end(worker)
                self._waiting.appendleft(flight)
                continue
            worker.flight = flight
            self._allow(worker, None)

    def _start(self, first: Any) -> _Worker:
        ours, theirs = self._context.Pipe()
        others = [worker.connection for worker in self._workers] + [ours] if self._copy else []
        process = self._context.Process(
            target=_serve, args=(theirs, others, first), daemon=True, name="robench worker"
        )
        copied = _without_threads() if self._copy else nullcontext()
        with warnings.catch_warnings(), copied:
            warnings.simplefilter("ignore", DeprecationWarning)  # of copies with threads
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _allow(self, worker: _Worker, seconds: float | None) -> None:
        """`seconds` from now for what it does, and some for it to end by itself; None: as much as
        anything gets."""
        worker.limit = time_limit.LONGEST_TASK if seconds is None else seconds
        worker.deadline = time.monotonic() + worker.limit + time_limit.GRACE

    def _hear(self, worker: _Worker) -> None:
        assert worker.flight is not None
        try:
            what, *said = worker.connection.recv()
        except Exception:  # the end of what it says, or half of it
            self._died(worker)
            return
        if what == "told":
            self._told(*said)
        elif what == "limit":
            self._allow(worker, *said)
        else:
            failure, why = said
            _, future = worker.flight
            worker.flight = None
            if why is not None:
                self._end(worker)
            future.set_result(failure)

    def _died(self, worker: _Worker) -> None:
        assert worker.flight is not None
        _, future = worker.flight
        code = self._end(worker)
        how = "" if code is None else f" with status {code}" if code >= 0 else f", signal {-code}"
        why = "out of memory?" if code == -signal.SIGKILL else "a plugin may have ended it"
        future.set_exception(WorkerDied(f"its worker process died{how} ({why})"))

    def _late(self, worker: _Worker) -> None:
        assert worker.flight is not None
        task, future = worker.flight
        self._end(worker)
        limit = task.time_limit or worker.limit
        said = f"it had to be ended with its process {time_limit.GRACE:g} s later"
        said = f"ran past its time_limit of {round(limit, 2):g} s; {said}"
        future.set_result(Failure("RobenchError", said, ""))

    def _end(self, worker: _Worker) -> int | None:
        """Kill a worker with all processes of its group; how it had ended, if it had."""
        worker.flight = None
        code = _code(worker.process)
        _kill_group(worker.process)
        worker.connection.close()
        worker.process.join(PATIENCE)
        self._workers.remove(worker)
        return code if code is not None else worker.process.exitcode

    def close(self) -> None:
        """End all workers: those at work may leave what they do in order, for PATIENCE seconds."""
        busy = [worker for worker in self._workers if worker.flight is not None]
        for worker in busy:
            worker.process.terminate()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not all(_is_gone(w.process) for w in busy):
            time.sleep(0.01)
        for worker in list(self._workers):
            self._end(worker)


class Inline:
    """Runs each task at once, here; once this process is worn, in one that is renewed.

    Args:
        renew: whether another process may do the work: not where the store lives in this one.
    """

    workers = slots = 1

    def __init__(self, told: Told, renew: bool = True) -> None:
        self._told, self._renew = told, renew
        self._beside: Pool | None = None

    def submit(self, task: Any) -> Future[Any]:
        if self._renew and worn() and _travels(task):
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


def _code(process: BaseProcess) -> int | None:
    """How it ended; it stays to be waited for, so that its number is nobody else's."""
    if not hasattr(os, "waitid") or process.pid is None:
        return process.exitcode
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return process.exitcode
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _is_gone(process: BaseProcess) -> bool:
    return _code(process) is not None


def _kill_group(process: BaseProcess) -> None:
    assert process.pid is not None
    with suppress(OSError):  # it has no group yet, or nobody is left in it
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        process.kill()


@contextmanager
def _without_threads() -> Iterator[None]:
    """OpenCV without its threads while this process is copied: the copy would wait for ever for
    those it does not have. What every copy would import is imported here, once: OpenCV
    (prepare_worker), and what torch wants for the first gradient of many outputs."""
    import cv2

    importlib.import_module("torch.fx.experimental.symbolic_shapes")

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


# -- in the worker ---------------------------------------------------------------------------------


def _serve(connection: Connection, others: list[Connection], first: Any) -> None:
    """Do what comes, one task after the other, until there is nobody who sends any."""
    with suppress(OSError):
        os.setpgid(0, 0)  # what plugins start is ended with it
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, _leave)
    parent = multiprocessing.parent_process()
    mine = os.getpid()

    def follow() -> None:
        if parent is not None:
            parent.join()
            with suppress(OSError):
                os.killpg(mine, signal.SIGKILL)
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock:
            connection.send(message)

    prepare_worker()
    time_limit.announce = lambda seconds: send("limit", seconds)
    while True:
        try:
            task = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        except Exception as error:  # of a class that is not there
            send("done", Failure(type(error).__name__, str(error), ""), None)
            continue
        task = first if task is None else task
        send("told", task.label, 0.0, "")
        try:
            failure = perform(task, lambda *said: send("told", *said))
        except KeyboardInterrupt as error:  # of a plugin's own
            failure = failure_of(error)
        try:
            send("done", failure, worn())
        except OSError:  # nobody waits for it any more
            os._exit(0)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit("ended")
