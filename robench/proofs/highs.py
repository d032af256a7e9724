"""HiGHS as proofs ask it: programs that are passed once and of which only rows change.

By its own interface and not scipy's `milp`: so the model of an image is passed once, and a node
limit can be set, so that an answer need not depend on a clock.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import highspy
import numpy as np

from robench.proofs.region import CUTS, Region
from robench.proofs.units import Floats

INFINITE = highspy.kHighsInf
SOLVED, NOTHING = highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible

Row = tuple[Sequence[int], Sequence[float] | Floats, float, float]
"""Columns, their coefficients, and the least and the greatest of the sum."""


def linear(lower: Sequence[float], upper: Sequence[float], rows: Sequence[Row]) -> highspy.HighsLp:
    """A linear program without an objective. lower, upper: of each column."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(lower), len(rows)
    lp.col_cost_ = np.zeros(len(lower))
    lp.col_lower_, lp.col_upper_ = np.array(lower), np.array(upper)
    lp.row_lower_ = np.array([row[2] for row in rows])
    lp.row_upper_ = np.array([row[3] for row in rows])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.cumsum([0, *(len(row[0]) for row in rows)])
    lp.a_matrix_.index_ = np.array([i for row in rows for i in row[0]], dtype=np.int32)
    lp.a_matrix_.value_ = np.array([v for row in rows for v in row[1]])
    return lp


def passed(model: highspy.HighsLp) -> highspy.Highs:
    """HiGHS with a program, on one thread, saying nothing."""
    with _no_banner():
        highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.silent()
    highs.setOptionValue("threads", 1)
    highs.passModel(model)
    return highs


def add(highs: highspy.Highs, sums: Floats, low: float, high: float) -> None:
    """One more row: low <= sums x <= high. sums: of the first columns."""
    used = np.flatnonzero(sums).astype(np.int32)
    highs.addRow(low, high, len(used), used, np.ascontiguousarray(sums[used]))


def solution(highs: highspy.Highs) -> Floats:
    """All columns of the last one."""
    return np.array(highs.getSolution().col_value)


def run(highs: highspy.Highs, region: Region) -> highspy.HighsModelStatus:
    """Solve a program whose first columns are pixels. A point outside the ball, which the program
    does not know whole, is cut off."""
    highs.run()
    for _ in range(CUTS):
        if highs.getModelStatus() != SOLVED:
            break
        outside = region.tangent(solution(highs)[: len(region.low)])
        if outside is None:
            break
        add(highs, outside[0], -INFINITE, outside[1])
        highs.run()
    return highs.getModelStatus()


@contextmanager
def _no_banner() -> Iterator[None]:
    """HiGHS introduces itself when it is first made, before it can be told not to; it writes to the
    process's own output, past Python's."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
