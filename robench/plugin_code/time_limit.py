"""Ends what never returns: first by an exception inside it, then, in a worker, with its process."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from robench.errors import RobenchError

GRACE = 2.0
"""Seconds after the limit until a worker process is ended that did not heed the exception."""
LONGEST = 10.0**8
"""Seconds; timers of the system do not count further."""

DAY = 86_400.0
"""Seconds that an evaluation may take whose card says nothing."""
WEEK = 7 * DAY
"""And a training."""
LONGEST_TASK = WEEK
"""And whatever a worker does beside them, such as reading a data set."""

may_end_process = False
"""Whether this process is a worker, which another one replaces; pool.py says so there."""
announce: Callable[[float | None], None] | None = None
"""Tells whoever watches this process that it may be ended so many seconds from now, and GRACE
later; None: no more. workers.py sets it in its workers; others end themselves."""


class OutOfTime(BaseException):
    """The deadline has passed. Not an Exception, so that a plugin's `except Exception` lets it
    through."""


STOPS = (KeyboardInterrupt, OutOfTime)
"""What ends more than the call that it came from, whoever raised it; all else is that call's own
failure, also what is no Exception."""


@contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """Raise OutOfTime inside the block once time.monotonic() passes `deadline`; None: never.

    Python code is interrupted wherever it is, as long as this is the main thread of its process.
    What sits in compiled code, or swallows the exception, is ended GRACE seconds later together
    with its process where that is a worker; elsewhere it is left alone.
    """
    main = threading.current_thread() is threading.main_thread()
    left = None if deadline is None else deadline - time.monotonic()
    if left is None or left > LONGEST or not (main and hasattr(signal, "setitimer")):
        yield
        return
    armed = True

    def interrupt(signal_: int, frame: FrameType | None) -> None:
        if armed:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, interrupt)
    watched = announce
    silence = open(os.devnull, "w") if may_end_process and not watched else None  # noqa: PTH123, SIM115
    try:
        if watched is not None:
            watched(max(left, 0))
        if silence is not None:
            faulthandler.dump_traceback_later(max(left, 0) + GRACE, exit=True, file=silence)
        try:  # within both, wherever the exception strikes
            # Again every second: one exception may get lost in a callback of a library.
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6), 1.0)
            yield
        finally:
            armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signal.SIGALRM) is interrupt:
            signal.signal(signal.SIGALRM, before)  # else the guard around sees who changed it
        if watched is not None:
            with suppress(OSError):
                watched(None)
        if silence is not None:
            faulthandler.cancel_dump_traceback_later()
            silence.close()


@contextmanager
def within(seconds: float, who: str) -> Iterator[None]:
    """Raises RobenchError, which names `who`, where the block takes longer."""
    try:
        with until(time.monotonic() + seconds):
            yield
    except OutOfTime:
        raise RobenchError(f"{who} ran past its time_limit of {seconds:g} s") from None
