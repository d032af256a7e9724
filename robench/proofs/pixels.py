"""A linear program over the pixels of a ball, which HiGHS solves again and again as rows change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import highspy
import numpy as np

from robench.proofs.highs import INFINITE, Row, add, linear, passed, run, solution
from robench.proofs.program import rows_of
from robench.proofs.region import Region
from robench.proofs.units import Floats


class PixelProgram:
    """Columns: the pixels, then `extra`; rows: so many sums of them, with no bounds yet, and what
    the ball needs beside a box.

    Args:
        rows: (rows, pixels + extra).
        extra: the least and the greatest of each further column.
    """

    def __init__(
        self, region: Region, rows: Floats, extra: Sequence[tuple[float, float]] = ()
    ) -> None:
        self.region, self.pixels = region, len(region.middle)
        columns = range(rows.shape[1])
        lower: list[float] = [*(region.middle - region.radius), *(low for low, _ in extra)]
        upper: list[float] = [*(region.middle + region.radius), *(high for _, high in extra)]

        def column(low: float, high: float) -> int:
            lower.append(low)
            upper.append(high)
            return len(lower) - 1

        sums: list[Row] = [(columns, row, -INFINITE, INFINITE) for row in rows]
        sums += rows_of(region, column)
        self.highs = passed(linear(lower, upper, sums))
        self.highs.setOptionValue("primal_feasibility_tolerance", 1e-9)

    def bound_rows(self, low: Floats, high: Floats) -> None:
        """The least and the greatest of the rows that it began with."""
        for row, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            self.highs.changeRowBounds(row, least, most)

    @contextmanager
    def needing(self, gain: Floats, least: float) -> Iterator[None]:
        """With one more row inside the block: gain x >= least, gain: (pixels,)."""
        added = self.highs.getNumRow()
        add(self.highs, gain, least, INFINITE)
        try:
            yield
        finally:
            self.highs.deleteRows(1, np.array([added], dtype=np.int32))

    def run(self) -> highspy.HighsModelStatus:
        """Solve; see highs.py."""
        return run(self.highs, self.region)

    def point(self) -> Floats:
        """The pixels of the last solution."""
        return solution(self.highs)[: self.pixels]
