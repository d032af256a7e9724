"""Noises of imagecorruptions, fast and bit-identical: (h, w, c) uint8 in and out.

Of a grey image, c = 1, the numbers of three channels are drawn as the package draws them, and the
first channel is made.
"""

from __future__ import annotations

import numpy as np

from robench.corruptions.imagenet_c.blurs import cut


def gaussian_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    scale = [0.08, 0.12, 0.18, 0.26, 0.38][severity - 1]
    return cut(image / 255.0 + _normal(image, scale, random))


def speckle_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    scale = [0.15, 0.2, 0.35, 0.45, 0.6][severity - 1]
    x = image / 255.0
    return cut(x + x * _normal(image, scale, random))


def _normal(image: np.ndarray, scale: float, random: np.random.RandomState) -> np.ndarray:
    h, w, channels = image.shape
    drawn: np.ndarray = random.normal(size=(h, w, 3), scale=scale)
    return drawn[..., :channels]


def shot_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    photons = [60, 25, 12, 5, 3][severity - 1]
    h, w, channels = image.shape
    expected = np.broadcast_to(image / 255.0 * photons, (h, w, 3))
    return cut(random.poisson(expected)[..., :channels] / photons)


def impulse_noise(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    amount = [0.03, 0.06, 0.09, 0.17, 0.27][severity - 1]
    struck, salt = _chosen(amount, image, random), _chosen(0.5, image, random)
    return np.where(struck, salt * np.uint8(255), image)


def _chosen(p: float, image: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """RandomState.choice([True, False], p=[p, 1 - p]), without its search among two places."""
    h, w, channels = image.shape
    edges = np.cumsum([p, 1 - p])
    chosen: np.ndarray = random.random_sample((h, w, 3)) < edges[0] / edges[1]
    return chosen[..., :channels]
