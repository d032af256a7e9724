"""What is left of the search of one hidden layer when every unit is on one line: a linear program
says whether a class wins there.

Pieces are closed and widened by rounding, so that infeasible means impossible in float32, too; what
is feasible is tried, first as deep inside the pieces as can be. Where that finds no witness, the
program is asked once more with rounding as it is at each point, and not at its most in the ball.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import highspy
import numpy as np
from numpy.typing import NDArray

from robench.proofs.highs import INFINITE, NOTHING, SOLVED, add
from robench.proofs.pixels import PixelProgram
from robench.proofs.program import TOLERANCE
from robench.proofs.region import AroundL2
from robench.proofs.rounding import Loss, of_answers, of_sums
from robench.proofs.shallow import Nodes, Shallow
from robench.proofs.units import Floats

DEPTHS = (50.0, 4.0, 1.5, 0.7, -1.0)
"""How deep inside all pieces a point is looked for, in units of rounding; -1: nowhere clear."""
FOUND = "found"
CLOSE = "wrong only within rounding, or not at all"

Try = Callable[[Floats], bool]
"""Whether a point, (pixels,), is a witness."""


@dataclass(frozen=True)
class Lines:
    """The piece that each open unit is on: p in [low, high] adds slope p + offset to the lead of a
    class; (units,) each.

    jumps: (2, units), whether the piece ends at low and at high, and not only the ball.
    lead, need: what all else adds to the lead, slack for rounding included, and what it takes.
    """

    piece: NDArray[np.intp]
    low: Floats
    high: Floats
    jumps: NDArray[np.bool_]
    slope: Floats
    offset: Floats
    lead: float
    need: float


@dataclass(eq=False)
class Leaf:
    """One image's program, asked about one node after the other."""

    image: Shallow

    @cached_property
    def lost(self) -> Loss:
        """How far p may be from what the pixels say, of the open units."""
        lost, units = of_sums(self.image.reading, self.image.region), self.image.units
        return Loss(lost.slope[units], lost.offset[units])

    @cached_property
    def clear(self) -> PixelProgram:
        """Of the pixels and of how deep inside all pieces the point is, in units of rounding."""
        image, deep = self.image, (self.image.rounding + TOLERANCE)[:, None]
        rows = np.vstack([np.hstack([image.weight, -deep]), np.hstack([image.weight, deep])])
        return PixelProgram(image.region, rows, [(-1.0, 100.0)])

    @cached_property
    def close(self) -> PixelProgram:
        """Of the pixels alone, each row as much wider at a point as rounding can make it there."""
        weight, lost = self.image.weight, self.lost.slope
        return PixelProgram(self.image.region, np.vstack([weight + lost, weight - lost]))

    def settle(self, low: Floats, high: Floats, target: int, attempt: Try) -> str:
        """FOUND, empty where no point wins, or why that is not known."""
        image = self.image
        nodes = Nodes(low[None], high[None], np.array([target], dtype=np.intp))
        _, _, there = image.clipped(nodes)
        piece = there[0].argmax(1)
        if image.silent(piece) and image.label < target:
            return ""  # exactly 0 against 0: the first class is the answer
        lines = self._lines(nodes, there, piece)
        # The lead on this piece: slope (w x + b) + offset + constant >= threshold.
        gain = lines.slope @ image.weight
        constant = float(lines.slope @ image.bias + lines.offset.sum() + lines.lead)
        constant += float(np.abs(lines.slope) @ image.rounding)
        need = lines.need - TOLERANCE - constant
        if not gain.any() and need > 0:
            return ""
        program = self.clear
        _between(program, lines, image.bias, 0.0)
        with program.needing(gain, need):
            if isinstance(image.region, AroundL2) and self._near(attempt):
                return FOUND
            program.highs.changeColCost(program.pixels, -1.0)
            status = program.run()
            if status == NOTHING:
                return ""
            if status != SOLVED:
                return f"the solver gave up: {program.highs.modelStatusToString(status)}"
            if attempt(program.point()):
                return FOUND
            if lines.slope.any() and self._farther(gain, attempt):
                return FOUND
        return self._within_rounding(lines, target, attempt)

    def _lines(self, nodes: Nodes, there: NDArray[np.bool_], piece: NDArray[np.intp]) -> Lines:
        image = self.image
        goal, take = image.functional(nodes, there), (np.arange(len(piece)), piece)
        # The whole pieces again: what bounds cut off is no jump to keep clear of.
        low = np.maximum(image.ends[0][piece], image.low)
        high = np.minimum(image.ends[1][piece], image.high)
        return Lines(
            piece,
            low,
            high,
            np.stack([low > image.low, high < image.high]),  # the ends of the ball are no jumps
            goal.slope[0][take],
            goal.offset[0][take],
            float(goal.constant[0]),
            float(goal.threshold[0]),
        )

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
                add(self.clear.highs, outside[0], -INFINITE, outside[1])
        return False

    def _nearest(self, depth: float) -> Floats | None:
        """The point nearest to the image that lies so deep inside all pieces, by a quadratic
        program; None where none was found."""
        highs, pixels, region = self.clear.highs, self.clear.pixels, self.image.region
        assert isinstance(region, AroundL2)
        columns, every = highs.getNumCol(), np.arange(pixels, dtype=np.int32)
        square = highspy.HighsHessian()
        square.dim_, square.format_ = columns, highspy.HessianFormat.kTriangular
        square.start_ = np.minimum(np.arange(columns + 1), pixels).astype(np.int32)
        square.index_, square.value_ = every, np.full(pixels, 2.0)
        highs.changeColsCost(pixels, every, -2 * region.centre)
        highs.changeColBounds(pixels, depth, 100.0)
        highs.changeColCost(pixels, 0.0)
        highs.passHessian(square)
        highs.run()
        point = self.clear.point() if highs.getModelStatus() == SOLVED else None
        highs.passHessian(highspy.HighsHessian())
        highs.changeColsCost(pixels, every, np.zeros(pixels))
        highs.changeColBounds(pixels, -1.0, 100.0)
        return point

    def _farther(self, gain: Floats, attempt: Try) -> bool:
        """Whether the point that leads most, clear of all jumps, is a witness."""
        highs, pixels = self.clear.highs, self.clear.pixels
        every = np.arange(pixels + 1, dtype=np.int32)
        highs.changeColsCost(pixels + 1, every, np.append(-gain, 0.0))
        highs.changeColBounds(pixels, 2.0, 100.0)
        point = self.clear.point() if self.clear.run() == SOLVED else None
        highs.changeColsCost(pixels + 1, every, np.zeros(pixels + 1))
        highs.changeColBounds(pixels, -1.0, 100.0)
        return point is not None and attempt(point)

    def _within_rounding(self, lines: Lines, target: int, attempt: Try) -> str:
        """Whether a class still wins where pre-activations and answers are off by no more than they
        can be at the very point (rounding.py)."""
        image, program, lost = self.image, self.close, self.lost
        _between(program, lines, image.bias, lost.offset + TOLERANCE)
        slope, constant = lines.slope, lines.lead + float(lines.offset.sum())
        if image.membrane is None:
            more, fixed = of_answers(image, target, lines.piece, lines.low, lines.high)
            constant += fixed - float(image.slack[0][[target, image.label]].sum())
            slope = slope + more
        size = np.abs(slope)
        gain = slope @ image.weight + size @ lost.slope
        constant += float(slope @ image.bias + size @ lost.offset)
        with program.needing(gain, lines.need - TOLERANCE - constant):
            status = program.run()
            if status == NOTHING:
                return ""
            return FOUND if status == SOLVED and attempt(program.point()) else CLOSE


def _between(program: PixelProgram, lines: Lines, bias: Floats, spread: Floats | float) -> None:
    """Hold the first rows above and the others below the ends of pieces."""
    infinite = np.full(len(bias), INFINITE)
    above = np.where(lines.jumps[0], lines.low - bias - spread, -infinite)
    below = np.where(lines.jumps[1], lines.high - bias + spread, infinite)
    program.bound_rows(np.append(above, -infinite), np.append(infinite, below))
