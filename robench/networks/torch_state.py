"""What is other for the length of a block: torch's ambient state, random states, attributes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """What draws from torch's global generators of the CPU and of `device` inside the block draws
    the same every time; they are then as they were.

    Not by torch.manual_seed: where no GPU is at work it keeps, for when one will be, its caller's
    stack as text, which takes longer than the answer of a small network.
    """
    where = torch.device(device)
    gpu = where.type == "cuda"
    with torch.random.fork_rng(devices=[where] if gpu else []):
        torch.default_generator.manual_seed(seed)
        if gpu:
            number = torch.cuda.current_device() if where.index is None else where.index
            torch.cuda.default_generators[number].manual_seed(seed)
        yield


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


@contextmanager
def swapped(places: Iterable[Any], **values: Any) -> Iterator[None]:
    """Inside the block attributes of these objects have these values; then they are as they
    were."""
    before = [(place, name, getattr(place, name)) for place in places for name in values]
    try:
        for place, name, _ in before:
            setattr(place, name, values[name])
        yield
    finally:
        for place, name, old in before:
            setattr(place, name, old)
