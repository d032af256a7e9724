"""What float32 may lose at a point of the ball, as lines in its pixels.

Intervals (bounds.py) take the most that is lost anywhere in the ball, of every sum for itself. At
one point it is less: gamma sum |w_k| |x_k| of each sum, and no point is the worst for all of them.
On an interval a size |x_k| lies below its chord, so that the loss at a point lies below a line, and
a linear program that is given these lines knows what is lost where.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench.proofs.bounds import TINY
from robench.proofs.reading import Reading
from robench.proofs.region import Region, gamma
from robench.proofs.shallow import Ints, Shallow
from robench.proofs.units import Floats


@dataclass(frozen=True)
class Loss:
    """Sums of the first stage at the pixels x are off by at most slope x + offset.

    slope: (units, pixels); offset: (units,).
    """

    slope: Floats
    offset: Floats


def of_sums(reading: Reading, region: Region) -> Loss:
    """What the pre-activations of the first stage lose in a ball."""
    stage = reading.stages[0]
    seen = (reading.scale * end + reading.shift for end in (region.low, region.high))
    slope, offset = chord(region.low, region.high, *map(np.abs, seen))
    share = gamma(stage.operations) + TINY
    size = np.abs(reading.first)
    return Loss(share * size * slope, share * (np.abs(stage.bias) + size @ offset) + TINY)


def of_answers(
    image: Shallow, target: int, piece: Ints, low: Floats, high: Floats
) -> tuple[Floats, float]:
    """What a perceptron's answers for `target` and for the right class lose together where each
    open unit is on one piece: at most slope p + offset, slope (units,).

    Args:
        piece, low, high: of each unit, (units,), and the ends of it.
    """
    stage, classes = image.reading.stages[-1], [target, image.label]
    share = gamma(stage.operations) + TINY
    ends = (np.abs(image.slopes[piece, 0] * p + image.offsets[piece, 0]) for p in (low, high))
    slope, offset = chord(low, high, *ends)
    size = np.abs(image.out[classes]).sum(0)
    fixed = float(image.still[classes].sum() + size @ offset)
    return share * size * slope, share * fixed + TINY * len(classes)


def chord(low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> tuple[Floats, Floats]:
    """The line through two points, which lies above a convex function between them: slope, offset.
    Where low = high, a constant."""
    width = high - low
    slope = np.where(width > 0, (at_high - at_low) / np.where(width > 0, width, 1.0), 0.0)
    return slope, np.where(width > 0, at_low - slope * low, np.maximum(at_low, at_high))
