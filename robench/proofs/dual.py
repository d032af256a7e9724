"""Lagrangian bounds for a batch of nodes: how far a wrong class can lead in each.

With a multiplier l_i for p_i = w_i x + b_i (within its rounding e_i), whatever the multipliers,

    lead <= sum_i max_p (F_i(p) - l_i p) + sum_i (l_i b_i + |l_i| e_i) + max_x sum_i l_i w_i x + c,

and both maxima have closed forms: over the ends of pieces (or a sigmoid's turning point), and over
the box of the pixels. So a bound is good in float64 up to its own rounding, without trusting a
solver. Multipliers follow Polyak's subgradient steps (1969), aimed at a level some way below the
best so far: nearer as steps fail, so that it need not be known how low the bound can go. They are
measured by how much each unit changes the lead per unit of pre-activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from robench.proofs.shallow import Functional, Nodes, Shallow
from robench.proofs.units import Floats

SAFE = 1e-7
"""Added to every bound: what float64 rounds in it, by far."""
GROWS, SHRINKS = 1.3, 0.7
"""What becomes of the drop that is aimed at after a step better than all before, or another."""
SHARES = (0.3, 1.0)
"""Weights of a cut beside a unit's own, both measured by how far they reach in the ball."""
LAST = 10
"""Corners that the average remembers."""


@dataclass
class Bound:
    """Of each node: the lead's bound less what is needed to win (negative: no point of the node
    wins), the multipliers it came with, and the corner of the ball that they point to."""

    value: Floats
    multipliers: Floats
    corner: Floats
    p: Floats
    """Where each unit's maximum lies, (nodes, units)."""
    seen: Floats
    """What the units get at the corners of the last steps, averaged, (nodes, units): near the point
    of the relaxed ball at which the bound is met (Larsson, Patriksson and Stroemberg 1999)."""
    goal: Functional


def bound(image: Shallow, nodes: Nodes, start: Floats, steps: int, drop: float) -> Bound:
    """Bounds of a batch of nodes.

    Args:
        start: multipliers to begin with, (nodes, units).
        steps: at most; a node that cannot win takes none.
        drop: how far the first step aims below the bound, in units of what a hidden unit changes.
    """
    low, high, there = image.clipped(nodes) if not image.sigmoid else (None, None, None)
    goal = image.functional(nodes, there)
    steep = image.steepness(goal)
    size = steep / image.width
    scale = (steep * image.width).sum(1) / max(len(image.units), 1)
    count, now, level = len(start), start, drop * scale
    most: Callable[..., tuple[Floats, Floats]] = _curve
    curves = [nodes.low, nodes.high, goal.curve]
    if there is not None:
        most, curves = _lines, [low, high, goal.slope, np.where(there, goal.offset, -np.inf)]
    # Of the nodes that still take steps, and cut down only where one has stopped.
    held = [goal.constant - goal.threshold + SAFE, scale / 4, size, *curves]
    best = Bound(
        np.full(count, np.inf),
        start.copy(),
        np.zeros((count, len(image.middle))),
        start.copy(),
        np.zeros_like(start),
        goal,
    )
    active = np.arange(count)
    for step in range(steps + 1):
        rest, aim, sized, *curves = held
        values, p = most(*curves, now)
        value = values.sum(1)
        pull = product(now, image.weight)
        value = value + now @ image.bias + np.abs(now) @ image.rounding
        value += pull @ image.middle + image.region.reach(pull)
        value += rest
        corner = image.region.farthest(pull)
        better = value < best.value[active]
        improved = active[better]
        best.value[improved] = value[better]
        best.multipliers[improved] = now[better]
        best.p[improved] = p[better]
        seen = product(corner, image.weight.T) + image.bias
        best.seen[active] += (seen - best.seen[active]) / min(step + 1, LAST)
        open_ = value >= 0
        if not open_.any() or step == steps:
            break
        gradient = seen - p + np.sign(now) * image.rounding
        level = level * np.where(better, GROWS, SHRINKS)
        wanted = value - np.maximum(best.value[active] - level, -aim)
        length = wanted / np.maximum((sized * gradient**2).sum(1), 1e-12)
        now = now - length[:, None] * sized * gradient
        if not open_.all():
            active, now, level = active[open_], now[open_], level[open_]
            held = [part[open_] for part in held]
    standing = best.value >= 0
    pull = product(best.multipliers[standing], image.weight)
    best.corner[standing] = image.region.farthest(pull)
    return best


def tighten(image: Shallow, nodes: Nodes, found: Bound) -> Nodes:
    """The boxes without what cannot win in them. What is empty then, low >= high, holds nothing."""
    return cut(image, _without_lost_pieces(image, nodes, found), found)


