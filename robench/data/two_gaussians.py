"""Two Gaussians in the plane: the BF paper's first experiment, means +-1, standard deviation 1.

Points become images (1, 1, 2) with pixel = (value + SPAN) / (2 SPAN), cut at the edges, which lie
four deviations from the means. Network `fc` with span = 5 sees the points as they were drawn.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Raw, Split

SPAN = 5.0


class TwoGaussians(Dataset):
    """Points around (-1, -1) and (1, 1), standard deviation 1; drawn here, nothing to download."""

    split: Split = "6:1:3"
    points: int = Field(default=1000, ge=10)
    """Of both classes together."""
    draw: int = Field(default=0, ge=0)
    """Seed of the points."""

    def raw(self) -> Raw:
        rng = np.random.Generator(np.random.PCG64(self.draw))
        labels = np.arange(self.points) % 2
        points = rng.normal(2.0 * labels[:, None] - 1, 1.0, (self.points, 2))
        pixels = np.clip((points + SPAN) / (2 * SPAN), 0, 1)
        return Raw(pixels.reshape(-1, 1, 1, 2).astype(np.float32), labels, official_train=0)

    def class_names(self) -> tuple[str, ...]:
        return "around (-1, -1)", "around (1, 1)"
