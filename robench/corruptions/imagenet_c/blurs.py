"""Blurs of imagecorruptions, fast and bit-identical: (h, w, c) uint8 in and out, any c.

The channels of these kinds do not know of each other, so that a grey image can be one channel
instead of three equal ones. Each draws the same numbers in the same order as the package and rounds
in the same places.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from robench.corruptions.imagenet_c.compat import mended

BLOCK = 2**15
"""Numbers that are added up at once; a quarter of a MiB in float64."""


def cut(x: np.ndarray) -> np.ndarray:
    """[0, 1] -> bytes, cut off as the package does."""
    return (x.clip(0, 1) * 255).astype(np.uint8)


def glass_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    sigma, delta, iterations = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][
        severity - 1
    ]
    h, w, c = image.shape
    blurred = (_gaussian(image / 255.0, sigma) * 255).astype(np.uint8).reshape(h * w, c)
    source = shuffle_sources(h, w, delta, iterations, random)
    shuffled = blurred[source].reshape(h, w, c)
    return cut(_gaussian(shuffled / 255.0, sigma))


def shuffle_sources(
    h: int, w: int, delta: int, iterations: int, random: np.random.RandomState
) -> np.ndarray:
    """Where each pixel's colour comes from once glass_blur has shuffled, as (h * w,) flat indices.

    The package means to swap each pixel with a near one, from the bottom right corner up. As a
    numpy row is a view, what it does is copy the near one's colour: x[p] <- x[q]. If q came before
    p in the order, that is the colour that q got; so p's colour lies at the end of the chain
    p -> q -> ..., which halves in each round of following two links at once.
    """
    rows = np.arange(h - delta, delta, -1)
    columns = np.arange(w - delta, delta, -1)
    at = (rows[:, None] * w + columns).ravel()
    inside = np.zeros(h * w, bool)
    inside[at] = True
    draws = random.randint(-delta, delta, size=(iterations, len(at), 2))
    source = np.arange(h * w)
    for dx, dy in np.moveaxis(draws, 2, 1):
        near = at + dy * w + dx
        colour_from = np.arange(h * w)
        colour_from[at] = near
        link = np.arange(h * w)
        chained = inside[near] & (near > at)
        followed, to = at[chained], near[chained]
        link[followed] = to
        while len(followed):
            further = link[to]
            longer = np.flatnonzero(further != to)  # the others are at the end of their chain
            followed, to = followed[longer], further[longer]
            link[followed] = to
        source = source[colour_from[link]]
    return source


def motion_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    answer = moved(image, radius, sigma, random.uniform(-45, 45))
    return answer.clip(0, 255).astype(np.uint8)


def moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """The mean of `image` and its shifts along a line, weighted by half a Gaussian."""
    import cv2

    h, w = image.shape[:2]
    weights = mended().getMotionBlurKernel(2 * radius + 1, sigma).tolist()
    shifts = _line(len(weights), angle, h, w)
    c = image.size // (h * w)
    reach_y = max(abs(dy) for dy, _ in shifts)
    reach_x = max(abs(dx) for _, dx in shifts)
    around = (reach_y, reach_y, reach_x, reach_x)
    padded = cv2.copyMakeBorder(image, *around, cv2.BORDER_REPLICATE).reshape(h + 2 * reach_y, -1)
    total = np.zeros((h, w * c))
    # Some rows at once, so that the total and what is added stay near the processor.
    rows = max(1, BLOCK // (w * c))
    shifted, layer = np.empty((rows, w * c), image.dtype), np.empty((rows, w * c))
    for first in range(0, h, rows):
        count = min(rows, h - first)
        for weight, (dy, dx) in zip(weights, shifts, strict=False):
            top, left = first + reach_y - dy, (reach_x - dx) * c
            # Copied in one piece, which is read sooner than rows that begin anywhere.
            shifted[:count] = padded[top : top + count, left : left + w * c]
            np.multiply(shifted[:count], weight, out=layer[:count])
            total[first : first + count] += layer[:count]
    return total.reshape(image.shape)


def _line(steps: int, angle: float, h: int, w: int) -> list[tuple[int, int]]:
    """Shifts along a line (down, right), as many as do not leave the image."""
    along = steps * np.sin(np.deg2rad(angle)), steps * np.cos(np.deg2rad(angle))
    length = math.hypot(*along)
    shifts = []
    for step in range(steps):
        dy = -math.ceil(step * along[0] / length - 0.5)
        dx = -math.ceil(step * along[1] / length - 0.5)
        if abs(dy) >= h or abs(dx) >= w:
            break
        shifts.append((dy, dx))
    return shifts


def zoom_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    steps = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][severity - 1]
    factors = tuple(np.arange(1, *steps).tolist())
    x = np.ascontiguousarray((image / 255.0).astype(np.float32).transpose(2, 0, 1))
    h, w = x.shape[1:]
    rows, row_weights = _zoom_weights(h, factors)
    columns, column_weights = _zoom_weights(w, factors)
    out = x.copy()  # zoomed by the first factor, 1
    exact, layer, corner, left, right = (np.empty((h, w)) for _ in range(5))
    for channel, total in zip(x, out, strict=True):
        exact[...] = channel
        for zoom in range(1, len(factors)):
            for tap, across in enumerate((left, right)):
                exact.take(columns[zoom, tap], axis=1, out=across, mode="clip")
            for corner_of, (down, tap) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                into = corner if corner_of else layer
                (left, right)[tap].take(rows[zoom, down], axis=0, out=into, mode="clip")
                into *= row_weights[zoom, down, :, None]
                into *= column_weights[zoom, tap]
                if corner_of:
                    layer += corner
            total += layer.astype(np.float32)
    return cut((x + out) / (len(factors) + 1)).transpose(1, 2, 0)


@lru_cache(maxsize=64)
def _zoom_weights(side: int, factors: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation of the package's `clipped_zoom` along one axis, as SciPy weighs it.

    Returns (factors, 2, side) indices of the two neighbours and their weights, float64.
    """
    from scipy.ndimage import zoom

    indices = np.zeros((len(factors), 2, side), np.intp)
    weights = np.zeros((len(factors), 2, side))
    for i, factor in enumerate(factors):
        kept = math.ceil(side / factor)
        start = (side - kept) // 2
        matrix = zoom(np.eye(kept), (factor, 1), order=1)[:side]
        first = np.minimum((matrix != 0).argmax(axis=1), kept - 2)
        for tap in (0, 1):
            indices[i, tap] = start + first + tap
            weights[i, tap] = matrix[np.arange(side), first + tap]
    return indices, weights


