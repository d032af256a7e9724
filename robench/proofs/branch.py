"""Branch and bound over the pre-activations of one hidden layer, many nodes at a time.

A node is a box of pre-activations and one wrong class. Its bound is Lagrangian (dual.py); what
stays positive is parted in two at a jump, a kink or, where units are curved, in the middle. Each
bound also points to a corner of the ball: those are tried as witnesses; and it is linear in the
pixels, so that it says in which part of the ball a class can win, and how far pre-activations reach
there. Where nothing is left to be parted, a linear program decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from robench.proofs.dual import Bound, bound, pieces, tighten
from robench.proofs.leaf import CLOSE, FOUND, Leaf, Try
from robench.proofs.shallow import Nodes, Shallow
from robench.proofs.units import Floats, sigmoid

TOGETHER = 64
"""Nodes that are bounded at a time."""
STEPS, DROPS = (60, 14, 120), (4.0, 1.0, 1.0)
"""Steps of the multipliers and how far the first one aims: at the root, at later nodes, which
begin with their parent's, and before a program is asked."""
CLIMBS = 12
"""Steps uphill from a corner that did not win."""

Node = tuple[Floats, Floats, int, Floats]
"""Least and greatest pre-activations, wrong class, multipliers to begin with."""


@dataclass
class Tree:
    """How the search went.

    left: why something is left open; empty: nothing is.
    """

    found: bool = False
    left: str = ""
    nodes: int = 0


def search(image: Shallow, targets: list[int], nodes: int, seconds: float, attempt: Try) -> Tree:
    """Whether any of the classes wins anywhere in the ball.

    Args:
        nodes, seconds: limits; seconds of this thread's processor time.
        attempt: asks the real network about a point.
    """
    tree, until = Tree(), thread_time() + seconds
    nothing = np.zeros(len(image.units))
    pending: list[Node] = [(image.low, image.high, target, nothing) for target in targets]
    steps, drop = STEPS[0], DROPS[0]
    leaf = Leaf(image)
    while pending:
        if thread_time() > until or tree.nodes >= nodes:
            tree.left = "out of time" if tree.nodes < nodes else "out of nodes"
            return tree
        together = min(TOGETHER, nodes - tree.nodes)
        batch, pending = pending[-together:], pending[:-together]
        tree.nodes += len(batch)
        boxes = Nodes(
            np.array([node[0] for node in batch]),
            np.array([node[1] for node in batch]),
            np.array([node[2] for node in batch], dtype=np.intp),
        )
        found = bound(image, boxes, np.array([node[3] for node in batch]), steps, drop)
        steps, drop = STEPS[1], DROPS[1]
        standing = np.flatnonzero(found.value >= 0)
        for index in standing[np.argsort(found.value[standing])][-2:]:
            corner = found.corner[index]
            if attempt(corner) or any(map(attempt, climb(image, corner, batch[index][2]))):
                tree.found = True
                return tree
        children: list[tuple[float, list[Node]]] = []
        boxes = tighten(image, boxes, found)
        standing = standing[(boxes.low[standing] < boxes.high[standing]).all(1)]
        unit, at, upper = parting(image, boxes, found)
        whole = standing[unit[standing] < 0]
        if len(whole):
            said = _decide(image, leaf, boxes, found, whole, attempt, tree)
            if tree.found:
                return tree
            tree.left = tree.left or said
        for index in standing[unit[standing] >= 0].tolist():
            node = batch[index]
            low, high = boxes.low[index].copy(), boxes.high[index].copy()
            high[unit[index]] = low[unit[index]] = at[index]
            begin = found.multipliers[index]
            pair = [
                (boxes.low[index], high, node[2], begin),
                (low, boxes.high[index], node[2], begin),
            ]
            if not upper[index]:
                pair.reverse()
            children.append((float(found.value[index]), pair))
        children.sort(key=lambda child: child[0])
        pending += [node for _, pair in children for node in pair]
    return tree


