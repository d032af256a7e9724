"""The ball of an image as proofs see it: how far a sum of pixels reaches in it, and where.

All bounds ask one thing of a ball: the most of v (x' - x) over its points x', cut to [0, 1]. Of
linf that is a sum of absolute values; of l1 the pixels that pay most per unit of change are changed
first, each as far as it can be (a fractional knapsack); of l2 it is the least over mu > 0 of

    sum_i max_d (v_i d - mu d^2 / 2) + mu eps^2 / 2,   d within the box,

which is a bound for every mu (Lagrange), and so sound however mu is found. Programs get l1 as
linear rows, and of l2 the box and tangents at points that lie outside: what is infeasible among
those is infeasible in the ball.

Balls of l1 and l2 are taken a little larger than the card says: by what float32 may lose where the
framework measures a distance and scales images back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from robench.attacks.ball import Ball
from robench.proofs.units import Floats

UNIT = 2.0**-24
ROUNDS = 30
"""Steps of mu, at most; the bound is good after any."""
CUTS = 40
"""Tangents that a program is given in a row before its point is taken as it is."""
OUTSIDE = 1 + 1e-7
"""By which factor a point is farther away than eps before it is cut off."""


class Region:
    """A ball in linf: a box.

    low, high: the least and the greatest pixels, (pixels,), a box around any ball.
    """

    box = True
    """Whether there is nothing to it but `low` and `high`."""

    def __init__(self, low: Floats, high: Floats) -> None:
        self.low, self.high = low, high
        self.middle, self.radius = (low + high) / 2, (high - low) / 2

    def reach(self, v: Floats, times: Callable[[Floats, Floats], Floats] = np.matmul) -> Floats:
        """The most of v (x' - middle), (rows,); v: (rows, pixels), or of one row (pixels,)."""
        most: Floats = times(np.abs(v), self.radius)
        return most

    def farthest(self, v: Floats) -> Floats:
        """Points of the ball at which that is, or nearly, (rows, pixels)."""
        corner: Floats = self.middle + np.sign(v) * self.radius
        return corner

    def tangent(self, point: Floats) -> tuple[Floats, float] | None:
        """A half space u x' <= c that holds the ball and not this point; None: no need of one."""
        return None


class Around(Region):
    """A ball in l1 or l2 around x, cut to a box."""

    box = False

    def __init__(self, x: Floats, low: Floats, high: Floats, eps: float) -> None:
        super().__init__(low, high)
        self.centre, self.eps = x, eps
        self.down, self.up = low - x, high - x  # how far each pixel may go
        self._shift = x - self.middle

    def reach(self, v: Floats, times: Callable[[Floats, Floats], Floats] = np.matmul) -> Floats:
        rows = np.atleast_2d(v)
        most: Floats = self._most(rows)[0] + rows @ self._shift
        return most if v.ndim > 1 else most[0]

    def farthest(self, v: Floats) -> Floats:
        rows = np.atleast_2d(v)
        point: Floats = np.clip(self.centre + self._most(rows)[1], self.low, self.high)
        return point if v.ndim > 1 else point[0]

    def _most(self, v: Floats) -> tuple[Floats, Floats]:
        """The most of v d over the ball, (rows,), and a d of it, (rows, pixels)."""
        raise NotImplementedError


class AroundL1(Around):
    """Of so much change in all; a program writes that down itself (program.py)."""

    def _most(self, v: Floats) -> tuple[Floats, Floats]:
        room = np.where(v > 0, self.up, -self.down)
        pays = np.abs(v)
        order = np.argsort(-pays, axis=1, kind="stable")
        sorted_ = np.take_along_axis(room, order, 1)
        before = np.cumsum(sorted_, axis=1) - sorted_
        taken = np.clip(self.eps - before, 0, sorted_)
        change = np.zeros_like(v)
        np.put_along_axis(change, order, taken, 1)
        return (pays * change).sum(1), np.sign(v) * change


class AroundL2(Around):
    """Of so much change, squared and summed."""

    def tangent(self, point: Floats) -> tuple[Floats, float] | None:
        away = point - self.centre
        size = float(np.linalg.norm(away))
        if size <= self.eps * OUTSIDE:
            return None
        u = away / size
        return u, float(u @ self.centre) + self.eps

    def _most(self, v: Floats) -> tuple[Floats, Floats]:
        size = np.sqrt((v**2).sum(1))
        mu = np.maximum(size / max(self.eps, 1e-300), 1e-30)
        best, change = np.full(len(v), np.inf), np.zeros_like(v)
        for _ in range(ROUNDS):
            d = np.clip(v / mu[:, None], self.down, self.up)
            value = (v * d - mu[:, None] * d**2 / 2).sum(1) + mu * self.eps**2 / 2
            better = value < best
            best = np.where(better, value, best)
            change[better] = d[better]
            # The mu at which the pixels that are not at their ends use up what those leave.
            free = (d > self.down) & (d < self.up)
            left = self.eps**2 - np.where(free, 0.0, d**2).sum(1)
            rest = np.where(free, v**2, 0.0).sum(1)
            new = np.sqrt(rest / np.maximum(left, 1e-300))
            new = np.where((left > 0) & (rest > 0), new, mu / 2)
            if np.all(np.abs(new - mu) <= 1e-12 * mu):
                break
            mu = np.maximum(new, 1e-30)
        box = (np.abs(v) * np.where(v > 0, self.up, -self.down)).sum(1)
        length = np.sqrt((change**2).sum(1))
        change *= np.minimum(1.0, self.eps / np.maximum(length, 1e-300))[:, None]
        return np.minimum(best, box), change


def gamma(operations: int) -> float:
    """Relative error of a float32 sum or product of so many roundings (Higham 2002, 3.1)."""
    return operations * UNIT / (1 - operations * UNIT)


def region(ball: Ball, x: Tensor) -> Region:
    """The ball around one image, (1, c, h, w), with all that counts as inside."""
    if ball.norm == "linf":
        low, high = (end.flatten().cpu().numpy().astype(np.float64) for end in ball.bounds(x))
        return Region(low, high)
    centre = x.flatten().cpu().numpy().astype(np.float64)
    free = ball.free(x).flatten().cpu().numpy()
    count = len(centre)
    # The distance is a sum of so many rounded terms, and each pixel that is scaled back is rounded.
    lost = 4 * UNIT * (count if ball.norm == "l1" else count**0.5)
    eps = ball.eps * (1 + gamma(2 * count + 16)) + lost if ball.eps else 0.0
    low = np.where(free, np.maximum(centre - eps, 0.0), centre)
    high = np.where(free, np.minimum(centre + eps, 1.0), centre)
    return (AroundL1 if ball.norm == "l1" else AroundL2)(centre, low, high, eps)
