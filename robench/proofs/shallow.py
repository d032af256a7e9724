"""Networks with one layer of hidden units, image by image: what a bound on them is made of.

A wrong class t leads the right one y by at most a sum over the hidden units of functions of their
pre-activations alone,

    lead <= sum_i F_i(p_i) + constant,   F_i(p) = sum_d alpha_id output_d(p),

exactly so for a perceptron. Of spiking outputs, u[t+1] = c[t+1] + g(u[t]) with g(u) = k u below the
threshold and 0 above it, g is held between two lines wherever a node leaves both sides open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robench.proofs.bounds import StageBounds, tie, tie_slack
from robench.proofs.reading import Reading, Source
from robench.proofs.region import Region
from robench.proofs.units import SIGMOID_ERROR, Floats, Membrane, Sigmoid, sigmoid

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Nodes:
    """A batch of boxes of pre-activations: low, high (nodes, units); target (nodes,)."""

    low: Floats
    high: Floats
    target: Ints


@dataclass(frozen=True)
class Functional:
    """A bound of the lead in each node: sum_i F_i(p_i) + constant >= threshold is needed to win.

    slope, offset: (nodes, units, pieces) of F_i on each piece; curve: (nodes, units), the factor of
    a sigmoid, or None.
    """

    slope: Floats
    offset: Floats
    curve: Floats | None
    constant: Floats
    threshold: Floats


def shallow(reading: Reading) -> bool:
    """Whether this file can do without a program: one hidden layer, answers by the last p."""
    return not reading.votes and all(
        source.stage <= 0 or source.matrix is None
        for stage in reading.stages
        for source in stage.sources
    )


class Shallow:
    """One image's view of such a network: its open units, what the rest adds up to.

    Args:
        bounds: intervals of all stages in the ball.
    """

    def __init__(
        self, reading: Reading, bounds: list[StageBounds], label: int, region: Region
    ) -> None:
        self.reading, self.bounds, self.label = reading, bounds, label
        hidden, first, matrix = reading.stages[0], bounds[0], reading.first
        self.sigmoid = isinstance(hidden.unit, Sigmoid)
        pieces = hidden.unit.pieces(-1e9, 1e9) if not self.sigmoid else None
        if pieces is not None:
            self.ends = np.stack([pieces.low, pieces.high])
            self.slopes, self.offsets = pieces.slope, pieces.offset  # (pieces, outputs)
            inside = (self.ends[0] < first.high[:, None]) & (self.ends[1] > first.low[:, None])
            one = inside.sum(1) == 1
            self.undecided = int((~one).sum())
            settled = one & ~(self.slopes.any(1) & inside).any(1)
            which = inside.argmax(1)
            constant = np.where(settled[:, None], self.offsets[which], 0.0)
        else:
            settled = np.zeros(hidden.size, dtype=bool)
            constant = np.zeros((hidden.size, 1))
            self.undecided = hidden.size
        self.units = np.flatnonzero(~settled)
        self.low, self.high = first.low[self.units], first.high[self.units]
        self.width = np.maximum(self.high - self.low, 1e-9)
        self.rounding = first.rounding[self.units]
        self.weight = np.ascontiguousarray(reading.scale * matrix[self.units])
        self.bias = hidden.bias[self.units] + (reading.shift * matrix[self.units]).sum(1)
        self.region, self.middle = region, region.middle
        self._quiet = not constant.any()
        self._outputs(constant)

    def silent(self, piece: Ints) -> bool:
        """Whether no neuron of a spiking network fires at all: then all outputs are exactly 0.
        piece: the one that each open unit is on."""
        return self.membrane is not None and self._quiet and not self.offsets[piece].any()

    def _outputs(self, constant: Floats) -> None:
        """The output layer: weights of the open units, and what the settled ones add."""
        stages = self.reading.stages[1:]
        source = _from_hidden(stages[0].sources)
        assert source.matrix is not None
        self.out = source.matrix[:, self.units]  # (classes, units)
        self.base = np.stack(  # (steps, classes)
            [
                stage.bias + source.matrix @ constant[:, _from_hidden(stage.sources).output]
                for stage in stages
            ]
        )
        self.slack = np.stack([bound.rounding for bound in self.bounds[1:]])
        settled = np.abs(constant[:, source.output])
        self.still = np.abs(stages[0].bias) + np.abs(source.matrix) @ settled
        """Of each class, the sizes of what a perceptron's answer adds up everywhere, (classes,)."""
        self.tie = tie(self.reading, self.bounds, self.label)
        self.membrane = next((s.unit for s in stages if isinstance(s.unit, Membrane)), None)

    # -- nodes ----------------------------------------------------------------------------------

    def clipped(self, nodes: Nodes) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Ends of the pieces inside each node, and which there are: (nodes, units, pieces)."""
        low = np.maximum(self.ends[0], nodes.low[:, :, None])
        high = np.minimum(self.ends[1], nodes.high[:, :, None])
        return low, high, low < high  # what is shared by two pieces belongs to either child

    def steepness(self, goal: Functional) -> Floats:
        """By how much each unit changes the lead as its pre-activation crosses the ball, per unit
        of it, (nodes, units): the size that multipliers naturally have. Of the whole ball and not
        of a node's box, in which a unit may no longer change and its ends still matter."""
        if goal.curve is not None:
            rise = np.abs(goal.curve) * (sigmoid(self.high) - sigmoid(self.low))
        else:
            low = np.maximum(self.ends[0], self.low[:, None])
            high = np.minimum(self.ends[1], self.high[:, None])
            ends = np.stack([goal.slope * low, goal.slope * high]) + goal.offset
            most = np.where(low < high, ends.max(0), -np.inf).max(2)
            rise = most - np.where(low < high, ends.min(0), np.inf).min(2)
        return rise / self.width

    def functional(self, nodes: Nodes, there: NDArray[np.bool_] | None) -> Functional:
        """The bound of the lead in each node. there: which pieces are inside."""
        if self.membrane is None:
            factor = self.out[nodes.target] - self.out[self.label]
            slack = self.slack[0][nodes.target] + self.slack[0][self.label]
            constant = self.base[0][nodes.target] - self.base[0][self.label] + slack
            threshold = -self.tie[nodes.target]
            if self.sigmoid:
                constant = constant + SIGMOID_ERROR * np.abs(factor).sum(1)
                empty = np.zeros((*factor.shape, 0))
                return Functional(empty, empty, factor, constant, threshold)
            slope = factor[:, :, None] * self.slopes[:, 0]
            offset = factor[:, :, None] * self.offsets[:, 0]
            return Functional(slope, offset, None, constant, threshold)
        assert there is not None
        return self._spiking(nodes, there, self.membrane)

    def _spiking(self, nodes: Nodes, there: NDArray[np.bool_], membrane: Membrane) -> Functional:
        # Spikes that every, and that any piece inside has: (nodes, units, steps).
        spikes = self.offsets
        always = np.where(there[..., None], spikes, 1.0).min(2)
        ever = np.where(there[..., None], spikes, 0.0).max(2)
        steps = spikes.shape[1]
        rows = len(nodes.target)
        alpha = np.zeros((rows, len(self.units), steps))
        constant = np.zeros(rows)
        last: list[tuple[Floats, Floats]] = []
        for sign, classes in ((1.0, nodes.target), (-1.0, np.full(rows, self.label))):
            weight = self.out[classes]  # (nodes, units)
            up, down = np.maximum(weight, 0), np.minimum(weight, 0)
            low = self.base[:, classes].T + np.einsum("bm,bmt->bt", up, always)
            low = low + np.einsum("bm,bmt->bt", down, ever) - self.slack[:, classes].T
            high = self.base[:, classes].T + np.einsum("bm,bmt->bt", up, ever)
            high = high + np.einsum("bm,bmt->bt", down, always) + self.slack[:, classes].T
            lines: list[tuple[Floats, Floats]] = []
            a, b = low[:, 0], high[:, 0]
            for step in range(1, steps):
                left, right, slope, offset = remains(a, b, membrane, upper=sign > 0)
                lines.append((slope, offset))
                a, b = low[:, step] + left, high[:, step] + right
            last.append((a, b))
            factor = np.full(rows, sign)
            for step in reversed(range(steps)):
                alpha[:, :, step] += factor[:, None] * weight
                constant += factor * self.base[step, classes]
                constant += np.abs(factor) * self.slack[step, classes]
                if step:
                    slope, offset = lines[step - 1]
                    constant += factor * offset
                    factor = factor * slope
        (a, b), (c, d) = last
        threshold = -tie_slack(self.reading, a, b, c, d)
        offset = np.einsum("bmt,kt->bmk", alpha, spikes)
        return Functional(np.zeros_like(offset), offset, None, constant, threshold)


