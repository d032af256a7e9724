"""Digits as an event camera would see them: a simulated sensor that moves before scikit-learn's
8x8 digits, so that event data is at hand offline.

The sensor goes once around a circle of one pixel's radius in `frames` steps, as those of N-MNIST
(Orchard et al. 2015, arXiv 1507.07629) do before a screen. A pixel holds the logarithm of the
intensity at its last event, log(0.1 + I), and says that it has risen or fallen by `contrast` (the
event camera's rule: Lichtsteiner et al. 2008); then it holds the new one. Between the pixels of a
digit intensities are bilinear, around it there are none. Each pixel emits at most one event of each
polarity in a frame. `noise` is the share of places where an event comes or goes at random, from a
generator of its own.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from robench.data.base import Raw
from robench.data.digits import Digits

DARK = 0.1
"""Intensity of a black pixel, by which its logarithm is finite."""


class DigitsEvents(Digits):
    """Events of a simulated sensor: (2 frames, 8, 8), 0 or 1, frame by frame, rises before
    falls."""

    frames: int = Field(default=6, ge=2)
    contrast: float = Field(default=0.3, gt=0)
    noise: float = Field(default=0.005, ge=0, le=0.5)

    def raw(self) -> Raw:
        digits = super().raw()
        events = sensed(digits.images[:, 0], self.frames, self.contrast)
        rng = np.random.Generator(np.random.PCG64(0))
        flipped = rng.random(events.shape, dtype=np.float32) < self.noise
        return Raw(np.where(flipped, 1 - events, events), digits.labels, official_train=0)


def sensed(images: np.ndarray, frames: int, contrast: float) -> np.ndarray:
    """Events of images (n, h, w) in [0, 1], without noise: (n, 2 frames, h, w), float32."""
    held = _log(_seen_from(images, 0.0))
    events = []
    for frame in range(1, frames + 1):
        now = _log(_seen_from(images, frame / frames))
        change = now - held
        rises, falls = change >= contrast, change <= -contrast
        held = np.where(rises | falls, now, held)
        events += [rises, falls]
    return np.stack(events, axis=1).astype(np.float32)


def _log(intensity: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(DARK + intensity))


def _seen_from(images: np.ndarray, turn: float) -> np.ndarray:
    """The images as the sensor sees them after a share of its way, bilinear between pixels."""
    down, right = 1 - np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    wide = np.pad(images, ((0, 0), (3, 3), (3, 3)))
    top, left = int(np.floor(down)), int(np.floor(right))
    a, b = down - top, right - left
    height, width = images.shape[1:]

    def at(y: int, x: int) -> np.ndarray:
        return wide[:, 3 + y : 3 + y + height, 3 + x : 3 + x + width]

    upper = (1 - b) * at(top, left) + b * at(top, left + 1)
    lower = (1 - b) * at(top + 1, left) + b * at(top + 1, left + 1)
    return np.asarray((1 - a) * upper + a * lower)
