"""A call in a copy of this process: what ends, hangs or stays behind does so there."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from robench.errors import RobenchError
from robench.make.pool import WorkerDied
from robench.make.workers import Processes, may_copy
from robench.plugin_code.time_limit import within

Made = TypeVar("Made")


class _Call:
    """The call as a task. It does not travel: a copy of this process has it already."""

    digest, time_limit = "", None

    def __init__(self, act: Callable[[], Any], file: Path, seconds: float, who: str) -> None:
        self._act, self._file, self._seconds = act, file, seconds
        self.label = self.group = who

    def run(self, tell: Callable[[float, str], None]) -> None:
        with within(self._seconds, self.label):
            made = self._act()
        self._file.write_bytes(pickle.dumps(made))


def apart(act: Callable[[], Made], seconds: float, who: str) -> Made:
    """What `act` returns, which has to pickle.

    Args:
        seconds: limit of the call, which is then ended with all that it started.
        who: is called, as errors name it.

    Raises RobenchError where it raises, ends its process, or takes longer. Where a process cannot
    be copied the call is made in this one, and only an exception is noticed.
    """
    if not may_copy("cpu"):
        with within(seconds, who):
            return act()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "made"
        pool = Processes(1, lambda *said: None, copy=True)
        try:
            future = pool.submit(_Call(act, file, seconds, who))
            while not future.done():
                pool.wait([future], 1.0)
        finally:
            pool.close()
        try:
            failure = future.result()
        except WorkerDied as died:
            raise RobenchError(f"{who}: {died}") from None
        if failure is not None:
            raise RobenchError(failure.short)
        made: Made = pickle.loads(file.read_bytes())
    return made
