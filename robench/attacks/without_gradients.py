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

from dataclasses import dataclass
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
        search = _Search(self, target, x, y, rng, Best(x))
        search.enter(x, search.best.standing())
        if target.norm == "linf" and min(x.shape[2:]) > 1:
            Square(queries=self.queries).improve(search.best, target, x, y, rng)
        search.by_a_fitted_network()
        search.by_differences()
        return search.best.images


@dataclass(frozen=True)
class _Search:
    """The images of a batch."""

    attack: WithoutGradients
    target: ScoreTarget
    x: Tensor
    y: Tensor
    rng: torch.Generator
    best: Best

    def by_a_fitted_network(self) -> None:
        """Points of the balls are asked about, a network is fitted, and its gradients followed."""
        attack, target, best = self.attack, self.target, self.best
        fitted = _Fitted(self)
        rows = best.standing()
        for _ in range(attack.copies):
            if not len(rows) or not target.affords(1):
                return
            x = self.x[rows]
            away = torch.empty_like(x).uniform_(-1, 1, generator=self.rng)
            near = target.project(x + 1.5 * target.eps * away, x)
            fitted.note(near, target.logits(near, rows))
        here = best.images
        for step in range(attack.steps):
            if step % 10 == 0:
                fitted.fit()
            rows = best.standing()
            if not len(rows) or not target.affords(2):
                return
            points = here[rows]
            logits = target.logits(points, rows)
            fitted.note(points, logits)
            slope = fitted.slope(points, logits, self.y[rows])
            here = here.index_copy(0, rows, self._step(points, slope, rows, 0.15))

    def by_differences(self) -> None:
        """Along differences of the answers in random directions."""
        target, directions = self.target, self.attack.directions
        for step in range(self.attack.steps // 2):
            rows = self.best.standing()
            if not len(rows) or not target.affords(2 * directions + 1):
                return
            here, labels = self.best.images[rows], self.y[rows]
            slope = torch.zeros_like(here)
            # Wide at first, so that steps of a quantised network show.
            h = target.eps * (0.5 if step % 2 == 0 else 0.1)
            for _ in range(directions):
                coins = torch.rand(here.shape, generator=self.rng, device=here.device) < 0.5
                d = coins.float().mul(2).sub(1)
                if target.norm != "linf":
                    d = direction(d, "l2")
                up = margin(target.logits((here + h * d).clamp(0, 1), rows), labels)
                down = margin(target.logits((here - h * d).clamp(0, 1), rows), labels)
                slope += per_image(up - down, here) * d
            self._step(here, slope, rows, 0.3)

    def _step(self, here: Tensor, slope: Tensor, rows: Tensor, share: float) -> Tensor:
        """One step, of a share of the radius, entered among the best images; where it led."""
        norm = "linf" if self.target.norm == "linf" else "l2"
        length = share * self.target.eps
        moved = self.target.project(here + length * direction(slope, norm), self.x[rows])
        self.enter(moved, rows)
        return moved

    def enter(self, x_adv: Tensor, rows: Tensor) -> None:
        """Let images compete with the best ones."""
        noisy = self.target.stochastic
        share, gap = judge(self.target, x_adv, self.y[rows], 8, rows)
        self.best.enter(rows, x_adv, rank(gap, share if noisy else None))
        self.best.broken[rows[(share == 1) if noisy else (gap > ROUNDING)]] = True


class _Fitted:
    """A network that is fitted to the answers of another."""

    def __init__(self, search: _Search) -> None:
        attack, x, self.rng = search.attack, search.x, search.rng
        self.fits = attack.fits
        with torch_seeded(0):
            self.network = nn.Sequential(
                nn.Flatten(),
                nn.Linear(x[0].numel(), attack.hidden),
                nn.ReLU(),
                nn.Linear(attack.hidden, search.target.classes),
            ).to(x.device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=3e-3)
        self.shown: list[Tensor] = []
        self.answers: list[Tensor] = []

    def note(self, x: Tensor, logits: Tensor) -> None:
        # Standardised, since only their order and shape is to be learned.
        spread = logits.std(1, keepdim=True).clamp_min(1e-12)
        self.shown.append(x)
        self.answers.append((logits - logits.mean(1, keepdim=True)) / spread)

    def fit(self) -> None:
        x, answers = torch.cat(self.shown), torch.cat(self.answers)
        with torch.enable_grad():
            for weight in self.network.parameters():
                weight.requires_grad_(True)
            for _ in range(self.fits):
                some = torch.randint(len(x), (128,), generator=self.rng, device=x.device)
                loss = F.mse_loss(self.network(x[some]), answers[some])
                self.optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()

    def slope(self, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Gradient of the margin between the classes that the true answers put in question."""
        leaf = x.detach().clone().requires_grad_()
        rival = logits.scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        with torch.enable_grad():
            answers = self.network(leaf)
            gap = answers.gather(1, rival) - answers.gather(1, y[:, None])
            (slope,) = torch.autograd.grad(gap.sum(), leaf)
        return slope
