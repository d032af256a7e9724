"""What the ball lets every unit do: intervals of its pre-activation and outputs, rounding included.

A float32 sum of n terms differs from the true one by at most gamma = n u / (1 - n u) times the sum
of the terms' sizes, u = 2^-24, in whatever order it is added up (Higham 2002, section 4.2). So each
pre-activation is known to within a radius of its own, and the interval is that much wider: a proof
made of these intervals holds for every rounding of the real network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench.proofs.reading import PIXELS, Reading, Source
from robench.proofs.region import UNIT, Region, gamma
from robench.proofs.units import Floats, sigmoid

TINY = 1e-9
"""Added to every radius: what float64 rounds here, by far."""
READ_APART = 1000 * (2 * UNIT + 2 * 1e-9) * 1.01
"""Sigmoids that are read apart for sure from others, thousandths of them being added to a number
below 2: there float32 is off by at most 2^-24 each, and a sigmoid by 1e-6."""
RELATIVE_TO = 70
"""How far below 0 a sigmoid's relative error is still that of a normal float32."""


@dataclass(frozen=True)
class StageBounds:
    """Of one stage, unit by unit.

    low, high: of p, (units,), `rounding` included. out_low, out_high: (units, outputs).
    """

    low: Floats
    high: Floats
    rounding: Floats
    out_low: Floats
    out_high: Floats


def intervals(reading: Reading, region: Region) -> list[StageBounds]:
    """Interval bounds of all stages for the points of a ball."""
    seen = (reading.scale * region.low + reading.shift, reading.scale * region.high + reading.shift)
    stages: list[StageBounds] = []
    for stage in reading.stages:
        total_low, total_high = stage.bias.copy(), stage.bias.copy()
        size: Floats = np.abs(stage.bias)
        for source in stage.sources:
            a, b = seen if source.stage == PIXELS else _outputs(stages, source)
            if source.matrix is None:
                total_low, total_high = total_low + a, total_high + b
                size = size + np.maximum(np.abs(a), np.abs(b))
                continue
            centre = source.matrix @ ((a + b) / 2)
            down = up = np.abs(source.matrix) @ ((b - a) / 2)
            if source.stage == PIXELS and not region.box:
                down, up = (region.reach(s * reading.scale * source.matrix) for s in (-1.0, 1.0))
            total_low, total_high = total_low + centre - down, total_high + centre + up
            size = size + np.abs(source.matrix) @ np.maximum(np.abs(a), np.abs(b))
        rounding = gamma(stage.operations) * size + TINY * (1 + size)
        total_low, total_high = total_low - rounding, total_high + rounding
        outs = [
            stage.unit.pieces(a, b).outputs()
            for a, b in zip(total_low.tolist(), total_high.tolist(), strict=True)
        ]
        stages.append(
            StageBounds(
                total_low,
                total_high,
                rounding,
                np.array([floor.min(0) for floor, _ in outs]),
                np.array([ceiling.max(0) for _, ceiling in outs]),
            )
        )
    return stages


def _outputs(found: list[StageBounds], source: Source) -> tuple[Floats, Floats]:
    stage = found[source.stage]
    return stage.out_low[:, source.output], stage.out_high[:, source.output]


def lead(reading: Reading, bounds: list[StageBounds], label: int, region: Region) -> Floats:
    """The most by which the last p of each class can exceed that of `label`, (classes,): taken
    together, so that what lifts both cancels."""
    last, stage = bounds[-1], reading.stages[-1]
    most = stage.bias - stage.bias[label] + last.rounding + last.rounding[label]
    for source in stage.sources:
        if source.stage == PIXELS:
            a, b = (reading.scale * end + reading.shift for end in (region.low, region.high))
        else:
            a, b = _outputs(bounds, source)
        if source.matrix is None:
            most = most + b - a[label]
            continue
        difference = source.matrix - source.matrix[label]
        if source.stage == PIXELS and not region.box:
            reach = region.reach(reading.scale * difference)
        else:
            reach = np.abs(difference) @ ((b - a) / 2)
        most = most + difference @ ((a + b) / 2) + reach
    least: Floats = np.minimum(most, last.high - last.low[label])
    least[label] = 0.0
    return least


def tie(reading: Reading, bounds: list[StageBounds], label: int) -> Floats:
    """By how much the last p of `label` may lead that of each class and the answer still be that
    class, (classes,)."""
    last = bounds[-1]
    return tie_slack(reading, last.low, last.high, last.low[label], last.high[label])


def tie_slack(
    reading: Reading, low: Floats, high: Floats, label_low: Floats, label_high: Floats
) -> Floats:
    """By how much the last p of the right class may lead that of another and their answers still
    tie or be the other way round: where p is read through a squashing that float32 rounds.

    Args:
        low, high: p of the other class; label_low, label_high: of the right one.
    """
    if reading.squashed is None:
        return np.zeros_like(high)
    lowest = np.minimum(low, label_low) - reading.squashed
    if reading.votes:
        highest = np.maximum(high, label_high) - reading.squashed
        return READ_APART / np.maximum(np.minimum(_rise(lowest), _rise(highest)), 1e-300)
    # Both above the threshold: 1 + sigmoid / 1000, read to within what float32 rounds near 1. As
    # the sigmoid flattens, the slack is widest where both are as high as both can be.
    other, own = high - reading.squashed, label_high - reading.squashed
    top = np.minimum(other, _logit(sigmoid(own) - READ_APART))
    above = _logit(sigmoid(top) + READ_APART) - top
    # Neither above it: sigmoid / 1000 alone, whose relative error is that of a few roundings and of
    # p - threshold in the exponent; log sigmoid rises by at least 1/2. One above, one not: no tie.
    below = np.where(lowest > -RELATIVE_TO, 4 * gamma(8 + RELATIVE_TO), np.inf)
    slack: Floats = np.maximum(np.where(np.minimum(other, own) > 0, above, 0.0), below) + TINY
    return slack


def _rise(p: Floats) -> Floats:
    return sigmoid(p) * (1 - sigmoid(p))


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, 1e-15, 1 - 1e-15)
    return np.where(share < 1 - 1e-15, np.log(inside / (1 - inside)), np.inf)
