"""HiGHS on a program: is there a point of the ball that a class wins at? Infeasible proves it not.

HiGHS by its own interface and not scipy's `milp`: the model of an image is passed once and only the
rows of a goal change, and a node limit can be set, so that an answer need not depend on a clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import highspy
import numpy as np

from robench.proofs.program import Program
from robench.proofs.region import CUTS
from robench.proofs.units import Floats

Goal = list[tuple[Floats, float]]
"""Rows that a wrong answer needs: coefficients of the columns, and the least value."""


@dataclass(frozen=True)
class Answer:
    """What the solver said.

    point: all columns of a feasible solution; None: there is none.
    why: why nothing is known; empty where the answer is certain.
    """

    point: Floats | None = None
    why: str = ""


class Solver:
    """One program, to be asked about one goal after the other.

    Args:
        nodes: nodes of branch and bound for each goal; more leave it open.
        until: time.monotonic() that ends everything.
    """

    def __init__(self, program: Program, nodes: int, until: float) -> None:
        self.program, self.until = program, until
        self.highs = quiet()
        for option, value in (
            ("parallel", "off"),
            ("random_seed", 0),
            ("mip_max_nodes", nodes),
            ("primal_feasibility_tolerance", 1e-8),
            ("mip_feasibility_tolerance", 1e-7),
        ):
            self.highs.setOptionValue(option, value)
        self.highs.passModel(program.model())
        self.rows = self.highs.getNumRow()

    def ask(self, goal: Goal) -> Answer:
        """Whether all rows of a goal can hold at once. A point that lies outside the ball, which
        the program does not know whole, is cut off, and the program is asked again."""
        pixels = len(self.program.region.low)
        for _ in range(CUTS):
            answer = self._ask(goal)
            if answer.point is None:
                return answer
            outside = self.program.region.tangent(answer.point[:pixels])
            if outside is None:
                return answer
            self.cut(*outside)
        return answer

    def cut(self, u: Floats, most: float) -> None:
        """Keep only what has u x' <= most."""
        used = np.flatnonzero(u).astype(np.int32)
        self.highs.addRow(-highspy.kHighsInf, most, len(used), used, np.ascontiguousarray(u[used]))
        self.rows = self.highs.getNumRow()

    def _ask(self, goal: Goal) -> Answer:
        left = self.until - time.monotonic()
        if left <= 0:
            return Answer(why="out of time")
        for coefficients, least in goal:
            used = np.flatnonzero(coefficients).astype(np.int32)
            self.highs.addRow(
                least, highspy.kHighsInf, len(used), used, np.ascontiguousarray(coefficients[used])
            )
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + left)
        try:
            self.highs.run()
            return self._answer()
        finally:
            added = np.arange(self.rows, self.highs.getNumRow(), dtype=np.int32)
            self.highs.deleteRows(len(added), added)

    def _answer(self) -> Answer:
        status = self.highs.getModelStatus()
        kinds = highspy.HighsModelStatus
        if status == kinds.kInfeasible:
            return Answer()
        if status == kinds.kOptimal:
            return Answer(np.array(self.highs.getSolution().col_value))
        if status == kinds.kTimeLimit:
            return Answer(why="out of time")
        if status in (kinds.kSolutionLimit, kinds.kIterationLimit):
            return Answer(why="out of nodes")
        return Answer(why=f"the solver gave up: {self.highs.modelStatusToString(status)}")


def quiet() -> highspy.Highs:
    """HiGHS on one thread, saying nothing."""
    with _no_banner():
        highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.silent()
    highs.setOptionValue("threads", 1)
    return highs


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


def settle(program: Program, point: Floats, goal: tuple[Floats, float]) -> Floats | None:
    """The point with every unit on the piece that it has at `point`, as far into the goal as can
    be; None where there is none. program: with a margin, so that no unit is within rounding of the
    end of its piece."""
    model = program.model()
    lower, upper = np.array(program.lower), np.array(program.upper)
    lower[program.integers] = upper[program.integers] = np.round(point[program.integers])
    model.col_lower_, model.col_upper_ = lower, upper
    model.integrality_ = [highspy.HighsVarType.kContinuous] * len(lower)
    model.col_cost_ = -goal[0]
    highs = quiet()
    highs.passModel(model)
    for _ in range(CUTS):
        highs.run()
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        found = np.array(highs.getSolution().col_value)
        outside = program.region.tangent(found[: len(program.region.low)])
        if outside is None:
            break
        used = np.flatnonzero(outside[0]).astype(np.int32)
        highs.addRow(-highspy.kHighsInf, outside[1], len(used), used, outside[0][used])
    return found
