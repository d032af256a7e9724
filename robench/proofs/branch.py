"""Branch and bound over the pre-activations of one hidden layer, many nodes at a time.

A node is a box of pre-activations and one wrong class. Its bound is Lagrangian (dual.py); what
stays positive is parted in two at a jump, a kink or, where units are curved, in the middle. Each
bound also points to a corner of the ball: those are tried as witnesses; and it is linear in the
pixels, so that it says in which part of the ball a class can win, and how far pre-activations reach
there. Where nothing is left to be parted, a linear program decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time

import highspy
import numpy as np
from numpy.typing import NDArray

from robench.proofs.dual import Bound, bound, pieces, tighten
from robench.proofs.program import rows_of
from robench.proofs.region import CUTS, AroundL2
from robench.proofs.shallow import Nodes, Shallow
from robench.proofs.solver import quiet
from robench.proofs.units import Floats

TOGETHER = 64
"""Nodes that are bounded at a time."""
STEPS, DROPS = (60, 14, 120), (4.0, 1.0, 1.0)
"""Steps of the multipliers and how far the first one aims: at the root, at later nodes, which
begin with their parent's, and before a program is asked."""
DEPTHS = (50.0, 4.0, 1.5, 0.7, -1.0)
"""How deep inside all pieces a point is looked for, in units of rounding; -1: nowhere clear."""
CLIMBS = 12
"""Steps uphill from a corner that did not win."""
FOUND = "found"
CLOSE = "wrong only within rounding, or not at all"

Node = tuple[Floats, Floats, int, Floats]
"""Least and greatest pre-activations, wrong class, multipliers to begin with."""
Try = Callable[[Floats], bool]
"""Whether a point, (pixels,), is a witness."""


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
        p = np.clip(image.weight @ point + image.bias, -500, 500)
        share = 1 / (1 + np.exp(-p))
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

    def sigmoid(p: Floats) -> Floats:
        share: Floats = 1 / (1 + np.exp(-np.clip(p, -500, 500)))
        return share

    gap = factor * (sigmoid(found.p) - sigmoid(seen)) - found.multipliers * (found.p - seen)
    width = nodes.high - nodes.low
    at = np.clip(seen, nodes.low + 0.2 * width, nodes.high - 0.2 * width)
    return np.where(width > 1e-6, gap, -1.0), at


