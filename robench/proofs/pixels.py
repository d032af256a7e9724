"""A linear program over the pixels of a ball, which HiGHS solves again and again as rows change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import highspy
import numpy as np

from robench.proofs.program import rows_of
from robench.proofs.region import CUTS, Region
from robench.proofs.solver import quiet
from robench.proofs.units import Floats

INFINITE = highspy.kHighsInf
SOLVED, NOTHING = highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible


class PixelProgram:
    """Columns: the pixels, then `extra`; rows: so many sums of them, with no bounds yet, and what
    the ball needs beside a box.

    Args:
        rows: (rows, pixels + extra).
        extra: the least and the greatest of each further column.
    """

    def __init__(
        self, region: Region, rows: Floats, extra: list[tuple[float, float]] | None = None
    ) -> None:
        self.region, self.pixels = region, len(region.middle)
        count, columns = rows.shape
        low, high = region.middle - region.radius, region.middle + region.radius
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = columns, count
        lp.col_cost_ = np.zeros(columns)
        lp.col_lower_ = np.append(low, [end[0] for end in extra or []])
        lp.col_upper_ = np.append(high, [end[1] for end in extra or []])
        lp.row_lower_, lp.row_upper_ = np.full(count, -INFINITE), np.full(count, INFINITE)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.arange(count + 1) * columns
        lp.a_matrix_.index_ = np.tile(np.arange(columns, dtype=np.int32), count)
        lp.a_matrix_.value_ = rows.ravel()
        self.highs = quiet()
        self.highs.setOptionValue("primal_feasibility_tolerance", 1e-9)
        self.highs.passModel(lp)
        for row in rows_of(region, self._column):
            self._row(*row)

    def bound_rows(self, low: Floats, high: Floats) -> None:
        """The least and the greatest of the rows that it began with."""
        for row, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            self.highs.changeRowBounds(row, least, most)

    @contextmanager
    def needing(self, gain: Floats, least: float) -> Iterator[None]:
        """With one more row inside the block: gain x >= least, gain: (pixels,)."""
        used = np.flatnonzero(gain)
        added = self.highs.getNumRow()
        self._row(used.tolist(), gain[used].tolist(), least, INFINITE)
        try:
            yield
        finally:
            self.highs.deleteRows(1, np.array([added], dtype=np.int32))

    def run(self) -> highspy.HighsModelStatus:
        """Solve; a point outside the ball, which the program does not know whole, is cut off."""
        self.highs.run()
        for _ in range(CUTS):
            if self.highs.getModelStatus() != SOLVED:
                break
            outside = self.region.tangent(self.point())
            if outside is None:
                break
            self.cut(*outside)
            self.highs.run()
        return self.highs.getModelStatus()

    def point(self) -> Floats:
        """The pixels of the last solution."""
        return np.array(self.highs.getSolution().col_value)[: self.pixels]

    def cut(self, u: Floats, most: float) -> None:
        """Keep only what has u x <= most."""
        used = np.flatnonzero(u)
        self._row(used.tolist(), u[used].tolist(), -INFINITE, most)

    def _column(self, low: float, high: float) -> int:
        self.highs.addCol(0.0, low, high, 0, np.zeros(0, np.int32), np.zeros(0))
        return int(self.highs.getNumCol()) - 1

    def _row(self, columns: list[int], values: list[float], low: float, high: float) -> None:
        where = np.array(columns, dtype=np.int32)
        self.highs.addRow(low, high, len(columns), where, np.array(values))