def _from_hidden(sources: tuple[Source, ...]) -> Source:
    return next(source for source in sources if source.matrix is not None)


def remains(
    low: Floats, high: Floats, membrane: Membrane, upper: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """What is left of a potential in [low, high] for the next step: its least and greatest, and a
    line above it (or below): slope, offset."""
    k, at = membrane.decay, membrane.threshold
    below, above = high <= at, low > at
    least = np.where(above, 0.0, np.where(below, k * low, np.minimum(k * low, 0.0)))
    most = np.where(above, 0.0, np.where(below, k * high, max(k * at, 0.0)))
    if upper:  # k u above the threshold is more than 0; k Vth is more than anything
        loose = low + high >= 2 * at  # whichever of the two is lower in the middle
        slope = np.where(above, 0.0, np.where(below | ~loose, k, 0.0))
        offset = np.where(~above & ~below & loose, k * at, 0.0)
        return least, most, slope, offset
    # The chord from (low, k low) to (high, 0), where low is negative; 0 where it is not.
    chord = np.where(low < 0, -k * low / np.maximum(high - low, 1e-12), 0.0)
    slope = np.where(above, 0.0, np.where(below, k, chord))
    offset = np.where(~above & ~below & (low < 0), -chord * high, 0.0)
    return least, most, slope, offset
