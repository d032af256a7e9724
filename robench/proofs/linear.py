"""Linear bounds through convolutions: what they settle of `cnn` and convolutional `snn` where
intervals do not.

A network is written as values that follow from earlier ones. A sum of a value's elements is held
under a linear function of the value before it, and so on backward to the pixels, where the box
gives the most that it can be (CROWN: Zhang et al. 2018, arXiv 1811.00866). Units are held between
two lines; where a unit is not settled, its interval is narrowed by such a bound of its own first.
Intervals hold what the real network computes in float32, and so do these bounds: whatever rounding
may add to a product is added wherever a sum passes it, which is far more than float64 loses here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import thread_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from robench.proofs.units import SIGMOID_ERROR, Floats, Pieces

ROWS = 128
"""Sums that are carried backward together."""
NARROW = 1e-6
"""Intervals no wider than this get no sloping line."""
SAFE = 1e-9
"""Added to every line: what float64 rounds in it, by far."""


@dataclass(frozen=True)
class Box:
    """An interval for each value, (1, ...)."""

    low: Tensor
    high: Tensor

    def size(self) -> Tensor:
        """The greatest absolute value of each."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def wider(self, by: Tensor | float) -> Box:
        return Box(self.low - by, self.high + by)

    def within(self, other: Box) -> Box:
        return Box(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))


Parts = tuple[list[tuple["Value", Tensor]], Tensor]
"""What is left of a sum before a value: coefficients of earlier values, and constants, (rows,)."""


@dataclass(eq=False)
class Value:
    """Numbers of a network, in the order in which they follow from each other.

    back: coefficients of these numbers, (rows, ...) -> what is above their sum.
    """

    number: int
    box: Box
    back: Callable[[Tensor], Parts] | None = None


@dataclass(frozen=True)
class Lines:
    """Slope and offset of a line above a unit on its interval, and of one below, (1, ...)."""

    above: tuple[Tensor, Tensor]
    below: tuple[Tensor, Tensor]


@dataclass
class Net:
    """A network in a box of pixels.

    Args:
        units: a layer with more unsettled units than this keeps the intervals that it has.
        until: time.thread_time() after which intervals are not narrowed any more.
        reach: how far sums of pixels, (rows, pixels), exceed their value in the middle of the box,
            where a ball holds them nearer than that box does.
    """

    units: int
    until: float
    reach: Callable[[Floats], Floats] | None = None
    values: list[Value] = field(default_factory=list)

    def pixels(self, box: Box) -> Value:
        return self._add(box, None)

    def _add(self, box: Box, back: Callable[[Tensor], Parts] | None) -> Value:
        self.values.append(Value(len(self.values), box, back))
        return self.values[-1]

    def product(self, op: nn.Module, of: Value, box: Box, rounding: Tensor) -> Value:
        """A linear layer or an average. box: of its answers, `rounding` included."""

        def back(a: Tensor) -> Parts:
            constant = (a.abs() * rounding).flatten(1).sum(1)
            if isinstance(op, nn.Linear):
                before = a @ op.weight.double()
            elif isinstance(op, nn.Conv2d):
                shape = torch.Size((len(a), *of.box.low.shape[1:]))
                weight, ways = op.weight.double(), (op.stride, op.padding, op.dilation, op.groups)
                before = conv2d_input(shape, weight, a, *ways)  # type: ignore[no-untyped-call]
            else:
                x = a.new_zeros(len(a), *of.box.low.shape[1:]).requires_grad_()
                with torch.enable_grad():
                    (before,) = torch.autograd.grad(op(x), x, a)
            bias = getattr(op, "bias", None)
            if bias is not None:
                constant = constant + (a.flatten(2).sum(2) if a.dim() > 2 else a) @ bias.double()
            return [(of, before)], constant

        return self._add(box, back)

    def total(self, parts: list[Value], box: Box, rounding: Tensor) -> Value:
        """A sum of values. box: `rounding` included."""

        def back(a: Tensor) -> Parts:
            return [(part, a) for part in parts], (a.abs() * rounding).flatten(1).sum(1)

        return self._add(box, back)

    def unit(self, of: Value, box: Box, lines: Lines) -> Value:
        """What units make of a value."""
        (up, over), (down, under) = lines.above, lines.below

        def back(a: Tensor) -> Parts:
            plus, minus = a.clamp(min=0), a.clamp(max=0)
            constant = (plus * over + minus * under).flatten(1).sum(1)
            return [(of, plus * up + minus * down)], constant

        return self._add(box, back)

    def greatest(self, of: Value, pool: nn.MaxPool2d) -> Value:
        """The largest of each few neighbours: at least the one that can fall least; no more than it
        where it is above all others, else than whatever any can be."""
        low, where = F.max_pool2d(of.box.low, pool.kernel_size, return_indices=True)
        others = of.box.high.flatten(2).scatter(2, where.flatten(2), -torch.inf)
        rivals = F.max_pool2d(others.view_as(of.box.high), pool.kernel_size)
        high = F.max_pool2d(of.box.high, pool.kernel_size)
        alone = (rivals <= low).double()

        def back(a: Tensor) -> Parts:
            plus, minus = a.clamp(min=0), a.clamp(max=0)
            constant = (plus * (1 - alone) * high).flatten(1).sum(1)
            through = (plus * alone + minus).flatten(2)
            before = a.new_zeros(len(a), *of.box.low.shape[1:]).flatten(2)
            before.scatter_(2, where.flatten(2).expand_as(through), through)
            return [(of, before.view(len(a), *of.box.low.shape[1:]))], constant

        return self._add(Box(low, high), back)

    def flat(self, of: Value) -> Value:
        def back(a: Tensor) -> Parts:
            return [(of, a.view(len(a), *of.box.low.shape[1:]))], a.new_zeros(len(a))

        return self._add(Box(of.box.low.flatten(1), of.box.high.flatten(1)), back)

    def narrowed(self, value: Value, unsettled: Tensor) -> None:
        """Narrow the interval of each element of a value that is unsettled, (1, ...)."""
        which = torch.nonzero(unsettled.flatten())[:, 0]
        if not len(which) or len(which) > self.units:
            return
        low, high = value.box.low.flatten().clone(), value.box.high.flatten().clone()
        for rows in torch.split(which, ROWS):
            if thread_time() > self.until:
                break
            a = low.new_zeros(len(rows), low.numel())
            a[torch.arange(len(rows)), rows] = 1
            a = a.view(len(rows), *value.box.low.shape[1:])
            high[rows] = torch.minimum(high[rows], self.most([(value, a)]))
            low[rows] = torch.maximum(low[rows], -self.most([(value, -a)]))
        shape = value.box.low.shape
        value.box = Box(low.view(shape), torch.maximum(low, high).view(shape))

    def most(self, terms: list[tuple[Value, Tensor]]) -> Tensor:
        """At least the greatest of a sum, (rows,). terms: coefficients of values, (rows, ...)."""
        waiting: dict[int, Tensor] = {}
        total = terms[0][1].new_zeros(len(terms[0][1]))

        def put(value: Value, a: Tensor) -> None:
            there = waiting.get(value.number)
            waiting[value.number] = a if there is None else there + a

        for value, a in terms:
            put(value, a)
        while waiting:
            number = max(waiting)
            value, a = self.values[number], waiting.pop(number)
            if value.back is None:
                low, high = value.box.low, value.box.high
                middle, radius = (low + high) / 2, high - low
                if self.reach is not None:
                    total = total + (a * middle).flatten(1).sum(1)
                    total = total + torch.from_numpy(self.reach(a.flatten(1).numpy()))
                else:
                    total = total + (a * middle + a.abs() * radius / 2).flatten(1).sum(1)
                continue
            before, constant = value.back(a)
            total = total + constant
            for earlier, part in before:
                put(earlier, part)
        return total + SAFE


