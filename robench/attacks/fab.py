"""FAB: the smallest perturbation that changes the answer, by steps to linearised boundaries (Croce
& Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", arXiv
1907.02044, Algorithm 1).

Around the current point the network is linear: the nearest point of its boundary there, and the one
nearest to the clean image, are mixed with a weight that keeps the way back short; a point that is
adversarial is pulled towards the clean image. No step size, no radius: it stops where images lie
next to the boundary. One forward and one backward pass for each step and class that is looked at,
and one forward pass to judge it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, aims, judge
from robench.attacks.losses import margin
from robench.attacks.planes import onto_plane
from robench.attacks.steps import per_image
from robench.attacks.target import WhiteBoxTarget
from robench.networks.surrogate import SurrogateName

MOST_TO_CLEAN = 0.1
"""alpha_max: largest weight of the point that is nearest to the clean image."""
BEYOND = 1.05
"""eta: how far beyond the boundary a step goes."""
BACK = 0.9
"""beta: what is left of a perturbation that is adversarial before the next step."""
BISECTIONS = 3
"""Of the way from the clean image to the smallest adversarial one, at the end."""
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}


class FAB(Attack):
    """Smallest perturbation in linf, l2 or l1; a ball is where those count that lie in it."""

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    """Runs; from the second on from random points within half the smallest perturbation so far, or
    half the radius, whichever is less."""
    targets: int = Field(default=9, ge=0)
    """Runs towards each of so many likeliest wrong classes (FAB-T: of all, where there are fewer);
    0: each step goes to the nearest boundary of all classes, which costs a gradient of each."""
    smallest: bool = False
    """Whether an image stays when it is broken inside the ball, to be broken by less."""
    eot: int = Field(default=1, ge=1)
    """Draws of a noisy network for each gradient and each judgement; an image is broken where all
    of them are wrong."""
    surrogate: SurrogateName = None
    """Derivative of steps and spikes; None: the network's own."""
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "none")
    paper: ClassVar[str] = "Croce & Hein 2020, arXiv 1907.02044"

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        search = _Search(self, target, x, target.sought(y))
        for restart in range(self.restarts):
            for aim in aims(target, x, y, self.targets):
                search.run(aim, restart, rng)
        search.bisect()
        return target.project(search.best, x)


class _Search:
    """The smallest adversarial points found so far, of all images of a batch."""

    def __init__(self, attack: FAB, target: WhiteBoxTarget, x: Tensor, y: Tensor) -> None:
        self.attack, self.target, self.x, self.y = attack, target, x, y
        self.norm = target.norm if target.norm != "none" else "l2"
        self.far = target.ball.distance
        self.best = x.clone()
        self.size = torch.full((len(x),), torch.inf, device=x.device)
        everything = torch.arange(len(x), device=x.device)
        self._keep(x, everything, self._fooled(x, everything))

    def _fooled(self, x: Tensor, rows: Tensor) -> Tensor:
        """Which points reach the goal, (n,) bool."""
        draws = self.attack.eot if self.target.stochastic else 1
        share, gap = judge(self.target, x, self.y[rows], draws, rows)
        return (share == 1) & (gap > ROUNDING)

    def _keep(self, x: Tensor, rows: Tensor, fooled: Tensor) -> None:
        far = self.far(x, self.x[rows])
        less = torch.nonzero(fooled & (far < self.size[rows]))[:, 0]
        self.best[rows[less]], self.size[rows[less]] = x[less], far[less]

    def _wanted(self) -> Tensor:
        """Rows that are still looked at."""
        done = self.size == 0
        if not self.attack.smallest and math.isfinite(self.target.eps):
            done = self.size <= self.target.eps
        return torch.nonzero(~done)[:, 0]

    def run(self, aim: Tensor | None, restart: int, rng: torch.Generator) -> None:
        """One run from the clean images, or from random points near them."""
        rows = self._wanted()
        at = self.x[rows].clone()
        if restart:
            noise = torch.empty_like(self.x).uniform_(-1, 1, generator=rng)[rows]
            reach = self.size[rows].clamp_max(self.target.eps) / 2
            reach = torch.where(torch.isfinite(reach), reach, 0)
            length = self.far(noise, torch.zeros_like(noise)).clamp_min(1e-12)
            unit = noise / per_image(length, noise)
            at = (at + per_image(reach, at) * unit).clamp(0, 1)
        for _ in range(self.attack.steps):
            if not len(rows):
                return
            at = self._step(at, rows, None if aim is None else aim[rows])
            fooled = self._fooled(at, rows)
            self._keep(at, rows, fooled)
            back = self.x[rows] + BACK * (at - self.x[rows])
            at = torch.where(per_image(fooled, at), back, at)
            stay = torch.isin(rows, self._wanted())
            rows, at = rows[stay], at[stay]

    def _step(self, at: Tensor, rows: Tensor, aim: Tensor | None) -> Tensor:
        """Algorithm 1, lines 6 to 9: towards the nearest boundary, and back to the clean image."""
        w, value = self._boundary(at, rows, aim)
        flat, clean = at.flatten(1), self.x[rows].flatten(1)
        b = value - (w * flat).sum(1)
        here, there = (onto_plane(start, w, b, self.norm) for start in (flat, clean))
        a, c = self.far(here, flat), self.far(there, clean)
        alpha = (a / (a + c).clamp_min(1e-12)).clamp_max(MOST_TO_CLEAN)[:, None]
        here, there = flat + BEYOND * (here - flat), clean + BEYOND * (there - clean)
        mixed = (1 - alpha) * here + alpha * there
        free = self.target.ball.free(at).flatten(1)
        return torch.where(free, mixed, clean).clamp(0, 1).view_as(at)

    def _boundary(self, at: Tensor, rows: Tensor, aim: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normals of the linearised boundaries, (n, d), and what the network says beyond them,
        (n,): negative where it answers right."""
        ask = partial(
            self.target.gradient, at, self.y[rows], margin, draws=self.attack.eot,
            surrogate=self.attack.surrogate, index=rows,
        )  # fmt: skip
        if not self.target.stochastic:
            ask.keywords["draws"] = 1
        if aim is not None or self.target.aim is not None:
            answer = ask(aim=aim)
            return answer.gradient.flatten(1), answer.loss
        w, value = torch.zeros_like(at.flatten(1)), torch.zeros_like(self.size[rows])
        least = torch.full_like(value, torch.inf)
        for turn in range(1, self.target.classes):
            answer = ask(aim=(self.y[rows] + turn) % self.target.classes)
            normal = answer.gradient.flatten(1)
            size = torch.linalg.vector_norm(normal, DUAL[self.norm], dim=1)
            far = answer.loss.abs() / size.clamp_min(1e-12)
            nearer = far < least
            w = torch.where(nearer[:, None], normal, w)
            value = torch.where(nearer, answer.loss, value)
            least = torch.where(nearer, far, least)
        return w, value

    def bisect(self) -> None:
        """Move what was found towards the clean image while it stays adversarial."""
        rows = torch.nonzero(torch.isfinite(self.size) & (self.size > 0))[:, 0]
        if not self.attack.smallest and math.isfinite(self.target.eps):
            rows = rows[self.size[rows] > self.target.eps]
        low, high = torch.zeros(len(rows), device=rows.device), torch.ones_like(self.size[rows])
        end = self.best[rows].clone()
        for _ in range(BISECTIONS):
            if not len(rows):
                return
            middle = (low + high) / 2
            tried = self.x[rows] + per_image(middle, end) * (end - self.x[rows])
            fooled = self._fooled(tried, rows)
            self._keep(tried, rows, fooled)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