class Leaf:
    """Nodes in which every unit is on one line: a linear program says whether a class wins there.

    Pieces are closed and widened by rounding, so that infeasible means impossible in float32, too;
    what is feasible is tried, first as deep inside the pieces as can be.
    """

    def __init__(self, image: Shallow) -> None:
        self.image = image
        self.highs: highspy.Highs | None = None

    def settle(self, low: Floats, high: Floats, target: int, attempt: Try) -> str:
        """FOUND, empty where no point wins, or why that is not known."""
        image = self.image
        pixels, units = len(image.middle), len(image.units)
        if self.highs is None:
            self.highs = quiet()
            self.highs.setOptionValue("primal_feasibility_tolerance", 1e-9)
            lp = highspy.HighsLp()
            # Columns: pixels, then how deep inside all pieces the point is, in units of rounding.
            lp.num_col_, lp.num_row_ = pixels + 1, 2 * units
            lp.col_cost_ = np.zeros(pixels + 1)
            lp.col_lower_ = np.append(image.middle - image.region.radius, -1.0)
            lp.col_upper_ = np.append(image.middle + image.region.radius, 100.0)
            deep = (image.rounding + 1e-6)[:, None]
            matrix = np.vstack([np.hstack([image.weight, -deep]), np.hstack([image.weight, deep])])
            lp.row_lower_, lp.row_upper_ = np.zeros(2 * units), np.zeros(2 * units)
            lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
            lp.a_matrix_.start_ = np.arange(2 * units + 1) * (pixels + 1)
            lp.a_matrix_.index_ = np.tile(np.arange(pixels + 1, dtype=np.int32), 2 * units)
            lp.a_matrix_.value_ = matrix.ravel()
            self.highs.passModel(lp)
            for row_ in rows_of(image.region, self._column):
                self._row(*row_)
        nodes = Nodes(low[None], high[None], np.array([target], dtype=np.intp))
        _, _, there = image.clipped(nodes)
        goal = image.functional(nodes, there)
        piece = there[0].argmax(1)
        if image.silent(piece) and image.label < target:
            return ""  # exactly 0 against 0: the first class is the answer
        take = np.arange(units), piece
        # The whole pieces again: what bounds cut off is no jump to keep clear of.
        low, high = (
            np.maximum(image.ends[0][piece], image.low),
            np.minimum(image.ends[1][piece], image.high),
        )
        slope, offset = goal.slope[0][take], goal.offset[0][take]
        infinite = highspy.kHighsInf
        inner = low > image.low, high < image.high  # the ends of the ball are no jumps
        for row in range(units):
            self.highs.changeRowBounds(
                row, low[row] - image.bias[row] if inner[0][row] else -infinite, infinite
            )
            self.highs.changeRowBounds(
                units + row, -infinite, high[row] - image.bias[row] if inner[1][row] else infinite
            )
        # The lead on this piece: slope (w x + b) + offset + constant >= threshold.
        gain = slope @ image.weight
        constant = float(slope @ image.bias + offset.sum() + goal.constant[0])
        constant += float(np.abs(slope) @ image.rounding)
        need = float(goal.threshold[0]) - 1e-6 - constant
        used = np.flatnonzero(gain).astype(np.int32)
        if len(used) == 0 and need > 0:
            return ""
        goal_row = self.highs.getNumRow()
        self.highs.addRow(need, infinite, len(used), used, np.ascontiguousarray(gain[used]))
        try:
            if isinstance(image.region, AroundL2) and self._near(attempt):
                return FOUND
            self.highs.changeColCost(pixels, -1.0)
            status = self._run()
            if status == highspy.HighsModelStatus.kInfeasible:
                return ""
            if status != highspy.HighsModelStatus.kOptimal:
                return f"the solver gave up: {self.highs.modelStatusToString(status)}"
            point = np.array(self.highs.getSolution().col_value)
        finally:
            self.highs.deleteRows(1, np.array([goal_row], dtype=np.int32))
        if attempt(point[:pixels]):
            return FOUND
        if slope.any() and self._farther(gain, attempt):
            return FOUND
        return CLOSE

    def _near(self, attempt: Try) -> bool:
        """Whether the point nearest to the image, clear of all jumps, is a witness. Of what has no
        point in the ball the tangent at its nearest one is cut off: then nothing is left."""
        for depth in DEPTHS:
            point = self._nearest(depth)
            if point is None:
                continue
            outside = self.image.region.tangent(point)
            if outside is None and attempt(point):
                return True
            if outside is not None and depth == DEPTHS[-1]:
                self._cut(*outside)
        return False

    def _nearest(self, depth: float) -> Floats | None:
        """The point nearest to the image that lies so deep inside all pieces, by a quadratic
        program; None where none was found."""
        highs, region = self.highs, self.image.region
        assert highs is not None
        assert isinstance(region, AroundL2)
        pixels, columns = len(region.centre), highs.getNumCol()
        every = np.arange(pixels, dtype=np.int32)
        square = highspy.HighsHessian()
        square.dim_, square.format_ = columns, highspy.HessianFormat.kTriangular
        square.start_ = np.minimum(np.arange(columns + 1), pixels).astype(np.int32)
        square.index_, square.value_ = every, np.full(pixels, 2.0)
        highs.changeColsCost(pixels, every, -2 * region.centre)
        highs.changeColBounds(pixels, depth, 100.0)
        highs.changeColCost(pixels, 0.0)
        highs.passHessian(square)
        highs.run()
        solved = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        point = np.array(highs.getSolution().col_value)[:pixels] if solved else None
        highs.passHessian(highspy.HighsHessian())
        highs.changeColsCost(pixels, every, np.zeros(pixels))
        highs.changeColBounds(pixels, -1.0, 100.0)
        return point

    def _cut(self, u: Floats, most: float) -> None:
        used = np.flatnonzero(u)
        self._row(used.tolist(), u[used].tolist(), -highspy.kHighsInf, most)

    def _run(self) -> highspy.HighsModelStatus:
        """Solve; a point outside the ball, which the program does not know whole, is cut off."""
        highs, pixels = self.highs, len(self.image.middle)
        assert highs is not None
        highs.run()
        for _ in range(CUTS):
            if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                break
            point = np.array(highs.getSolution().col_value)
            outside = self.image.region.tangent(point[:pixels])
            if outside is None:
                break
            self._cut(*outside)
            highs.run()
        return highs.getModelStatus()

    def _column(self, low: float, high: float) -> int:
        assert self.highs is not None
        self.highs.addCol(0.0, low, high, 0, np.zeros(0, np.int32), np.zeros(0))
        return int(self.highs.getNumCol()) - 1

    def _row(self, columns: list[int], values: list[float], low: float, high: float) -> None:
        assert self.highs is not None
        where = np.array(columns, dtype=np.int32)
        self.highs.addRow(low, high, len(columns), where, np.array(values))

    def _farther(self, gain: Floats, attempt: Try) -> bool:
        """Whether the point that leads most, clear of all jumps, is a witness."""
        pixels, highs = len(gain), self.highs
        assert highs is not None
        every = np.arange(pixels + 1, dtype=np.int32)
        highs.changeColsCost(pixels + 1, every, np.append(-gain, 0.0))
        highs.changeColBounds(pixels, 2.0, 100.0)
        solved = self._run() == highspy.HighsModelStatus.kOptimal
        point = np.array(highs.getSolution().col_value) if solved else None
        highs.changeColsCost(pixels + 1, every, np.zeros(pixels + 1))
        highs.changeColBounds(pixels, -1.0, 100.0)
        return point is not None and attempt(point[:pixels])