def between(pieces: Pieces, output: int, box: Box) -> Lines:
    """The lines around one output of a unit made of pieces: through the two of its corners that
    hold it up, or down, in the middle of its interval."""
    shape = (-1, *[1] * box.low.dim())
    low = torch.maximum(torch.from_numpy(pieces.low).view(shape), box.low)
    high = torch.minimum(torch.from_numpy(pieces.high).view(shape), box.high)
    slope = torch.from_numpy(pieces.slope[:, output]).view(shape)
    offset = torch.from_numpy(pieces.offset[:, output]).view(shape)
    there = torch.cat([low <= high] * 2)
    at = torch.cat([low, high])
    values = torch.cat([slope * low + offset, slope * high + offset])
    slope, offset = _above(at, -values, there, box)
    return Lines(_above(at, values, there, box), (-slope, -offset))


def _above(at: Tensor, values: Tensor, there: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """The line above corners (at, values), (corners, 1, ...), that is lowest in the middle."""
    middle = (box.low + box.high) / 2
    slope, best = torch.zeros_like(middle), torch.full_like(middle, -torch.inf)
    for i in range(len(at)):
        for j in range(len(at)):
            wide = at[j] - at[i]
            fits = there[i] & there[j] & (at[i] <= middle) & (at[j] >= middle) & (wide > NARROW)
            rise = (values[j] - values[i]) / torch.where(fits, wide, 1.0)
            height = torch.where(fits, values[i] + rise * (middle - at[i]), -torch.inf)
            slope = torch.where(height > best, rise, slope)
            best = torch.maximum(height, best)
    offset = torch.where(there, values - slope * at, -torch.inf).amax(0)
    return slope, offset + SAFE * (1 + slope.abs() * box.size())


def around_sigmoid(box: Box) -> Lines:
    """Chord and tangent where the curve bends one way; where it bends both ways, lines through its
    ends that rise no faster than it does anywhere (Singh et al. 2019, DeepPoly)."""
    low, high = box.low, box.high
    at_low, at_high = torch.sigmoid(low), torch.sigmoid(high)
    middle = (low + high) / 2
    at_middle = torch.sigmoid(middle)
    wide = high - low
    chord = torch.where(wide > NARROW, (at_high - at_low) / wide.clamp(min=NARROW), 0.0)
    tangent = at_middle * (1 - at_middle)
    least = torch.minimum(at_low * (1 - at_low), at_high * (1 - at_high))
    up = torch.where(high <= 0, chord, torch.where(low >= 0, tangent, least))
    down = torch.where(high <= 0, tangent, torch.where(low >= 0, chord, least))
    over = torch.where(low >= 0, at_middle - up * middle, at_high - up * high)
    under = torch.where(high <= 0, at_middle - down * middle, at_low - down * low)
    narrow = wide <= NARROW
    zero, spare = torch.zeros_like(low), SIGMOID_ERROR + SAFE * (1 + box.size())
    above = torch.where(narrow, zero, up), torch.where(narrow, at_high, over) + spare
    below = torch.where(narrow, zero, down), torch.where(narrow, at_low, under) - spare
    return Lines(above, below)
