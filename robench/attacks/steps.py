"""How an iterative attack moves: signed steps of fixed length, and APGD's adaptive ones.

Momentum: Dong et al. 2018 (arXiv 1710.06081). APGD: Croce & Hein 2020 (2003.01690), Algorithm 1.
State is kept per image; `keep` drops the images that have left the attack.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from robench.attacks.ball import Ball


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (like.dim() - 1))


def pick(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """b where `chosen` (0 or 1, broadcast), else a. Exactly: so lerp is defined at its ends. On a
    CPU torch.where takes many times as long."""
    return torch.lerp(a, b, chosen.to(a.dtype))


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest ascent of unit length: the sign for linf, the unit vector for l2. In place."""
    if norm == "linf":
        return gradient.sign_()
    size = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return gradient.div_(per_image(size.clamp_min(torch.finfo(size.dtype).tiny), gradient))


class Region:
    """The ball around the images still under attack, with linf's bounds computed once."""

    def __init__(self, ball: Ball, x: Tensor) -> None:
        self.ball = ball
        self.bounds = ball.bounds(x) if ball.norm == "linf" else None
        self._x = x if self.bounds is None else None

    def project_(self, x_adv: Tensor) -> Tensor:
        """The nearest point; linf works in place."""
        if self.bounds is None:
            return self.ball.project(x_adv, self.x)
        return x_adv.clamp_(*self.bounds)

    @property
    def x(self) -> Tensor:
        """The clean images, where the norm is none whose bounds tell all."""
        assert self._x is not None
        return self._x

    def keep(self, rows: Tensor) -> None:
        if self.bounds is None:
            self._x = self.x.index_select(0, rows)
        else:
            low, high = self.bounds
            self.bounds = (low.index_select(0, rows), high.index_select(0, rows))


class Steps(Protocol):
    """A rule for the next iterate."""

    def advance(self, x_adv: Tensor, gradient: Tensor, loss: Tensor, region: Region) -> Tensor:
        """The next iterate, in a tensor of its own; `gradient` may be written into."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all images but those in `rows`."""
        ...


class FixedSteps:
    """Steps of one length along the direction of the gradient, or of its running sum (MIM)."""

    def __init__(self, length: float, momentum: float) -> None:
        self.length = length
        self.momentum = momentum
        self.sum: Tensor | None = None

    def advance(self, x_adv: Tensor, gradient: Tensor, loss: Tensor, region: Region) -> Tensor:
        if self.momentum:
            # MIM Eq. 6: g <- mu g + grad / ||grad||_1, per image.
            size = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
            gradient = gradient.div_(per_image(size, gradient))
            if self.sum is not None:
                gradient.add_(self.sum, alpha=self.momentum)
            self.sum = gradient.clone()
        step = direction(gradient, region.ball.norm)
        return region.project_(torch.add(x_adv, step, alpha=self.length, out=step))

    def keep(self, rows: Tensor) -> None:
        if self.sum is not None:
            self.sum = self.sum.index_select(0, rows)


