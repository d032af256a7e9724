"""Surrogate derivatives: what stands in for the derivative of a step 1{u > 0}.

The forward value of a step never depends on them. STBP (Wu et al. 2018, Eq. 24-27) names rectangle,
polynomial, sigmoid and Gaussian; fast-sigmoid is SuperSpike's (Zenke & Ganguli 2018), arctan is
PLIF's (Fang et al. 2021). Written `name` or `name:parameter` in cards, for example `rectangle:0.5`.
Those whose widths an attack adapts as it goes are in adaptive.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from robench.errors import nearest
from robench.networks.adaptive import AdaptiveSurrogate, Place, parameter_of
from robench.networks.torch_state import swapped

Derivative = Callable[[Tensor, float], Tensor]
"""(u, parameter) -> the derivative of 1{u > 0}; u may be written into."""


def _rectangle(u: Tensor, half_width: float) -> Tensor:
    size = u.abs_()
    return torch.lt(size, half_width, out=size).div_(2 * half_width)  # without a bool in between


def _polynomial(u: Tensor, width: float) -> Tensor:
    # STBP Eq. 25: (sqrt(a)/2 - a/4 |u|), positive part; a = width.
    return u.abs_().mul_(-width / 4).add_(math.sqrt(width) / 2).clamp_min_(0)


def _sigmoid(u: Tensor, temperature: float) -> Tensor:
    s = u.div_(temperature).sigmoid_()
    return torch.addcmul(s, s, s, value=-1).div_(temperature)


def _gaussian(u: Tensor, deviation: float) -> Tensor:
    height = 1 / (deviation * math.sqrt(2 * math.pi))
    return u.div_(deviation).square_().mul_(-0.5).exp_().mul_(height)


def _fast_sigmoid(u: Tensor, slope: float) -> Tensor:
    # SuperSpike: 1 / (1 + |u| / slope)^2.
    return u.abs_().div_(slope).add_(1).pow_(-2)


def _arctan(u: Tensor, alpha: float) -> Tensor:
    return u.mul_(math.pi / 2 * alpha).square_().add_(1).reciprocal_().mul_(alpha / 2)


NAMED: dict[str, tuple[Derivative, float]] = {
    "rectangle": (_rectangle, 0.5),
    "polynomial": (_polynomial, 1.0),
    "sigmoid": (_sigmoid, 0.25),
    "gaussian": (_gaussian, 0.4),
    "fast-sigmoid": (_fast_sigmoid, 0.25),
    "arctan": (_arctan, 2.0),
}

SWEEP: tuple[str, ...] = (
    "rectangle:0.5",
    "rectangle:2",
    "fast-sigmoid:0.25",
    "arctan:2",
    "gaussian:0.4",
)
"""What `surrogate = "sweep"` runs (METHODS section 4: narrow, wide, and three with tails)."""


@dataclass(frozen=True)
class Surrogate:
    """A named derivative with its parameter (half-width, slope, deviation, ...)."""

    name: str
    parameter: float

    one_sided: ClassVar[bool] = False
    of_rates: ClassVar[bool] = False

    def derivative(self, u: Tensor, at: float = 0.0, axis: int = 0) -> Tensor:
        """Of 1{u > at}, at every u. axis: where u has its rows; nothing hangs on it here."""
        return NAMED[self.name][0](u - at, self.parameter)

    def begin(self) -> None:
        """A pass through the network begins."""

    def here(self) -> Surrogate:
        """The derivative for the next step that the network takes: the same everywhere."""
        return self


def parse_surrogate(text: str) -> Surrogate:
    """`rectangle` or `rectangle:0.5`. Raises ValueError saying which names there are."""
    name = text.partition(":")[0]
    if name not in NAMED:
        raise ValueError(f"unknown surrogate derivative {name!r}; {nearest(name, NAMED)}")
    return Surrogate(name, parameter_of(text, NAMED[name][1]))


def _known(text: str | None) -> str | None:
    if text is not None:
        parse_surrogate(text)
    return text


SurrogateName = Annotated[str | None, AfterValidator(_known)]
"""A field of a card: a derivative as `parse_surrogate` reads it, or none."""


def _step(u: Tensor, at: float, out: Tensor | None = None) -> Tensor:
    # Straight to floats, in one pass.
    return torch.gt(u, at, out=torch.empty_like(u) if out is None else out)


class _StepFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, at: float, surrogate: Surrogate | Place) -> Tensor:
        ctx.save_for_backward(u)
        ctx.at, ctx.surrogate = at, surrogate
        return _step(u, at)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        passed = ctx.surrogate.derivative(u, ctx.at).mul_(grad)
        if ctx.surrogate.one_sided:
            passed.mul_(unwon(grad, u > ctx.at))
        return passed, None, None


def unwon(grad: Tensor, jumped: Tensor) -> Tensor:
    """Whether a step is not where a loss that rises wants it, bool. grad: of the loss, by the step;
    jumped: whether it is 1."""
    return (grad > 0) != jumped


class Step(nn.Module):
    """1{u > at}, whose derivative is a surrogate that trainer and attacker each may choose."""

    def __init__(self, surrogate: str = "rectangle:0.5", at: float = 0.0) -> None:
        super().__init__()
        self.surrogate: Surrogate | AdaptiveSurrogate = parse_surrogate(surrogate)
        self.at = at
        self.through_reset = True
        """Whether a gradient flows on through the reset that follows a spike (lif.py)."""

    def fire(self, u: Tensor, out: Tensor | None = None) -> Tensor:
        """1{u > at}, without a graph."""
        return _step(u, self.at, out)

    def forward(self, u: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and u.requires_grad):
            return _step(u, self.at)
        stepped: Tensor = _StepFunction.apply(u, self.at, self.surrogate.here())  # type: ignore[no-untyped-call]
        return stepped


def surrogate(
    network: nn.Module, chosen: str | AdaptiveSurrogate | None, through_reset: bool = True
) -> AbstractContextManager[None]:
    """Let all steps of `network` use a surrogate inside the block, for one pass of those that
    adapt; None: leave them.

    Args:
        through_reset: whether gradients flow through the reset of a spiking neuron.
    """
    steps = [module for module in network.modules() if isinstance(module, Step)]
    values: dict[str, Any] = {} if through_reset else {"through_reset": False}
    if chosen is not None:
        used = parse_surrogate(chosen) if isinstance(chosen, str) else chosen
        used.begin()
        values["surrogate"] = used
    return swapped(steps, **values)
