"""Kinds of imagecorruptions that go by hue, saturation and value, fast and bit-identical.

(h, w, 3) uint8 in and out. Each rounds in the same places as scikit-image's `rgb2hsv` and
`hsv2rgb`, through which the package goes.
"""

from __future__ import annotations

import numpy as np

from robench.corruptions.imagenet_c.blurs import cut

ROLES = np.array([(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0), (1, 2, 0), (0, 2, 1)], np.uint8)
"""Red, green and blue in each sextant of the hue: the brightest (0), between (1), the darkest."""


def brightness(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    more = [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1]
    hue, saturation, value = _hsv(image)
    return _rgb(hue, saturation, (value + more).clip(0, 1))


def saturate(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    times, more = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)][severity - 1]
    hue, saturation, value = _hsv(image)
    return _rgb(hue, (saturation * times + more).clip(0, 1), value)


def _hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value, each (h, w), float64 in [0, 1]."""
    red, green, blue = (np.ascontiguousarray(image[..., channel]) for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    is_blue, is_green, is_grey = blue == most, green == most, least == most
    value = most / 255.0
    reach = value - least / 255.0
    saturation = reach / np.where(is_grey, 1, value)  # of grey 0, black too
    upper = np.where(is_blue, red, np.where(is_green, blue, green))
    lower = np.where(is_blue, green, np.where(is_green, red, blue))
    hue = upper / 255.0
    hue -= lower / 255.0
    hue /= np.where(is_grey, 1, reach)
    hue += np.where(is_blue, 4.0, np.where(is_green, 2.0, 0.0))
    hue /= 6.0
    hue += hue < 0  # around the circle
    hue[is_grey] = 0
    return hue, saturation, value


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(h, w, 3), bytes."""
    along = hue * 6
    sextant = np.floor(along)
    along -= sextant
    sextant = sextant.astype(np.uint8) % 6
    brightest, darkest = cut(value), cut(value * (1 - saturation))
    along = np.where(sextant & 1, along, 1 - along)
    between = cut(value * (1 - along * saturation))
    answer = np.empty((*hue.shape, 3), np.uint8)
    for channel in range(3):
        role = ROLES[:, channel].take(sextant)
        answer[..., channel] = np.where(role == 0, brightest, np.where(role == 1, between, darkest))
    return answer
