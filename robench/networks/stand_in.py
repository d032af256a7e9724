"""Stand-ins for what has no useful derivative: backward pass differentiable approximation (BPDA,
Athalye et al. 2018, arXiv 1802.00420, section 4.1).

A module names its own: `stand_in`, a function of the same inputs whose value has the shape of its
answer, such as `stand_in = staticmethod(lambda x: x)` for a quantiser. Answers never depend on it;
only the gradients of white-box attacks go through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robench.errors import RobenchError


class _Through(torch.autograd.Function):
    """The first argument forwards, the second one backwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, smooth: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


def stand_ins(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that name a stand-in."""
    return [part for part in network.modules() if callable(getattr(part, "stand_in", None))]


@contextmanager
def standing_in(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block gradients go through the stand-ins of `parts`."""
    with ExitStack() as stack:
        for part in parts:
            given: list[tuple[Tensor, ...]] = []
            stack.enter_context(part.register_forward_pre_hook(_detaching(given)))
            stack.enter_context(part.register_forward_hook(_replacing(given)))
        yield


def _detaching(given: list[tuple[Tensor, ...]]) -> Any:
    def hook(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not (torch.is_grad_enabled() and any(_has_graph(one) for one in inputs)):
            return None
        given.append(inputs)
        return tuple(one.detach() if _has_graph(one) else one for one in inputs)

    return hook


def _replacing(given: list[tuple[Tensor, ...]]) -> Any:
    def hook(part: nn.Module, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor | None:
        if not given:
            return None
        named: Any = part.stand_in
        smooth = named(*given.pop())
        if not isinstance(smooth, Tensor) or smooth.shape != answer.shape:
            shape = tuple(getattr(smooth, "shape", ())) or type(smooth).__name__
            raise RobenchError(
                f"{type(part).__name__}: its stand_in answers {shape}, it itself "
                f"{tuple(answer.shape)}: they must have one shape"
            )
        through: Tensor = _Through.apply(answer.detach(), smooth)  # type: ignore[no-untyped-call]
        return through

    return hook


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