def defocus_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    import cv2

    kernel = _disk(severity)
    return cut(cv2.filter2D(image / 255.0, -1, kernel)).reshape(image.shape)


@lru_cache(maxsize=5)
def _disk(severity: int) -> np.ndarray:
    radius, alias_blur = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    kernel: np.ndarray = mended().disk(radius=radius, alias_blur=alias_blur)
    return kernel


def gaussian_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    sigma = [1, 2, 3, 4, 6][severity - 1]
    return cut(_gaussian(image / 255.0, sigma))


def _gaussian(image: np.ndarray, sigma: float | np.ndarray, **options: object) -> np.ndarray:
    """scikit-image's `gaussian` of each channel, without its checks."""
    from scipy.ndimage import gaussian_filter

    options = {"mode": "nearest", **options}
    blurred: np.ndarray = gaussian_filter(image, sigma, axes=(0, 1), **options)
    return blurred


def elastic_transform(
    image: np.ndarray, severity: int, random: np.random.RandomState
) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    x = np.array(image, dtype=np.float32) / np.float32(255)
    h, w = x.shape[:2]
    reach = h * 0.005
    alpha = 250 * [0.05, 0.065, 0.085, 0.1, 0.12][severity - 1]
    sigma = np.array([h, w]) * 0.01

    def displacement() -> np.ndarray:
        drawn = random.uniform(-reach, reach, size=(h, w))
        smooth = _gaussian(drawn, sigma, mode="reflect", truncate=3)
        return (smooth * alpha).astype(np.float32)

    dx, dy = displacement(), displacement()
    at = np.arange(h)[:, None] + dy, np.arange(w) + dx
    channels = [map_coordinates(x[:, :, d], at, order=1, mode="reflect") for d in range(x.shape[2])]
    return cut(np.stack(channels, axis=2))
