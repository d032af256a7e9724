"""The leaky integrate-and-fire neuron (NIT Eq. 7) over time, and its derivative in one pass.

u[t+1] = k u[t] (1 - s[t]) + c[t+1],   s = 1{u > Vth},   c = W x + sigma eps

Backpropagation through time needs, besides the surrogate derivative d[t] of the spike, only

    dL/du[t] = d[t] dL/ds[t] + (k (1 - s[t]) - k u[t] d[t]) dL/du[t+1]

whose factors are computed for all steps at once. The gradient flows through the reset, unless
Step.through_reset says no: then the last factor is k (1 - s[t]).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.noise import Series
from robench.networks.surrogate import Step, unwon


def integrate(
    currents: Series, steps: int, decay: float, spike: nn.Module
) -> tuple[Series, Tensor]:
    """Spikes at every step, and the potential at the last one. State starts at zero.

    Args:
        currents: (rows, ...) for each step, or one for all of them.
        decay: k, in [0, 1].
        spike: the step 1{u > Vth} with its surrogate derivative.
    """
    if isinstance(currents, Tensor) and currents.requires_grad and _plain(spike):
        spikes, potential = _Integrate.apply(currents, steps, decay, spike)  # type: ignore[no-untyped-call]
        return spikes, potential
    constant = len(currents) == 1
    # Without a graph there is no need to go through the module, which takes as long as the step.
    fire: Callable[[Tensor], Tensor] = spike
    if _plain(spike) and not torch.is_grad_enabled():
        fire = spike.fire
    u = currents[0]
    series = [fire(u)]
    for step in range(1, steps):
        spiked = series[-1]
        if _plain(spike) and not spike.through_reset:
            spiked = spiked.detach()
        left = torch.addcmul(u, u, spiked, value=-1)  # u (1 - s)
        u = torch.add(currents[0 if constant else step], left, alpha=decay)
        series.append(fire(u))
    return series, u


def _plain(spike: nn.Module) -> TypeGuard[Step]:
    """Whether nothing but its surrogate says what the derivative of a spike is."""
    return type(spike) is Step and not spike._forward_hooks


class _Integrate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, steps: int, decay: float, spike: Step
    ) -> tuple[Tensor, Tensor]:
        u = currents.new_empty(steps, *currents.shape[1:])
        s = torch.empty_like(u)
        every = currents.expand(steps, *currents.shape[1:])
        # Taken apart once: picking a step out of a tensor takes as long as a step's arithmetic.
        potentials, fired = u.unbind(), s.unbind()
        potentials[0].copy_(every[0])
        spike.fire(potentials[0], fired[0])
        for step, current in enumerate(every.unbind()[1:], start=1):
            before = potentials[step - 1]
            left = torch.addcmul(before, before, fired[step - 1], value=-1)  # u (1 - s)
            torch.add(current, left, alpha=decay, out=potentials[step])
            spike.fire(potentials[step], fired[step])
        ctx.save_for_backward(u, s)
        ctx.decay, ctx.spike, ctx.surrogate = decay, spike, spike.surrogate.here()
        ctx.through_reset = spike.through_reset
        ctx.constant = len(currents) == 1
        return s, u[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        u, s = ctx.saved_tensors
        if ctx.surrogate.of_rates:
            grad = _by_rates(ctx, u, s, *grads)
        elif ctx.surrogate.one_sided or not ctx.through_reset:
            grad = _step_by_step(ctx, u, s, *grads)
        else:
            grad = _at_once(ctx, u, s, *grads)
        return grad.sum(0, keepdim=True) if ctx.constant else grad, None, None, None


def _at_once(ctx: Any, u: Tensor, s: Tensor, spikes: Tensor, potential: Tensor) -> Tensor:
    """dL/du of every step, whose factors are computed beforehand.

    Args:
        spikes, potential: dL/ds of every step, and what dL/du of the last one has besides.
    """
    derivative = ctx.surrogate.derivative(u, ctx.spike.at, 1)
    # k - k (s + u d), for all steps but the last, which nothing follows.
    passed = torch.addcmul(s[:-1], u[:-1], derivative[:-1])
    passed = torch.add(u.new_full((), ctx.decay), passed, alpha=-ctx.decay, out=passed)
    grad = torch.mul(spikes, derivative, out=derivative)
    *earlier, later = grad.unbind()
    later += potential
    for step, factor in zip(reversed(earlier), reversed(passed.unbind()), strict=True):
        later = step.addcmul_(factor, later)
    return grad


def _step_by_step(ctx: Any, u: Tensor, s: Tensor, spikes: Tensor, potential: Tensor) -> Tensor:
    """The same where the factors hang on the gradient itself, or the reset has none."""
    derivative: Tensor = ctx.surrogate.derivative(u, ctx.spike.at, 1)
    later: Tensor | None = None
    for step in reversed(range(len(u))):
        pull, held = spikes[step], potential
        if later is not None:
            held = torch.addcmul(later, later, s[step], value=-1).mul_(ctx.decay)
            if ctx.through_reset:
                pull = torch.addcmul(pull, u[step], later, value=-ctx.decay)
        now = derivative[step].mul_(pull)
        if ctx.surrogate.one_sided:
            now.mul_(unwon(pull, s[step] > 0))
        later = now.add_(held)
    return derivative


def _by_rates(ctx: Any, u: Tensor, s: Tensor, spikes: Tensor, potential: Tensor) -> Tensor:
    """dL/dc of every step where rates are functions of mean currents (RGA, adaptive.py).

    Args:
        spikes, potential: dL/ds of every step, and dL/du of the last one, which only its own
            current gets.
    """
    if ctx.spike.at <= 0:
        raise RobenchError(
            'attack: surrogate = "rate" measures currents by the threshold, which is '
            f"{ctx.spike.at:g} here: choose another"
        )
    kept = torch.addcmul(u[:-1], u[:-1], s[:-1], value=-1).sum(0)  # u (1 - s)
    current = torch.sub(u.sum(0), kept, alpha=ctx.decay).div_(len(u) * ctx.spike.at)
    grad: Tensor = spikes * ctx.surrogate.slope(current, ctx.decay).div_(ctx.spike.at)
    grad[-1] += potential
    return grad
