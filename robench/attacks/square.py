"""Square attack: random search over squares, by scores alone (Andriushchenko et al. 2020,
arXiv 1912.00049, Algorithms 1 and 2, for linf)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, Best, judge, judged, rank
from robench.attacks.sequential import confirmed
from robench.attacks.steps import per_image, pick
from robench.attacks.target import ScoreTarget

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the area of the squares halves (section 3.1)."""
COMMON = 8
"""Least number of draws by which an image and its rival are compared on a noisy network."""
LEAST = 100
"""Least number of steps there."""


class Square(Attack):
    """Random search: a random square is set to +-eps and kept if the margin grows."""

    queries: int = Field(default=1000, ge=1)
    """Questions about each image, one for each step. On a noisy network a step takes 2 `eot`, about
    the image and its rival under the same draws; it gets as many questions, but at least LEAST
    steps."""
    area: float = Field(default=0.8, gt=0, le=1)
    """p: share of the image that the first squares cover."""
    eot: int = Field(default=1, ge=1)
    """Draws of a stochastic network to average each score over; at least COMMON."""
    version: ClassVar[int] = 2
    needs: ClassVar[str] = "score"
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf",)
    paper: ClassVar[str] = "Andriushchenko et al. 2020, arXiv 1912.00049"

    def perturb(self, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        best = Best(x)
        self.improve(best, target, x, y, rng)
        return best.images

    def improve(
        self, best: Best, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> None:
        """Attack the images that stand, and enter what is found."""
        self.finite_eps(target)
        index = best.standing()
        if not len(index):
            return
        x_best, labels = x[index], target.sought(y)[index]
        low, high = target.ball.bounds(x_best)
        margins = torch.full((len(x_best),), -torch.inf, device=x.device)
        ranks = margins.clone()
        # On a noisy network both are asked again under common draws: what won by luck once would
        # else stay for good.
        draws = max(self.eot, COMMON) if target.stochastic else 1
        steps = max(self.queries // (2 * draws), LEAST) if target.stochastic else self.queries
        for step in range(-1, steps):
            if not target.affords(2 * draws if target.stochastic else 1):
                break
            if step < 0:  # the clean image: what is misclassified already needs no noise
                tried = x_best
            elif step == 0:  # vertical stripes
                tried = pick(_signs(x_best[:, :, :1], rng), low, high)
            else:
                side = self._side(step * self.queries // steps, *x.shape[2:])
                square = _square(x_best, side, rng)
                colour = pick(_signs(x_best[:, :, :1, :1], rng), low, high)
                tried = pick(square, x_best, colour)
            if target.stochastic and step > 0:
                both = target.common_answers((x_best, tried), draws, index)
                (_, margins), (share, gap) = (judged(target, drawn, labels) for drawn in both)
            else:
                share, gap = judge(target, tried, labels, draws, index)
            better = gap > margins if step else torch.ones_like(gap, dtype=torch.bool)
            x_best = pick(per_image(better, x_best), x_best, tried)
            margins = torch.where(better, gap, margins)
            ranks = torch.where(better, rank(gap, share if target.stochastic else None), ranks)
            fooled = (margins > ROUNDING) & better
            if target.stochastic and bool(fooled.any()):
                rows = torch.nonzero(fooled)[:, 0]
                fooled[rows] = confirmed(target, x_best[rows], labels[rows], index[rows])
            if not bool(fooled.any()):
                continue
            gone, stay = torch.nonzero(fooled)[:, 0], torch.nonzero(~fooled)[:, 0]
            best.enter(index[gone], x_best.index_select(0, gone), ranks[gone])
            best.broken[index[gone]] = True
            index, labels, margins, ranks = (
                part.index_select(0, stay) for part in (index, labels, margins, ranks)
            )
            x_best, low, high = (part.index_select(0, stay) for part in (x_best, low, high))
            if not len(index):
                return
        best.enter(index, x_best, ranks)

    def _side(self, step: int, height: int, width: int) -> int:
        """Side of the square at a step, in pixels."""
        halvings = sum(step > share * self.queries for share in HALVINGS)
        side = round(math.sqrt(self.area / 2**halvings * height * width))
        return min(max(side, 1), height - 1, width - 1)


def _signs(like: Tensor, rng: torch.Generator) -> Tensor:
    """Fair coins of the shape of `like`."""
    return torch.rand(like.shape, generator=rng, device=like.device) < 0.5


def _square(x: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """A mask of 0 and 1 with one square per image at a random place, (n, 1, h, w)."""
    height, width = x.shape[2:]
    places = torch.rand(2, len(x), 1, generator=rng, device=x.device)
    if height == width:
        rows, columns = _stretch(places, side, height)
    else:
        rows, columns = _stretch(places[0], side, height), _stretch(places[1], side, width)
    mask: Tensor = rows[:, None, :, None] * columns[:, None, None, :]
    return mask


def _stretch(share: Tensor, side: int, length: int) -> Tensor:
    """Which of `length` pixels in a row are in the square, 0 or 1, (..., length), for each `share`
    of the places where it can begin, (..., 1) in [0, 1)."""
    middle = (share * (length - side + 1)).floor_().add_((side - 1) / 2)
    pixels = torch.arange(length, dtype=share.dtype, device=share.device)
    inside: Tensor = (pixels - middle).abs_().lt_(side / 2)
    return inside
