"""What a white-box attack falls back to where there is no gradient to follow.

Three ways in turn, each from the best image so far (contest.py):

- random search by scores (Square; Andriushchenko et al. 2020, arXiv 1912.00049; linf only);
- the true answers forwards, a network fitted to them backwards: a learned backward pass in the
  sense of BPDA (Athalye et al. 2018, arXiv 1802.00420, section 4.1), fitted anew to the iterates,
  which is also a transfer attack (Papernot et al. 2017, arXiv 1602.02697);
- differences along random sign directions (SPSA; Uesato et al. 2018, arXiv 1802.05666).

Of a network that gives only labels they see one-hot scores: transfer still works then.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, Best, judge, rank
from robench.attacks.losses import margin
from robench.attacks.square import Square
from robench.attacks.steps import direction, per_image
from robench.attacks.target import ScoreTarget
from robench.networks.torch_state import torch_seeded


class WithoutGradients(Attack):
    """Random search, a fitted network's gradients, and differences."""

    queries: int = Field(default=200, ge=1)
    """Of the random search, for each image."""
    steps: int = Field(default=20, ge=1)
    """Along the fitted network's gradients, and half as many along differences."""
    copies: int = Field(default=8, ge=1)
    """Points of each image's ball that the network is fitted to at first."""
    hidden: int = Field(default=128, ge=1)
    """Units of the fitted network's one hidden layer."""
    fits: int = Field(default=60, ge=1)
    """Updates each time that it is fitted: at first, and after every ten steps."""
    directions: int = Field(default=8, ge=1)
    """Pairs of questions for each difference."""
    paper: ClassVar[str] = "Athalye et al. 2018, arXiv 1802.00420"
    needs: ClassVar[str] = "score"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")

    def perturb(self, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        self.finite_eps(target)
        best = Best(x)
        _enter(best, target, x, y, best.standing())
        if target.norm == "linf" and min(x.shape[2:]) > 1:
            Square(queries=self.queries).improve(best, target, x, y, rng)
        _Fitted(self, target, x, rng).improve(best, y)
        self._by_differences(best, target, x, y, rng)
        return best.images

    def _by_differences(
        self, best: Best, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> None:
        for step in range(self.steps // 2):
            rows = best.standing()
            if not len(rows) or not target.affords(2 * self.directions + 1):
                return
            here, clean, labels = best.images[rows], x[rows], y[rows]
            slope = torch.zeros_like(here)
            # Wide at first, so that steps of a quantised network show.
            h = target.eps * (0.5 if step % 2 == 0 else 0.1)
            for _ in range(self.directions):
                coins = torch.rand(here.shape, generator=rng, device=x.device) < 0.5
                d = coins.float().mul(2).sub(1)
                if target.norm != "linf":
                    d = direction(d, "l2")
                up = margin(target.logits((here + h * d).clamp(0, 1), rows), labels)
                down = margin(target.logits((here - h * d).clamp(0, 1), rows), labels)
                slope += per_image(up - down, here) * d
            _step(best, target, here, clean, labels, slope, rows, 0.3 * target.eps)


class _Fitted:
    """A network that was fitted to the answers of another."""

    def __init__(
        self, attack: WithoutGradients, target: ScoreTarget, x: Tensor, rng: torch.Generator
    ) -> None:
        self.attack, self.target, self.x, self.rng = attack, target, x, rng
        with torch_seeded(0):
            self.network = nn.Sequential(
                nn.Flatten(),
                nn.Linear(x[0].numel(), attack.hidden),
                nn.ReLU(),
                nn.Linear(attack.hidden, target.classes),
            ).to(x.device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=3e-3)
        self.shown: list[Tensor] = []
        self.answers: list[Tensor] = []

    def improve(self, best: Best, y: Tensor) -> None:
        attack, target = self.attack, self.target
        rows = best.standing()
        for _ in range(attack.copies):
            if not len(rows) or not target.affords(1):
                return
            x = self.x[rows]
            away = torch.empty_like(x).uniform_(-1, 1, generator=self.rng)
            near = target.project(x + 1.5 * target.eps * away, x)
            self._note(near, target.logits(near, rows))
        here = best.images
        for step in range(attack.steps):
            if step % 10 == 0:
                self._fit()
            rows = best.standing()
            if not len(rows) or not target.affords(2):
                return
            points = here[rows]
            logits = target.logits(points, rows)
            self._note(points, logits)
            slope = self._slope(points, logits, y[rows])
            moved = _step(
                best, target, points, self.x[rows], y[rows], slope, rows, 0.15 * target.eps
            )
            here = here.clone()
            here[rows] = moved

    def _note(self, x: Tensor, logits: Tensor) -> None:
        # Standardised, since only their order and shape is to be learned.
        spread = logits.std(1, keepdim=True).clamp_min(1e-12)
        self.shown.append(x)
        self.answers.append((logits - logits.mean(1, keepdim=True)) / spread)

    def _fit(self) -> None:
        x, answers = torch.cat(self.shown), torch.cat(self.answers)
        with torch.enable_grad():
            for weight in self.network.parameters():
                weight.requires_grad_(True)
            for _ in range(self.attack.fits):
                some = torch.randint(len(x), (128,), generator=self.rng, device=x.device)
                loss = F.mse_loss(self.network(x[some]), answers[some])
                self.optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()

    def _slope(self, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Gradient of the margin between the classes that the true answers put in question."""
        leaf = x.detach().clone().requires_grad_()
        rival = logits.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        with torch.enable_grad():
            found = self.network(leaf)
            gap = found.gather(1, rival) - found.gather(1, y[:, None])
            (slope,) = torch.autograd.grad(gap.sum(), leaf)
        return slope


def _step(
    best: Best,
    target: ScoreTarget,
    here: Tensor,
    clean: Tensor,
    y: Tensor,
    slope: Tensor,
    rows: Tensor,
    length: float,
) -> Tensor:
    """One step, entered among the best images; where it led."""
    norm = "linf" if target.norm == "linf" else "l2"
    moved = target.project(here + length * direction(slope, norm), clean)
    _enter(best, target, moved, y, rows)
    return moved


def _enter(best: Best, target: ScoreTarget, x_adv: Tensor, y: Tensor, rows: Tensor) -> None:
    share, gap = judge(target, x_adv, y, 8, rows)
    best.enter(rows, x_adv, rank(gap, share if target.stochastic else None))
    broken = (share == 1) if target.stochastic else (gap > ROUNDING)
    best.broken[rows[broken]] = True
