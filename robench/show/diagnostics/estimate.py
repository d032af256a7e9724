"""Shares of images and paired differences, with 95% intervals over seeds and images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from robench.digest import derived_seed
from robench.show.statistics import (
    LEVEL,
    Floats,
    Resampling,
    bootstrap,
    percentile_interval,
    resampled_means,
    resampling,
    wilson,
)

LEAST = 0.01
"""Share of images, or difference of accuracies, below which nothing is worth an alarm."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @property
    def range(self) -> str:
        """The interval in per cent: `1.7 to 5.1`."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"

    @property
    def points(self) -> str:
        """In percentage points, with the interval: `3.4 (1.7 to 5.1)`."""
        return f"{100 * self.value:.1f} ({self.range})"

    def evidence(self) -> list[float]:
        """[value, low, high], rounded as a page shows them."""
        return [round(number, 4) for number in (self.value, self.low, self.high)]


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def share(values: Floats) -> Estimate:
    """The mean of values in [0, 1], (seeds, images), as the leaderboard gives it: Wilson's interval
    for one seed, bootstrap over seeds and images for several."""
    seeds, images = values.shape
    value = float(values.mean())
    if seeds == 1:
        low, high = wilson(np.array([value]), images)
    else:
        low, high = bootstrap(values[None], _drawn(seeds, images))
    return Estimate(value, float(low[0]), float(high[0]))


def difference(values: Floats, comparisons: int = 1) -> Estimate:
    """The mean of per-image differences in [-1, 1], (seeds, images): paired by seed and by image.

    Args:
        comparisons: how many differences are looked at to find the largest; the interval is widened
            for it (Bonferroni).
    """
    means = resampled_means(values[None], _drawn(*values.shape))[:, 0]
    low, high = percentile_interval(means, 1 - (1 - LEVEL) / comparisons)
    return Estimate(float(values.mean()), float(low), float(high))


@lru_cache(maxsize=2)
def _drawn(seeds: int, images: int) -> Resampling:
    rng = np.random.default_rng(derived_seed("diagnostics", seeds, images))
    return resampling(seeds, images, rng)
