"""torch's ambient state as robench's passes need it, whatever the caller has set around them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


@contextmanager
def own_state() -> Iterator[None]:
    """Inside the block torch is as it comes: float32 by default, gradients on, no inference mode,
    no autocast, tensors on the CPU unless said otherwise. Afterwards it is as it was found.

    Usable as a decorator: the state then holds for the length of each call.
    """
    kind = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # a mode that every call to torch pays for
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(kind)


@contextmanager
def numpy_and_python_seeded(seed: int) -> Iterator[None]:
    """What draws from the global states of numpy and `random` inside the block draws the same every
    time; they are then as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
