"""The mixed-integer program of an image: pixels of the ball, and one binary for each piece of each
unit that is not settled. Solved by HiGHS.

Tjeng, Xiao and Tedrake 2019 (arXiv 1711.07356) for relu; here for any unit made of pieces. With
m_k = 1 on the piece that p lies on, and P_k = p there and 0 elsewhere,

    p = sum P_k,   low_k m_k <= P_k <= high_k m_k,   sum m_k = 1,
    output = sum slope_k P_k + offset_k m_k + [0, width_k m_k]:

the convex hull of the pieces once m may be any share. Where all slopes are zero P is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import highspy
import numpy as np

from robench.proofs.bounds import StageBounds
from robench.proofs.highs import INFINITE, Row, linear
from robench.proofs.reading import PIXELS, Reading
from robench.proofs.region import AroundL1, Region
from robench.proofs.units import Floats, Pieces

TOLERANCE = 1e-6
"""Slack beside rounding in every constraint that ties p to its inputs: above the solver's own."""


@dataclass(frozen=True)
class Choice:
    """The binaries of one unit: columns of m_1, ... (m_0 is what is left of 1), and its pieces."""

    stage: int
    unit: int
    columns: tuple[int, ...]
    pieces: Pieces


class Program:
    """The program without a goal: everything that the network may do in the ball.

    Args:
        margin: how far p must stay from the ends of its piece, in units of its rounding: 0 to
            prove, where both sides of a jump are allowed within rounding; 1 or more to find a
            point that stays what it is in float32.
        keep: the classes that are asked about, as far as the last layer goes; None: all.
    """

    def __init__(
        self,
        reading: Reading,
        bounds: list[StageBounds],
        region: Region,
        margin: float = 0.0,
        keep: set[int] | None = None,
    ) -> None:
        self.reading, self.bounds, self.margin, self.keep = reading, bounds, margin, keep
        self.region = region
        self.lower: list[float] = region.low.tolist()
        self.upper: list[float] = region.high.tolist()
        self.integers: list[int] = []
        self.choices: list[Choice] = []
        self._rows: list[Row] = []
        self.p: tuple[Floats, Floats]
        """Of the last stage, p as (coefficients of all columns, constant), a row for each unit."""
        self._outputs: list[list[tuple[Floats, Floats]]] = []
        self._build()

    # -- columns and rows ---------------------------------------------------------------------

    def _column(self, low: float, high: float, integer: bool = False) -> int:
        self.lower.append(low)
        self.upper.append(high)
        if integer:
            self.integers.append(len(self.lower) - 1)
        return len(self.lower) - 1

    def _row(self, columns: list[int], values: list[float], low: float, high: float) -> None:
        self._rows.append((columns, values, low, high))

    def _build(self) -> None:
        reading, pixels = self.reading, self.reading.pixels
        self._rows += rows_of(self.region, self._column)
        for number, stage in enumerate(reading.stages):
            constant, terms = stage.bias.copy(), np.zeros((stage.size, len(self.lower)))
            for source in stage.sources:
                if source.stage == PIXELS:
                    assert source.matrix is not None
                    terms[:, :pixels] += reading.scale * source.matrix
                    constant = constant + (reading.shift * source.matrix).sum(1)
                    continue
                coefficients, offsets = self._outputs[source.stage][source.output]
                if source.matrix is not None:
                    coefficients, offsets = (
                        source.matrix @ part for part in (coefficients, offsets)
                    )
                terms[:, : coefficients.shape[1]] += coefficients
                constant = constant + offsets
            self._stage(number, terms, constant)

    def _stage(self, number: int, terms: Floats, constant: Floats) -> None:
        stage, bound = self.reading.stages[number], self.bounds[number]
        made: list[list[tuple[dict[int, float], float]]] = []
        potentials: list[tuple[dict[int, float], float]] = []
        for unit in range(stage.size):
            p_low, p_high = float(bound.low[unit]), float(bound.high[unit])
            pieces = stage.unit.pieces(p_low, p_high)
            last = number == len(self.reading.stages) - 1
            if stage.answers and self.keep is not None and unit not in self.keep:
                made.append([({}, 0.0)] * stage.unit.outputs)
                potentials.append(({}, 0.0))
                continue
            if len(pieces) == 1 and not pieces.slope.any() and not pieces.width.any() and not last:
                made.append([({}, float(value)) for value in pieces.offset[0]])
                continue
            p = self._column(p_low, p_high)
            used = np.flatnonzero(terms[unit])
            slack = 0.0 if self.margin else float(bound.rounding[unit]) + TOLERANCE
            self._row(
                [*used.tolist(), p],
                [*terms[unit, used].tolist(), -1.0],
                -float(constant[unit]) - slack,
                -float(constant[unit]) + slack,
            )
            potentials.append(({p: 1.0}, 0.0))
            made.append(self._unit(number, unit, p, pieces, float(bound.rounding[unit])))
        width = len(self.lower)
        self._outputs.append(
            [_rows([outputs[j] for outputs in made], width) for j in range(stage.unit.outputs)]
        )
        if number == len(self.reading.stages) - 1:
            self.p = _rows(potentials, width)

    def _unit(
        self, stage: int, unit: int, p: int, pieces: Pieces, rounding: float
    ) -> list[tuple[dict[int, float], float]]:
        """The outputs of one unit, as columns with coefficients, and constants."""
        count, outputs = pieces.slope.shape
        shares = [self._column(0.0, 1.0, integer=True) for _ in range(count - 1)]
        if count > 1:
            self.choices.append(Choice(stage, unit, tuple(shares), pieces))
        if count > 2:
            self._row(shares, [1.0] * len(shares), -INFINITE, 1.0)
        keep = self.margin * (rounding + TOLERANCE)
        low, high = pieces.low + keep, pieces.high - keep
        low[0] -= keep  # nothing jumps at the ends of the ball
        high[-1] += keep
        parts: list[int] = []
        if pieces.slope.any() and count > 1:
            for share, a, b in zip(shares, low[1:], high[1:], strict=True):
                part = self._column(min(0.0, float(a)), max(0.0, float(b)))
                self._row([part, share], [1.0, -float(a)], 0.0, INFINITE)
                self._row([part, share], [1.0, -float(b)], -INFINITE, 0.0)
                parts.append(part)
            # What is left of p lies on the first piece: low_0 m_0 <= p - sum P <= high_0 m_0.
            rest = [p, *parts, *shares]
            ones = [1.0] + [-1.0] * len(parts)
            for end, (least, most) in (
                (float(low[0]), (float(low[0]), INFINITE)),
                (float(high[0]), (-INFINITE, float(high[0]))),
            ):
                self._row(rest, ones + [end] * len(shares), least, most)
        elif count > 1:
            for ends, (least, most) in (
                (low, (float(low[0]), INFINITE)),
                (high, (-INFINITE, float(high[0]))),
            ):
                steps = [float(ends[0] - end) for end in ends[1:]]
                self._row([p, *shares], [1.0, *steps], least, most)
        expressions: list[tuple[dict[int, float], float]] = []
        for j in range(outputs):
            first = float(pieces.slope[0, j])
            terms = {p: first} if first else {}
            for k, share in enumerate(shares, start=1):
                terms[share] = float(pieces.offset[k, j] - pieces.offset[0, j])
                if parts:
                    terms[parts[k - 1]] = float(pieces.slope[k, j]) - first
            if pieces.width.any():
                terms[self._band(pieces.width, shares)] = 1.0
            expressions.append((terms, float(pieces.offset[0, j])))
        return expressions

    def _band(self, width: Floats, shares: list[int]) -> int:
        """A column in [0, sum width_k m_k]."""
        band = self._column(0.0, float(width.max()))
        if shares:
            steps = [float(width[0] - w) for w in width[1:]]
            self._row([band, *shares], [1.0, *steps], -INFINITE, float(width[0]))
        return band

    # -- the solver's form ----------------------------------------------------------------------

    def lead(self, target: int, label: int) -> tuple[Floats, float]:
        """p of `target` minus that of `label` in the last stage: coefficients, constant."""
        coefficients, constants = self.p
        constant = float(constants[target] - constants[label])
        return coefficients[target] - coefficients[label], constant

    def votes(self, target: int, label: int) -> tuple[Floats, float]:
        """By how many counted outputs `target` is ahead of `label`: coefficients, constant."""
        total, constant = np.zeros(len(self.lower)), 0.0
        for stage, output in self.reading.votes:
            coefficients, constants = self._outputs[stage][output]
            total[: coefficients.shape[1]] += coefficients[target] - coefficients[label]
            constant += float(constants[target] - constants[label])
        return total, constant

    def model(self) -> highspy.HighsLp:
        """All columns and rows, with no objective."""
        lp = linear(self.lower, self.upper, self._rows)
        kinds = [highspy.HighsVarType.kContinuous] * len(self.lower)
        for column in self.integers:
            kinds[column] = highspy.HighsVarType.kInteger
        lp.integrality_ = kinds
        return lp


def rows_of(region: Region, column: Callable[[float, float], int]) -> list[Row]:
    """What a program needs beside the box of the pixels, which are its first columns: of l1 how far
    each of them goes at least, and that this adds up to no more than eps."""
    if not isinstance(region, AroundL1):
        return []
    made: list[Row] = []
    far: list[int] = []
    for pixel in np.flatnonzero(region.high > region.low).tolist():
        at = float(region.centre[pixel])
        far.append(column(0.0, max(float(region.up[pixel]), -float(region.down[pixel]))))
        made.append(([pixel, far[-1]], [1.0, -1.0], -INFINITE, at))
        made.append(([pixel, far[-1]], [1.0, 1.0], at, INFINITE))
    if far:
        made.append((far, [1.0] * len(far), -INFINITE, region.eps))
    return made


def _rows(expressions: list[tuple[dict[int, float], float]], width: int) -> tuple[Floats, Floats]:
    coefficients = np.zeros((len(expressions), width))
    for row, (terms, _) in enumerate(expressions):
        for column, value in terms.items():
            coefficients[row, column] = value
    return coefficients, np.array([constant for _, constant in expressions])