class LookingBack:
    """What steps that may go back to an image's best iterate share."""

    def __init__(self) -> None:
        self.step = 0
        self.state: dict[str, Tensor] = {}

    def note(self, x_adv: Tensor, gradient: Tensor, loss: Tensor) -> None:
        """Remember iterates that are better than all before."""
        s = self.state
        better = loss > s["best"]
        s["best"] = torch.where(better, loss, s["best"])
        s["x_best"] = pick(per_image(better, x_adv), s["x_best"], x_adv)
        s["gradient_best"] = pick(per_image(better, x_adv), s["gradient_best"], gradient)

    def back(self, which: Tensor, x_adv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Iterates and gradients, of some images the best ones. which: (n,) bool."""
        chosen = per_image(which, x_adv)
        x_best, gradient_best = self.state["x_best"], self.state["gradient_best"]
        return pick(chosen, x_adv, x_best), pick(chosen, gradient, gradient_best)

    def keep(self, rows: Tensor) -> None:
        """Drop all images but those in `rows`."""
        self.state = {name: value.index_select(0, rows) for name, value in self.state.items()}


class AdaptiveSteps(LookingBack):
    """APGD: starts with steps of 2 eps; at checkpoints, an image whose loss rose too seldom, or not
    at all, goes back to its best iterate with half the step."""

    MOMENTUM = 0.75
    RISING = 0.75  # rho: least share of steps that raise the loss

    def __init__(self, eps: float, steps: int) -> None:
        super().__init__()
        self.eps = eps
        self.checkpoints = checkpoints(steps)
        self.since = 0

    def advance(self, x_adv: Tensor, gradient: Tensor, loss: Tensor, region: Region) -> Tensor:
        if not self.state:
            self.state = {
                "length": torch.full_like(loss, 2 * self.eps),
                "best": torch.full_like(loss, -torch.inf),
                "best_before": torch.full_like(loss, -torch.inf),
                "halved": torch.ones_like(loss, dtype=torch.bool),
                "last": torch.full_like(loss, torch.inf),
                "rises": torch.zeros_like(loss),
                "x_best": x_adv,
                "gradient_best": gradient,
                "x_last": x_adv,
            }
        s = self.state
        s["rises"] = s["rises"] + (loss > s["last"])
        s["last"] = loss
        self.note(x_adv, gradient, loss)
        if self.step in self.checkpoints:
            x_adv, gradient = self._check(x_adv, gradient)
        length = per_image(s["length"], x_adv)
        aimed = region.project_(x_adv + length * direction(gradient, region.ball.norm))
        if self.step:
            pull = self.MOMENTUM * (aimed - x_adv) + (1 - self.MOMENTUM) * (x_adv - s["x_last"])
            aimed = region.project_(x_adv + pull)
        s["x_last"] = x_adv
        self.step += 1
        return aimed

    def _check(self, x_adv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        s = self.state
        seldom = s["rises"] < self.RISING * (self.step - self.since)
        stuck = ~s["halved"] & (s["best_before"] >= s["best"])
        halve = seldom | stuck
        s["length"] = torch.where(halve, s["length"] / 2, s["length"])
        s["halved"], s["best_before"] = halve, s["best"]
        s["rises"] = torch.zeros_like(s["rises"])
        self.since = self.step
        return self.back(halve, x_adv, gradient)


class StableSteps:
    """SA-PGD (arXiv 2512.22522): each pixel's step is its running mean gradient over the root of
    its running mean square, cut at +-lr; at APGD's checkpoints lr, at first eps, halves. mu is 0.5
    unless the card says otherwise.

    m <- mu m + g / mean|g|,  q <- 0.8 q + g^2 / mean(g^2),  step clamp(lr m / sqrt(q), +-lr)

    Pixels whose gradient changes its sign from step to step so come to rest, where steps by signs
    would go on at full length. In l2 the step has the length lr.
    """

    MOMENTUM = 0.5
    SQUARES = 0.8

    def __init__(self, eps: float, steps: int, momentum: float = 0.0) -> None:
        self.lr = eps
        self.momentum = momentum or self.MOMENTUM
        self.checkpoints = checkpoints(steps)
        self.step = 0
        self.state: tuple[Tensor, Tensor] | None = None

    def advance(self, x_adv: Tensor, gradient: Tensor, loss: Tensor, region: Region) -> Tensor:
        if self.step in self.checkpoints:
            self.lr /= 2
        self.step += 1
        tiny = torch.finfo(gradient.dtype).tiny
        size = gradient.abs().flatten(1).mean(1)
        first = gradient / per_image(size.clamp_min(tiny), gradient)
        square = gradient.square_()
        square = square / per_image(square.flatten(1).mean(1).clamp_min(tiny), square)
        if self.state is not None:
            first.add_(self.state[0], alpha=self.momentum)
            square.add_(self.state[1], alpha=self.SQUARES)
        self.state = (first, square)
        step = first / square.sqrt().clamp_min_(1e-12)
        if region.ball.norm == "linf":
            step = step.mul_(self.lr).clamp_(-self.lr, self.lr)
        else:
            step = direction(step, region.ball.norm).mul_(self.lr)
        return region.project_(step.add_(x_adv))

    def keep(self, rows: Tensor) -> None:
        if self.state is not None:
            self.state = (self.state[0].index_select(0, rows), self.state[1].index_select(0, rows))


def checkpoints(steps: int) -> set[int]:
    """After which steps APGD looks back (section 3): p_1 = 0.22, periods 0.03 shorter each time."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # 57.000000000000007 steps are 57.
    steps_at = {math.ceil(share * steps - 1e-9) for share in shares[1:]}
    return {step for step in steps_at if 0 < step < steps}