def _without_lost_pieces(image: Shallow, nodes: Nodes, found: Bound) -> Nodes:
    """The boxes without what would take the bound below 0 by a unit alone, whatever the others do:
    whole pieces at either end, or quarters of a curve."""
    low, high = nodes.low.copy(), nodes.high.copy()
    l = found.multipliers  # noqa: E741
    goal, room = found.goal, found.value[:, None] + 1e-9
    if goal.curve is not None:
        most = _curve(nodes.low, nodes.high, goal.curve, l)[0]
        for share in (0.5, 0.25):
            at = low + share * (high - low)
            low = np.where(_curve(low, at, goal.curve, l)[0] < most - room, at, low)
            at = high - share * (high - low)
            high = np.where(_curve(at, high, goal.curve, l)[0] < most - room, at, high)
        return Nodes(low, high, nodes.target)
    left, right, there = image.clipped(nodes)
    values = pieces(goal, left, right, there, l)
    able = there & ~(values < values.max(2, keepdims=True) - room[..., None])
    some = able.any(2)
    low = np.where(some, np.where(able, left, np.inf).min(2), low)
    high = np.where(some, np.where(able, right, -np.inf).max(2), high)
    return Nodes(low, high, nodes.target)


def cut(image: Shallow, nodes: Nodes, found: Bound) -> Nodes:
    """The boxes as far as the half space reaches in which a class can win at all.

    At fixed multipliers the bound is linear in the pixels: with v = sum_i l_i w_i, m the middle and
    r(v) how far v (x - m) reaches in the ball, lead - threshold <= value - r(v) + v (x - m). So
    winning takes v (x - m) >= r(v) - value, and for any s >= 0 there

        w_j (x - m) <= r(w_j + s v) + s (value - r(v)).
    """
    low, high = nodes.low.copy(), nodes.high.copy()
    centre = image.weight @ image.middle + image.bias
    reach = image.region.reach(image.weight)
    spare = image.rounding + SAFE * (1 + np.abs(centre) + reach)
    for index in np.flatnonzero(found.value >= 0).tolist():
        v = found.multipliers[index] @ image.weight
        far = float(image.region.reach(v))
        room = float(found.value[index]) - far
        if room >= 0:  # the whole ball is in it
            continue
        for share in SHARES:
            s = (share * reach / far)[:, None]
            both = np.concatenate([image.weight + s * v, s * v - image.weight])
            up, down = image.region.reach(both, product).reshape(2, -1) + s[:, 0] * room + spare
            high[index] = np.minimum(high[index], centre + up)
            low[index] = np.maximum(low[index], centre - down)
    return Nodes(low, high, nodes.target)


def pieces(
    goal: Functional, low: Floats, high: Floats, there: NDArray[np.bool_], multipliers: Floats
) -> Floats:
    """max F_i(p) - l_i p on each piece that there is, (nodes, units, pieces)."""
    slope = goal.slope - multipliers[:, :, None]
    return np.where(there, slope * np.where(slope > 0, high, low) + goal.offset, -np.inf)


def product(a: Floats, b: Floats) -> Floats:
    """a @ b on torch's threads, of which there is one: NumPy's would be as many as there are cores,
    in each of several processes."""
    result: Floats = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return result


def _lines(
    low: Floats, high: Floats, slope: Floats, offset: Floats, multipliers: Floats
) -> tuple[Floats, Floats]:
    """max F_i(p) - l_i p over all pieces, and where, (nodes, units) each.

    Args:
        low, high, slope, offset: (nodes, units, pieces); -inf as the offset of a piece that is not
            there.
    """
    slope = slope - multipliers[:, :, None]
    ends = np.where(slope > 0, high, low)
    values = slope * ends + offset
    if values.shape[2] == 2:  # as nearly all units have
        first = values[..., 0] >= values[..., 1]
        where: Floats = np.where(first, ends[..., 0], ends[..., 1])
        return np.where(first, values[..., 0], values[..., 1]), where
    which = values.argmax(2)
    rows, units = np.indices(which.shape, sparse=True)
    return values[rows, units, which], ends[rows, units, which]


def _curve(low: Floats, high: Floats, factor: Floats, l: Floats) -> tuple[Floats, Floats]:  # noqa: E741
    """max F_i(p) - l_i p for F_i = factor sigmoid, and where: at an end, or where
    factor sigmoid' = l on the side on which the curve bends down; (nodes, units) each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.clip(np.where(factor != 0, l / factor, 0.0), 0.0, 0.25)
    root = np.sqrt(1 - 4 * ratio)
    share = np.clip(np.where(factor > 0, 1 + root, 1 - root) / 2, 1e-15, 1 - 1e-15)
    turning = np.clip(np.log(share / (1 - share)), low, high)
    places = np.stack([low, high, turning])
    values = factor / (1 + np.exp(-np.clip(places, -500, 500))) - l * places
    which = values.argmax(0)[None]
    return np.take_along_axis(values, which, 0)[0], np.take_along_axis(places, which, 0)[0]
