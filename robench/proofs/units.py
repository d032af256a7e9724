"""What a unit makes of its pre-activation, as pieces: on each closed interval a line or a constant.

Neighbouring pieces share their end: there both sides are allowed, so that a proof holds whichever
side rounding falls on. A curved activation is a line and a width: the band between two parallel
lines that holds the curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIGMOID_ERROR = 1e-6
"""By how much a float32 sigmoid may be off: a few units in the last place of 1, and to spare."""

WIDEST = 0.02
"""Band of a sigmoid's piece before it is cut in two."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one unit on an interval of its pre-activation p.

    On piece k, p lies in [low[k], high[k]] and output j in
    slope[k, j] p + offset[k, j] + [0, width[k]].
    """

    low: Floats
    high: Floats
    slope: Floats
    offset: Floats
    width: Floats

    def __len__(self) -> int:
        return len(self.low)

    def outputs(self) -> tuple[Floats, Floats]:
        """The least and the greatest of each output on each piece, (pieces, outputs)."""
        ends = np.stack([self.slope * self.low[:, None], self.slope * self.high[:, None]])
        ends = ends + self.offset
        return ends.min(0), ends.max(0) + self.width[:, None]


class Unit:
    """A function of one number with `outputs` values."""

    outputs = 1

    def breaks(self, low: float, high: float) -> list[float]:
        """Where its pieces end, inside (low, high)."""
        raise NotImplementedError

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        """Slopes, offsets and width of the piece between two neighbouring breaks."""
        raise NotImplementedError

    def pieces(self, low: float, high: float) -> Pieces:
        """All pieces on [low, high]."""
        inner = [b for b in self.breaks(low, high) if low <= b <= high]
        ends = [low, *inner, high]
        rows = [(a, b, *self.line(a, b)) for a, b in pairwise(ends) if b > a or len(ends) == 2]
        lows, highs, slopes, offsets, widths = zip(*rows, strict=True)
        return Pieces(
            np.array(lows), np.array(highs), np.array(slopes), np.array(offsets), np.array(widths)
        )


class Identity(Unit):
    """The pre-activation itself: a logit, a potential."""

    def breaks(self, low: float, high: float) -> list[float]:
        return []

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        return [1.0], [0.0], 0.0


class PiecewiseLinear(Unit):
    """Lines between fixed breaks: relu, abs, threshold, sign, staircase.

    Args:
        at: the breaks, rising.
        slopes, offsets: of the pieces before, between and after them.
    """

    def __init__(self, at: list[float], slopes: list[float], offsets: list[float]) -> None:
        self.at, self.slopes, self.offsets = at, slopes, offsets

    def breaks(self, low: float, high: float) -> list[float]:
        return self.at

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        place = sum(0.5 * (low + high) > at for at in self.at)
        return [self.slopes[place]], [self.offsets[place]], 0.0


class Sigmoid(Unit):
    """1 / (1 + exp(-p)) in bands between parallel lines, cut at the inflection."""

    def breaks(self, low: float, high: float) -> list[float]:
        ends = [low, 0.0, high] if low < 0 < high else [low, high]
        places: list[float] = []
        for a, b in pairwise(ends):
            parts = 1
            while parts < 64 and self._widest(a, b, parts) > WIDEST:
                parts *= 2
            places += [a + (b - a) * part / parts for part in range(parts)]
        return places[1:]

    def _widest(self, low: float, high: float, parts: int) -> float:
        step = (high - low) / parts
        return max(self.line(low + i * step, low + (i + 1) * step)[2] for i in range(parts))

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        """The chord and the tangent parallel to it, on an interval that does not cross 0."""
        at = _sigmoid(low)
        if high - low < 1e-9:
            return [0.0], [at - SIGMOID_ERROR], high - low + 2 * SIGMOID_ERROR
        slope = (_sigmoid(high) - at) / (high - low)
        chord = at - slope * low
        # The derivative s (1 - s) equals the slope at s = (1 +- sqrt(1 - 4 slope)) / 2.
        root = math.sqrt(max(0.0, 1 - 4 * slope))
        touch = (1 + root) / 2 if low + high > 0 else (1 - root) / 2
        touch = min(max(touch, 1e-300), 1 - 1e-16)
        p = min(max(math.log(touch / (1 - touch)), low), high)
        tangent = _sigmoid(p) - slope * p
        floor, ceiling = min(chord, tangent), max(chord, tangent)
        return [slope], [floor - SIGMOID_ERROR], ceiling - floor + 2 * SIGMOID_ERROR


class SpikeTrain(Unit):
    """The spikes of a leaky integrate-and-fire neuron whose current p is the same at all steps.

    After m steps since its last spike the potential is p (1 + k + ... + k^(m-1)), so that it first
    passes the threshold at the least m with p above a break of its own, and then every m steps.
    """

    def __init__(self, steps: int, decay: float, threshold: float) -> None:
        self.outputs = steps
        self._passages = [_passage(m, decay, threshold) for m in range(1, steps + 1)]

    def breaks(self, low: float, high: float) -> list[float]:
        return sorted(set(self._passages))

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        current = 0.5 * (low + high)
        passed = (m for m, at in enumerate(self._passages, start=1) if current > at)
        period = next(passed, self.outputs + 1)
        spikes = [float(step % period == 0) for step in range(1, self.outputs + 1)]
        return [0.0] * self.outputs, spikes, 0.0


class Membrane(Unit):
    """A neuron at one step: whether its potential p fires, and what is left of it for the next."""

    outputs = 2

    def __init__(self, decay: float, threshold: float) -> None:
        self.decay, self.threshold = float(np.float32(decay)), float(np.float32(threshold))

    def breaks(self, low: float, high: float) -> list[float]:
        return [self.threshold]

    def line(self, low: float, high: float) -> tuple[list[float], list[float], float]:
        if 0.5 * (low + high) > self.threshold:
            return [0.0, 0.0], [1.0, 0.0], 0.0
        return [0.0, self.decay], [0.0, 0.0], 0.0


def sigmoid(p: Floats) -> Floats:
    """1 / (1 + exp(-p)), element by element."""
    share: Floats = 1 / (1 + np.exp(-np.clip(p, -500, 500)))
    return share


def _sigmoid(p: float) -> float:
    return 1 / (1 + math.exp(-p)) if p > -700 else 0.0


def _passage(steps: int, decay: float, threshold: float) -> float:
    """The greatest float32 current with which a neuron does not fire within so many steps, by the
    recurrence of networks/lif.py in float32: each of its operations never falls with the current.
    Infinity where none fires."""
    k, limit = np.float32(decay), np.float32(threshold)

    def fires(current: np.float32) -> bool:
        u = current
        for _ in range(steps - 1):
            u = current + k * u
        return bool(u > limit)

    low, high = -abs(limit) - np.float32(1), abs(limit) + np.float32(1)
    if not fires(high) or fires(low):
        return math.inf
    while True:
        middle = (low + high) / np.float32(2)
        if middle in (low, high):
            return float(low)
        low, high = (low, middle) if fires(middle) else (middle, high)


THIRD, TWO_THIRDS = float(np.float32(1) / np.float32(3)), float(np.float32(2) / np.float32(3))


PIECEWISE: dict[str, tuple[list[float], list[float], list[float]]] = {
    "relu": ([0.0], [0.0, 1.0], [0.0, 0.0]),
    "abs": ([0.0], [-1.0, 1.0], [0.0, 0.0]),
    "threshold": ([0.0], [0.0, 0.0], [0.0, 1.0]),
    "sign": ([0.0], [0.0, 0.0], [-1.0, 1.0]),
    "staircase": ([-2.0, 0.0, 2.0], [0.0] * 4, [0.0, THIRD, TWO_THIRDS, 1.0]),
}
"""Breaks, slopes and offsets of what networks/mlp.py calls by these names."""


def unit(activation: str) -> Unit | None:
    """What networks/mlp.py calls by this name; None: it has no pieces here."""
    if activation == "sigmoid":
        return Sigmoid()
    return PiecewiseLinear(*PIECEWISE[activation]) if activation in PIECEWISE else None
