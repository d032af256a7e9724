"""The mixed-integer program, solved: is there a point of the ball that a class wins at? Infeasible
proves that there is none."""

from __future__ import annotations

import time
from dataclasses import dataclass

import highspy
import numpy as np

from robench.proofs.highs import INFINITE, NOTHING, SOLVED, add, passed, run, solution
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
        self.highs = passed(program.model())
        for option, value in (
            ("parallel", "off"),
            ("random_seed", 0),
            ("mip_max_nodes", nodes),
            ("primal_feasibility_tolerance", 1e-8),
            ("mip_feasibility_tolerance", 1e-7),
        ):
            self.highs.setOptionValue(option, value)

    def ask(self, goal: Goal) -> Answer:
        """Whether all rows of a goal can hold at once. A point that lies outside the ball, which
        the program does not know whole, is cut off, and the program is asked again."""
        for _ in range(CUTS):
            answer = self._ask(goal)
            if answer.point is None:
                return answer
            outside = self.program.region.tangent(answer.point[: self.program.reading.pixels])
            if outside is None:
                return answer
            add(self.highs, outside[0], -INFINITE, outside[1])
        return answer

    def _ask(self, goal: Goal) -> Answer:
        left = self.until - time.monotonic()
        if left <= 0:
            return Answer(why="out of time")
        before = self.highs.getNumRow()
        for coefficients, least in goal:
            add(self.highs, coefficients, least, INFINITE)
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + left)
        try:
            self.highs.run()
            return self._answer()
        finally:
            added = np.arange(before, self.highs.getNumRow(), dtype=np.int32)
            self.highs.deleteRows(len(added), added)

    def _answer(self) -> Answer:
        status = self.highs.getModelStatus()
        kinds = highspy.HighsModelStatus
        if status == NOTHING:
            return Answer()
        if status == SOLVED:
            return Answer(solution(self.highs))
        if status == kinds.kTimeLimit:
            return Answer(why="out of time")
        if status in (kinds.kSolutionLimit, kinds.kIterationLimit):
            return Answer(why="out of nodes")
        return Answer(why=f"the solver gave up: {self.highs.modelStatusToString(status)}")


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
    highs = passed(model)
    return solution(highs) if run(highs, program.region) == SOLVED else None
