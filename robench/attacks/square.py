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
AHEAD = 2**18
"""Most pixels of squares that are drawn ahead of their steps: many steps of a few small images."""


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
        ahead = _Ahead(rng)
        for step in range(-1, steps):
            if not target.affords(2 * draws if target.stochastic else 1):
                break
            if step < 0:  # the clean image: what is misclassified already needs no noise
                tried = x_best
            elif step == 0:  # vertical stripes
                tried = pick(_signs(x_best[:, :, :1], rng), low, high)
            else:
                if not len(ahead):
                    size = AHEAD // x_best[:, 0].numel() if x.device.type == "cpu" else 1
                    till = min(step + max(1, size), steps)
                    shares = (s * self.queries // steps for s in range(step, till))
                    ahead.draw(x_best, [self._side(share, *x.shape[2:]) for share in shares])
                square, signs = next(ahead)
                tried = pick(square, x_best, pick(signs, low, high))
            if target.stochastic and step > 0:
                both = target.common_answers((x_best, tried), draws, index)
                (_, margins), (share, gap) = (judged(target, drawn, labels) for drawn in both)
            elif target.stochastic:
                share, gap = judge(target, tried, labels, draws, index)
            else:
                share, gap = None, target.gap(target.logits(tried, index), labels)
            better = gap > margins if step else torch.ones_like(gap, dtype=torch.bool)
            if not bool(better.any()):
                continue
            x_best = pick(per_image(better, x_best), x_best, tried)
            margins = torch.where(better, gap, margins)
            ranks = torch.where(better, rank(gap, share), ranks)
            fooled = (margins > ROUNDING) & better
            if target.stochastic and bool(fooled.any()):
                rows = torch.nonzero(fooled)[:, 0]
                fooled[rows] = confirmed(target, x_best[rows], labels[rows], index[rows])
            if not bool(fooled.any()):
                continue
            ahead.forget()
            gone, stay = torch.nonzero(fooled)[:, 0], torch.nonzero(~fooled)[:, 0]
            best.enter(index[gone], x_best.index_select(0, gone), ranks[gone])
            best.broken[index[gone]] = True
            index, labels, margins, ranks = (
                part.index_select(0, stay) for part in (index, labels, margins, ranks)
            )
            x_best, low, high = (part.index_select(0, stay) for part in (x_best, low, high))
            if not len(index):
                return
        ahead.forget()
        best.enter(index, x_best, ranks)

    def _side(self, step: int, height: int, width: int) -> int:
        """Side of the square at a step, in pixels."""
        halvings = sum(step > share * self.queries for share in HALVINGS)
        side = round(math.sqrt(self.area / 2**halvings * height * width))
        return min(max(side, 1), height - 1, width - 1)


def _signs(like: Tensor, rng: torch.Generator) -> Tensor:
    """Fair coins of the shape of `like`."""
    return torch.rand(like.shape, generator=rng, device=like.device) < 0.5


class _Ahead:
    """Squares and colours of steps to come, drawn together: of the numbers that each step would
    draw by itself, in their order, with a few calls in place of a few for each."""

    def __init__(self, rng: torch.Generator) -> None:
        self._rng = rng
        self._steps: list[tuple[Tensor, Tensor]] = []  # the next one last

    def __len__(self) -> int:
        return len(self._steps)

    def draw(self, x: Tensor, sides: list[int]) -> None:
        """Draw steps for images x, with squares of these sides."""
        images, channels, height, width = x.shape
        where, colours = 2 * images, channels * images
        if len(sides) == 1:  # on a GPU it matters how many numbers a call draws
            places, signs = (self._numbers(1, count, x.device) for count in (where, colours))
        else:
            self._start = self._rng.get_state()
            self._drawn, self._each = len(sides), where + colours
            numbers = self._numbers(len(sides), self._each, x.device)
            places, signs = numbers[:, :where], numbers[:, where:]
        places = places.view(-1, 2, images, 1)
        side = torch.tensor(sides, dtype=x.dtype, device=x.device).view(-1, 1, 1, 1)
        if height == width:
            rows, columns = _stretch(places, side, height).unbind(1)
        else:
            rows = _stretch(places[:, 0], side[:, 0], height)
            columns = _stretch(places[:, 1], side[:, 0], width)
        squares = rows[:, :, None, :, None] * columns[:, :, None, None, :]
        signs = (signs.view(-1, images, channels, 1, 1) < 0.5).to(x.dtype)
        self._steps = list(zip(squares.unbind(), signs.unbind(), strict=True))[::-1]

    def __next__(self) -> tuple[Tensor, Tensor]:
        """One square per image, (n, 1, h, w), and whether its colour is the greatest there is,
        (n, c, 1, 1); each 0 or 1."""
        return self._steps.pop()

    def forget(self) -> None:
        """No more steps for these images: the generator stands where the last one left it."""
        if self._steps:
            taken = self._drawn - len(self._steps)
            self._rng.set_state(self._start)
            self._numbers(taken, self._each, self._rng.device)
            self._steps.clear()

    def _numbers(self, steps: int, each: int, device: torch.device) -> Tensor:
        return torch.rand(steps, each, generator=self._rng, device=device)


def _stretch(share: Tensor, side: Tensor, length: int) -> Tensor:
    """Which of `length` pixels in a row are in the square, 0 or 1, (..., length), for each `share`
    of the places where it can begin, (..., 1) in [0, 1)."""
    middle = (share * (length - side + 1)).floor_().add_((side - 1) / 2)
    pixels = torch.arange(length, dtype=share.dtype, device=share.device)
    inside: Tensor = (pixels - middle).abs_().lt_(side / 2)
    return inside
