"""Box-constrained L-BFGS attack (Szegedy et al. 2014, arXiv 1312.6199, section 4.1).

    minimise  c ||r||^2 + loss(x + r)   subject to   x + r in [0, 1]

for the largest c whose minimiser is still misclassified: the smallest perturbation that a search
over c finds. All images are minimised side by side, by projected L-BFGS (two-loop recursion on the
pixels that are not held by the box, Nocedal & Wright, Algorithm 7.4).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robench.attacks.base import Attack
from robench.attacks.losses import cross_entropy, margin
from robench.attacks.target import WhiteBoxTarget
from robench.networks.surrogate import SurrogateName

SUFFICIENT = 1e-4  # Armijo's constant
DECREASE = 1e-5  # least relative decrease of an iteration; below, an image has converged
HALVINGS = 8  # of a step that does not descend


class LBFGS(Attack):
    """Smallest perturbation in l2 by box-constrained L-BFGS."""

    goal: Literal["untargeted", "runner-up", "least-likely", "random"] = "untargeted"
    """The class that x + r is to get: any wrong one, or the likeliest, least likely or a random
    wrong one."""
    iterations: int = Field(default=30, ge=1)
    """L-BFGS iterations for each c."""
    search_steps: int = Field(default=9, ge=1)
    """Values of c tried: tenfold up or down until bracketed, then the geometric middle."""
    initial_c: float = Field(default=0.1, gt=0)
    memory: int = Field(default=8, ge=1)
    """Pairs of steps and gradient changes that L-BFGS remembers."""
    confidence: float = Field(default=0.0, ge=0)
    """Margin by which an image must be misclassified; more makes larger perturbations that transfer
    better."""
    surrogate: SurrogateName = None
    """Derivative of steps and spikes; None: the network's own."""
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("l2", "linf", "none")
    paper: ClassVar[str] = "Szegedy et al. 2014, arXiv 1312.6199"

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        problem = _Problem(self, target, x, target.sought(y), self._aim(target, x, y, rng))
        c = torch.full((len(x),), self.initial_c, device=x.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)  # success, failure
        for _ in range(self.search_steps):
            success = problem.minimise(c)
            low = torch.where(success, c, low)
            high = torch.where(success, high, c)
            above = torch.where(high.isinf(), c * 10, (low * high).sqrt())
            c = torch.where(low == 0, c / 10, above)
        return target.project(problem.smallest, x)

    def _aim(
        self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> Tensor | None:
        """The class wanted for each image, (n,); None: any wrong one."""
        if target.aim is not None:  # the threat says which, and gaps are of that
            return None
        match self.goal:
            case "untargeted":
                return None
            case "runner-up":
                return target.logits(x).scatter(1, y[:, None], -torch.inf).argmax(1)
            case "least-likely":
                return target.logits(x).scatter(1, y[:, None], torch.inf).argmin(1)
            case _:
                shift = torch.randint(1, target.classes, y.shape, generator=rng, device=y.device)
                return (y + shift) % target.classes


def unlikely(logits: Tensor, y: Tensor, aim: Tensor | None) -> Tensor:
    """Minus the cross-entropy of the class wanted, or of "any class but y", to be maximised."""
    if aim is not None:
        return -F.cross_entropy(logits, aim, reduction="none")
    wrong = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return wrong - logits.logsumexp(1)


class _Point(NamedTuple):
    """Flat images with the objective, its gradient, and whether they reach the goal; rows."""

    z: Tensor
    value: Tensor
    gradient: Tensor
    reached: Tensor


class _Problem:
    """The objective for a batch, and the smallest misclassified images seen so far."""

    def __init__(
        self, attack: LBFGS, target: WhiteBoxTarget, x: Tensor, y: Tensor, aim: Tensor | None
    ) -> None:
        self.attack, self.target = attack, target
        self.x, self.y, self.aim = x, y, aim
        self.smallest = x.clone()
        self.size = torch.full((len(x),), torch.inf, device=x.device)

    def evaluate(self, z: Tensor, c: Tensor, rows: Tensor) -> _Point:
        """The objective at flat images z of `rows`. The smallest perturbations that reach the goal
        anywhere are kept."""
        x, y = self.x[rows], self.y[rows]
        aim = None if self.aim is None else self.aim[rows]
        images = z.view_as(x)
        wanted = partial(unlikely, aim=aim) if self.target.aim is None else cross_entropy
        own = self.attack.surrogate
        answer = self.target.gradient(images, y, wanted, surrogate=own, index=rows)
        r = z - x.flatten(1)
        size = r.square().sum(1)
        gap = answer.margin if aim is None else -margin(answer.logits, aim)
        reached = gap > self.attack.confidence
        better = reached & (size < self.size[rows])
        self.size[rows[better]] = size[better]
        self.smallest[rows[better]] = images[better]
        gradient = 2 * c[:, None] * r - answer.gradient.flatten(1)
        return _Point(z, c * size - answer.loss, gradient, reached)

    def minimise(self, c: Tensor) -> Tensor:
        """Minimise for one c per image; whether the minimiser reaches the goal, (n,)."""
        rows = torch.arange(len(c), device=c.device)
        at = self.evaluate(self.x.flatten(1), c, rows)
        success = at.reached.clone()
        memory = self.attack.memory
        pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=memory)
        moving = torch.ones_like(success)
        for _ in range(self.attack.iterations):
            if not bool(moving.all()):  # the rest has converged
                rows, c = rows[moving], c[moving]
                at = _Point(*(part[moving] for part in at))
                pairs = deque([(s[moving], d[moving], k[moving]) for s, d, k in pairs], memory)
                if not len(rows):
                    break
            free = ~(((at.z <= 0) & (at.gradient > 0)) | ((at.z >= 1) & (at.gradient < 0)))
            steepest = at.gradient * free
            way = -two_loop(steepest, pairs) * free
            uphill = (way * at.gradient).sum(1) >= 0
            way = torch.where(uphill[:, None], -steepest, way)
            to = self._search(at, way, c, rows, first=not pairs)
            s, d = to.z - at.z, to.gradient - at.gradient
            curvature = (s * d).sum(1)
            # A pair without positive curvature says nothing: it counts as zero.
            good = curvature > 1e-10 * s.square().sum(1).clamp_min(1e-12)
            pairs.append((s, d, torch.where(good, 1 / curvature, 0)))
            moving = at.value - to.value > DECREASE * at.value.abs().clamp_min(1e-3)
            at = to
            success[rows] = at.reached
        return success

    def _search(self, at: _Point, way: Tensor, c: Tensor, rows: Tensor, first: bool) -> _Point:
        """Backtracking along the projected path; an image that finds no descent stays."""
        length = torch.ones_like(c)
        if first:  # nothing is known of the curvature yet: move by a pixel's worth in all
            length = 1 / torch.linalg.vector_norm(way, dim=1).clamp_min(1e-12)
        best = _Point(*(part.clone() for part in at))
        trying = torch.arange(len(rows), device=rows.device)
        for _ in range(HALVINGS):
            z = (at.z[trying] + length[trying, None] * way[trying]).clamp_(0, 1)
            tried = self.evaluate(z, c[trying], rows[trying])
            descent = (at.gradient[trying] * (z - at.z[trying])).sum(1)
            enough = tried.value <= at.value[trying] + SUFFICIENT * descent
            done = trying[enough]
            for old, new in zip(best, tried, strict=True):
                old[done] = new[enough]
            trying = trying[~enough]
            if not len(trying):
                break
            length[trying] /= 2
        return best


def two_loop(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian of L-BFGS times the gradient, row by row.

    Args:
        pairs: steps, gradient changes and 1 / (step . change), oldest first; 0 drops a pair.
    """
    q = gradient.clone()
    alphas = []
    for s, d, k in reversed(pairs):
        alpha = k * (s * q).sum(1)
        q -= alpha[:, None] * d
        alphas.append(alpha)
    scale = torch.ones(len(q), device=q.device)
    for s, d, k in pairs:  # the latest usable pair sets the scale
        scale = torch.where(k > 0, (s * d).sum(1) / d.square().sum(1).clamp_min(1e-20), scale)
    q *= scale[:, None]
    for (s, d, k), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - k * (d * q).sum(1))[:, None] * s
    return q
