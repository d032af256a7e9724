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
from robench.proofs.units import Floats

UNIT = 2.0**-24
TINY = 1e-9
"""Added to every radius: what float64 rounds here, by far."""


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


def gamma(operations: int) -> float:
    """Relative error of a float32 sum or product of so many roundings."""
    return operations * UNIT / (1 - operations * UNIT)


def intervals(
    reading: Reading,
    low: Floats,
    high: Floats,
    known: dict[tuple[int, int], tuple[float, float]] | None = None,
) -> list[StageBounds]:
    """Interval bounds of all stages for pixels in [low, high], (pixels,).

    Args:
        known: (stage, unit) -> an interval that its p lies in, from elsewhere.
    """
    seen = (reading.scale * low + reading.shift, reading.scale * high + reading.shift)
    found: list[StageBounds] = []
    for number, stage in enumerate(reading.stages):
        total_low, total_high = stage.bias.copy(), stage.bias.copy()
        size: Floats = np.abs(stage.bias)
        for source in stage.sources:
            a, b = seen if source.stage == PIXELS else _outputs(found, source)
            if source.matrix is None:
                total_low, total_high = total_low + a, total_high + b
                size = size + np.maximum(np.abs(a), np.abs(b))
                continue
            centre, radius = source.matrix @ ((a + b) / 2), np.abs(source.matrix) @ ((b - a) / 2)
            total_low, total_high = total_low + centre - radius, total_high + centre + radius
            size = size + np.abs(source.matrix) @ np.maximum(np.abs(a), np.abs(b))
        rounding = gamma(stage.operations) * size + TINY * (1 + size)
        total_low, total_high = total_low - rounding, total_high + rounding
        for (of, unit), (least, most) in (known or {}).items():
            if of == number:
                total_low[unit] = min(max(total_low[unit], least), total_high[unit])
                total_high[unit] = max(min(total_high[unit], most), total_low[unit])
        outs = [
            stage.unit.pieces(a, b).outputs()
            for a, b in zip(total_low.tolist(), total_high.tolist(), strict=True)
        ]
        found.append(
            StageBounds(
                total_low,
                total_high,
                rounding,
                np.array([floor.min(0) for floor, _ in outs]),
                np.array([ceiling.max(0) for _, ceiling in outs]),
            )
        )
    return found


def _outputs(found: list[StageBounds], source: Source) -> tuple[Floats, Floats]:
    stage = found[source.stage]
    return stage.out_low[:, source.output], stage.out_high[:, source.output]


def lead(
    reading: Reading, bounds: list[StageBounds], label: int, low: Floats, high: Floats
) -> Floats:
    """The most by which the last p of each class can exceed that of `label`, (classes,): taken
    together, so that what lifts both cancels."""
    last, stage = bounds[-1], reading.stages[-1]
    most = stage.bias - stage.bias[label] + last.rounding + last.rounding[label]
    for source in stage.sources:
        if source.stage == PIXELS:
            a, b = reading.scale * low + reading.shift, reading.scale * high + reading.shift
        else:
            a, b = _outputs(bounds, source)
        if source.matrix is None:
            most = most + b - a[label]
            continue
        difference = source.matrix - source.matrix[label]
        most = most + difference @ ((a + b) / 2) + np.abs(difference) @ ((b - a) / 2)
    least: Floats = np.minimum(most, last.high - last.low[label])
    least[label] = 0.0
    return least


def tie(reading: Reading, bounds: list[StageBounds], label: int) -> Floats:
    """By how much the last p of `label` may lead that of each class and the answer still be that
    class, (classes,)."""
    last = bounds[-1]
    lowest, highest = np.minimum(last.low, last.low[label]), np.maximum(last.high, last.high[label])
    return tie_slack(reading, lowest, highest)


def tie_slack(reading: Reading, low: Floats, high: Floats) -> Floats:
    """By how much one of two last p in [low, high] may lead the other although their answers tie or
    are the other way round: where p is read through a squashing that float32 rounds."""
    if reading.squashed is None:
        return np.zeros_like(low)
    # Read values lie below 2, where float32 is off by at most 2^-24 each; sigmoid itself by 1e-6.
    apart = 1000 * (2 * UNIT + 2 * 1e-9) * 1.01
    ends = np.clip(np.stack([low, high]) - reading.squashed, -500, 500)
    squashed = 1 / (1 + np.exp(-ends))
    slack: Floats = apart / np.maximum((squashed * (1 - squashed)).min(0), 1e-300)
    return slack
