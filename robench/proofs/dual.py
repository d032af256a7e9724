"""Lagrangian bounds for a batch of nodes: how far a wrong class can lead in each.

With a multiplier l_i for p_i = w_i x + b_i (within its rounding e_i), whatever the multipliers,

    lead <= sum_i max_p (F_i(p) - l_i p) + sum_i (l_i b_i + |l_i| e_i) + max_x sum_i l_i w_i x + c,

and both maxima have closed forms: over the ends of pieces (or a sigmoid's turning point), and over
the box of the pixels. So a bound is good in float64 up to its own rounding, without trusting a
solver. Multipliers follow Polyak's subgradient steps (1969), aimed at just below what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from robench.proofs.shallow import Functional, Nodes, Shallow
from robench.proofs.units import Floats

SAFE = 1e-7
"""Added to every bound: what float64 rounds in it, by far."""


@dataclass
class Bound:
    """Of each node: the lead's bound less what is needed to win (negative: no point of the node
    wins), the multipliers it came with, and the corner of the ball that they point to."""

    value: Floats
    multipliers: Floats
    corner: Floats
    p: Floats
    """Where each unit's maximum lies, (nodes, units)."""
    goal: Functional


def bound(image: Shallow, nodes: Nodes, start: Floats, steps: int, aim: float) -> Bound:
    """Bounds of a batch of nodes.

    Args:
        start: multipliers to begin with, (nodes, units).
        steps: subgradient steps, at most.
        aim: how far below 0 the steps aim.
    """
    low, high, there = image.clipped(nodes) if not image.sigmoid else (None, None, None)
    goal = image.functional(nodes, there)
    multipliers = start.copy()
    best = Bound(
        np.full(len(start), np.inf),
        start.copy(),
        np.zeros((len(start), len(image.middle))),
        start.copy(),
        goal,
    )
    active = np.arange(len(start))
    for _ in range(steps + 1):
        now = multipliers[active]
        value, p = _units(image, nodes, goal, low, high, there, now, active)
        pull = product(now, image.weight)
        value = value + now @ image.bias + np.abs(now) @ image.rounding
        value += pull @ image.middle + np.abs(pull) @ image.radius
        value += goal.constant[active] - goal.threshold[active] + SAFE
        corner = image.middle + np.sign(pull) * image.radius
        better = value < best.value[active]
        improved = active[better]
        best.value[improved] = value[better]
        best.multipliers[improved] = now[better]
        best.corner[improved], best.p[improved] = corner[better], p[better]
        open_ = value >= 0
        if not open_.any():
            break
        gradient = product(corner, image.weight.T) + image.bias - p + np.sign(now) * image.rounding
        size = (gradient**2).sum(1)
        length = (value + aim) / np.maximum(size, 1e-12)
        moved = now - length[:, None] * gradient
        multipliers[active] = moved
        active = active[open_]
    return best


def product(a: Floats, b: Floats) -> Floats:
    """a @ b on torch's threads, of which there is one: NumPy's would be as many as there are cores,
    in each of several processes."""
    found: Floats = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return found


def _units(
    image: Shallow,
    nodes: Nodes,
    goal: Functional,
    low: Floats | None,
    high: Floats | None,
    there: NDArray[np.bool_] | None,
    multipliers: Floats,
    active: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """sum_i max_p (F_i(p) - l_i p), (nodes,), and where the maxima lie, (nodes, units)."""
    if goal.curve is not None:
        return _curves(nodes.low[active], nodes.high[active], goal.curve[active], multipliers)
    assert low is not None
    assert high is not None
    assert there is not None
    slope = goal.slope[active] - multipliers[:, :, None]
    offset = np.where(there[active], goal.offset[active], -np.inf)
    ends = np.where(slope > 0, high[active], low[active])
    values = slope * ends + offset
    which = values.argmax(2)[..., None]
    total: Floats = np.take_along_axis(values, which, 2)[..., 0].sum(1)
    return total, np.take_along_axis(ends, which, 2)[..., 0]


def _curves(low: Floats, high: Floats, factor: Floats, l: Floats) -> tuple[Floats, Floats]:  # noqa: E741
    """The same for F_i = factor sigmoid: at an end, or where factor sigmoid' = l on the side on
    which the curve bends down."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.clip(np.where(factor != 0, l / factor, 0.0), 0.0, 0.25)
    root = np.sqrt(1 - 4 * ratio)
    share = np.clip(np.where(factor > 0, 1 + root, 1 - root) / 2, 1e-15, 1 - 1e-15)
    turning = np.clip(np.log(share / (1 - share)), low, high)
    places = np.stack([low, high, turning])
    values = factor / (1 + np.exp(-np.clip(places, -500, 500))) - l * places
    which = values.argmax(0)[None]
    total: Floats = np.take_along_axis(values, which, 0)[0].sum(1)
    return total, np.take_along_axis(places, which, 0)[0]
