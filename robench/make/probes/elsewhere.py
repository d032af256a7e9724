"""A copy of this process that answers one question, so that whatever is remembered of it is gone;
and what is opened for writing meanwhile."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PATIENCE = 60.0
"""Seconds after which a copy of this process that does not answer is ended."""
CACHES = (".pyc", "torchinductor", "triton", ".cache")
"""In the paths of what Python and torch write when code is first used."""


def may_be_copied(device: torch.device) -> bool:
    """Whether a copy of this process can answer."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def in_a_copy_of_this_process(ask: Callable[[], Tensor]) -> Tensor | None:
    """What `ask` answers in a copy of this process, which ends then: whatever it remembers is gone.
    None where it does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads: torch computes on one
        child = os.fork()
    if not child:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(pickle.dumps(ask().cpu().numpy()))
        finally:
            os._exit(0)
    os.close(write)
    data, deadline = b"", time.monotonic() + PATIENCE
    try:
        while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(read, 2**20)
            if not piece:
                break
            data += piece
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # it is not reaped yet, so that the number is still its own
        os.waitpid(child, 0)
    try:
        return torch.from_numpy(pickle.loads(data).copy())
    except Exception:  # it died on the way
        return None


class Writes:
    """Counts what is opened for writing, and connected to, inside the block. It does not hear what
    compiled code opens by itself."""

    _open: Writes | None = None
    _listens = False

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Writes:
        if not Writes._listens:  # a hook stays for good
            sys.addaudithook(_hear)
            Writes._listens = True
        Writes._open = self
        return self

    def __exit__(self, *_: object) -> None:
        Writes._open = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    here = Writes._open
    if here is None:
        return
    if event == "open":
        path, _, flags = arguments
        writing = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        usual = str(path) == os.devnull or any(part in str(path) for part in CACHES)
        here.count += bool(writing) and not usual
    elif event == "socket.connect":
        here.count += 1
