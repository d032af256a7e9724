"""What a module in memory answers, as a part of its name: closures, hooks, globals and helper
modules change its answers and leave no trace in its weights and its source."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.data.base import Splits
from robench.digest import digest_bytes
from robench.errors import RobenchError
from robench.networks.modules.spiking import freshened
from robench.networks.torch_state import numpy_and_python_seeded, torch_seeded
from robench.plugin_code.guard import guarded
from robench.plugin_code.watched_weights import bytes_of
from robench.workspace.plugins import Located

EACH = 16
"""Images of each sort that a module is asked about; of large ones as many as have VALUES numbers,
but at least two: they are asked about together, with gradients."""
VALUES = 2**18
NEAR = 1e-3
"""By how much, of the largest answer, answers of two processes may differ."""


def questions(splits: Splits, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Tensor:
    """Images of a data set as a module gets them: test images and training images, the former with
    weak and with strong noise, and noise alone; (n, c, h, w)."""
    each = max(2, min(EACH, VALUES // math.prod(splits.input_shape)))
    test, train = (
        part.at(slice(None, each * max(1, len(part) // each), max(1, len(part) // each)))
        for part in (splits.test, splits.train)
    )
    rng = np.random.Generator(np.random.PCG64(0))
    images = [test, train, rng.random(test.shape)]
    images += [np.clip(test + rng.uniform(-s, s, test.shape), 0, 1) for s in (0.03, 0.3)]
    asked = torch.from_numpy(np.concatenate(images).astype(np.float32))
    for values, change in ((mean, torch.sub), (std, torch.div)):
        if values:
            asked = change(asked, torch.tensor(list(values)).view(1, -1, 1, 1))
    return asked


def answered(module: nn.Module, images: Tensor) -> list[Tensor | str]:
    """What a module answers without and with gradients, to one image alone, and the gradient of its
    answers with respect to the images; a text where it raises or has none.

    Args:
        module: a copy of its own; it is brought to the CPU and into evaluation mode.
    """
    module = module.to("cpu").eval()
    kinds = {weight.dtype for weight in module.parameters() if weight.is_floating_point()}
    images = images.to(kinds.pop()) if len(kinds) == 1 else images  # as networks/module.py does
    answers: list[Tensor | str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bits must not depend on the machine's cores
    try:
        for ask, asked in ((_plain, images), (_plain, images[:1]), (_graded, images)):
            with torch_seeded(0), numpy_and_python_seeded(0):
                freshened(module)
                try:
                    answers += ask(module, asked.clone())
                except Exception as error:  # whatever a stranger's module raises
                    answers.append(f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)
    return answers


def _plain(module: nn.Module, images: Tensor) -> list[Tensor | str]:
    with torch.no_grad():
        return _flat(module(images))


def _graded(module: nn.Module, images: Tensor) -> list[Tensor | str]:
    leaf = images.requires_grad_()
    total = torch.zeros(())
    answers = _flat(module(leaf), graph=True)
    for answer in answers:
        if isinstance(answer, Tensor) and answer.requires_grad:
            # Weighed, since answers like a softmax's add up to a constant.
            weights = torch.linspace(-1, 2, answer.numel()).view(answer.shape)
            total = total + (answer.float() * weights).sum()
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
    answers = [one if isinstance(one, str) else one.detach() for one in answers]
    return [*answers, "no gradient" if gradient is None else gradient]


def _flat(answer: Any, graph: bool = False) -> list[Tensor | str]:
    """The tensors in an answer, whatever it is made of."""
    if isinstance(answer, Tensor):
        return [answer if graph else answer.detach().clone()]
    if isinstance(answer, (Mapping, list, tuple)):
        parts = answer.values() if isinstance(answer, Mapping) else answer
        return [one for part in parts for one in _flat(part, graph)]
    held = vars(answer).values() if hasattr(answer, "__dict__") else ()
    return [type(answer).__name__, *(one for part in held for one in _flat(part, graph))]


def _digest(found: Sequence[Tensor | str]) -> str:
    parts: list[bytes | memoryview] = []
    for one in found:
        if isinstance(one, Tensor):
            parts.append(f"{one.dtype} {tuple(one.shape)}".encode())
            plain = torch.view_as_real(one.resolve_conj()) if one.is_complex() else one
            parts.append(bytes_of(plain))
        else:
            parts.append(one.encode())
    return digest_bytes(*parts)


@dataclass
class _Remade:
    """Makes the module; in another process than the one that it was handed over in, only if it
    answers there as it did here."""

    make: Callable[[], nn.Module]
    images: Tensor
    answers: list[Tensor | str]
    sure: set[int] = field(default_factory=set)
    """Processes in which it answers as it should."""

    def __call__(self) -> nn.Module:
        if os.getpid() not in self.sure:
            again = answered(self.make(), self.images)
            if len(again) != len(self.answers) or not all(map(_alike, self.answers, again)):
                raise RobenchError(
                    "it answers otherwise in a worker process than where it was handed over: what "
                    "it depends on was changed in memory; use jobs = 1"
                )
            self.sure.add(os.getpid())
        return self.make()


def _alike(here: Tensor | str, there: Tensor | str) -> bool:
    """Up to rounding: the other process may be on another machine."""
    if isinstance(here, str) or isinstance(there, str):
        return isinstance(here, str) and here == there
    if here.shape != there.shape or here.dtype != there.dtype:
        return False
    here, there = here.float(), there.float()
    scale = float(here.abs().amax().nan_to_num(1.0)) if here.numel() else 0.0
    return torch.allclose(here, there, rtol=NEAR, atol=NEAR * scale, equal_nan=True)


def named_by_answers(source: Located, images: Tensor) -> Located:
    """A module that was handed over, known also by what it answers to some images."""
    with guarded("the module that is handed over", seed=0):
        answers, again = (answered(source.make(), images) for _ in range(2))
    if not all(map(_alike, answers, again)):
        # What no seed repeats is no other module in another process; a verdict says so.
        return Located(f"{source.text}+{_digest(answers)}", source.make)
    made = _Remade(source.make, images, answers, {os.getpid()})
    return Located(f"{source.text}+{_digest(answers)}", made)