def climb(image: Shallow, corner: Floats, target: int) -> list[Floats]:
    """A point uphill from a corner, where a class leads more: by steps towards other corners (Frank
    and Wolfe 1956). Of curved units only; for lines a program finds what there is."""
    if not image.sigmoid:
        return []
    factor = image.out[target] - image.out[image.label]

    def rise(point: Floats) -> tuple[float, Floats]:
        share = sigmoid(image.weight @ point + image.bias)
        return float(factor @ share), (factor * share * (1 - share)) @ image.weight

    point, (height, slope) = corner, rise(corner)
    step = 1.0
    for _ in range(CLIMBS):
        goal = image.region.farthest(slope)
        ahead = point + step * (goal - point)
        higher, turned = rise(ahead)
        if higher > height:
            point, height, slope = ahead, higher, turned
        else:
            step /= 2
    return [point]


def _decide(
    image: Shallow,
    leaf: Leaf,
    boxes: Nodes,
    found: Bound,
    which: NDArray[np.intp],
    attempt: Try,
    tree: Tree,
) -> str:
    """Nodes with nothing left to part: a longer bound, then a program. Why one is left open, or
    empty; whether a witness was found is told to the tree."""
    if image.sigmoid:
        return CLOSE
    boxes = Nodes(boxes.low[which], boxes.high[which], boxes.target[which])
    left = ""
    longer = bound(image, boxes, found.multipliers[which], STEPS[2], DROPS[2])
    for index in np.flatnonzero(longer.value >= 0).tolist():
        target = int(boxes.target[index])
        said = leaf.settle(boxes.low[index], boxes.high[index], target, attempt)
        if said == FOUND:
            tree.found = True
            break
        left = left or said
    return left


def parting(
    image: Shallow, nodes: Nodes, found: Bound
) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Which unit of each node to part, -1 where none is left; where; and which side promises more.

    The bound exceeds the lead where it is met by a sum over the units, of how far the bound of
    each lies above what the unit adds there. The one that exceeds most is parted: between that
    place and the piece whose line, of all others, holds the bound up.
    """
    seen = np.clip(found.seen, nodes.low, nodes.high)
    rows = np.arange(len(seen))
    if found.goal.curve is not None:
        gap, at = _bends(nodes, found, seen)
        unit = gap.argmax(1)
        upper = found.p[rows, unit] > at[rows, unit]
        return np.where(gap[rows, unit] > 1e-9, unit, -1), at[rows, unit], upper
    low, high, there = image.clipped(nodes)
    goal = found.goal
    values = pieces(goal, low, high, there, found.multipliers)
    own = np.where(there & (low <= seen[..., None]), np.arange(there.shape[2]), 0).max(2)[..., None]
    adds = np.take_along_axis(goal.slope, own, 2)[..., 0] * seen
    adds = adds + np.take_along_axis(goal.offset, own, 2)[..., 0]
    gap = values.max(2) + found.multipliers * seen - adds
    np.put_along_axis(values, own, -np.inf, 2)
    other = values.argmax(2)[..., None]
    gap = np.where(np.take_along_axis(values, other, 2)[..., 0] > -np.inf, gap + 1e-9, -1.0)
    unit = gap.argmax(1)
    piece, upper = other[rows, unit, 0], (other > own)[rows, unit, 0]
    at = np.where(upper, image.ends[0][piece], image.ends[1][piece])
    return np.where(gap[rows, unit] > 0, unit, -1), at, upper


def _bends(nodes: Nodes, found: Bound, seen: Floats) -> tuple[Floats, Floats]:
    """Of sigmoids: how far each one's bound lies above what it adds, and where to part it."""
    factor = found.goal.curve
    assert factor is not None
    gap = factor * (sigmoid(found.p) - sigmoid(seen)) - found.multipliers * (found.p - seen)
    width = nodes.high - nodes.low
    at = np.clip(seen, nodes.low + 0.2 * width, nodes.high - 0.2 * width)
    return np.where(width > 1e-6, gap, -1.0), at
