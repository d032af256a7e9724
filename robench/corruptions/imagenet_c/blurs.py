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
        link[at[chained]] = near[chained]
        while True:
            further = link[link]
            if np.array_equal(further, link):
                break
            link = further
        source = source[colour_from[link]]
    return source


def motion_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    answer = moved(image, radius, sigma, random.uniform(-45, 45))
    return answer.clip(0, 255).astype(np.uint8)


def moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """The mean of `image` and its shifts along a line, weighted by half a Gaussian."""
    package = mended()
    h, w = image.shape[:2]
    width = 2 * radius + 1
    kernel = package.getMotionBlurKernel(width, sigma)
    along = width * np.sin(np.deg2rad(angle)), width * np.cos(np.deg2rad(angle))
    length = math.hypot(*along)
    shifts = []
    for step in range(width):
        dy = -math.ceil(step * along[0] / length - 0.5)
        dx = -math.ceil(step * along[1] / length - 0.5)
        if abs(dy) >= h or abs(dx) >= w:
            break  # the motion leaves the image
        shifts.append((dy, dx))
    reach_y = max(abs(dy) for dy, _ in shifts)
    reach_x = max(abs(dx) for _, dx in shifts)
    rows = np.arange(-reach_y, h + reach_y).clip(0, h - 1)
    columns = np.arange(-reach_x, w + reach_x).clip(0, w - 1)
    padded = image[rows][:, columns]  # bytes: an eighth of what is read at each step
    total, layer = np.zeros(image.shape), np.empty(image.shape)
    for weight, (dy, dx) in zip(kernel, shifts, strict=False):
        top, left = reach_y - dy, reach_x - dx
        np.multiply(padded[top : top + h, left : left + w], weight, out=layer)
        total += layer
    return total


def zoom_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    steps = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][severity - 1]
    factors = tuple(np.arange(1, *steps).tolist())
    x = (image / 255.0).astype(np.float32).transpose(2, 0, 1)  # the longest loops innermost
    rows, row_weights = _zoom_weights(x.shape[1], factors)
    columns, column_weights = _zoom_weights(x.shape[2], factors)
    exact = x.astype(np.float64)
    out = np.zeros_like(x)
    for zoom in range(len(factors)):
        layer = np.zeros(x.shape)
        for row, row_weight in zip(rows[zoom], row_weights[zoom], strict=True):
            weighted = exact.take(row, axis=1) * row_weight[:, None]
            for column, column_weight in zip(columns[zoom], column_weights[zoom], strict=True):
                layer += weighted.take(column, axis=2) * column_weight
        out += layer.astype(np.float32)
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
    x = image / 255.0
    channels = [cv2.filter2D(x[:, :, d], -1, kernel) for d in range(x.shape[2])]
    return cut(np.stack(channels, axis=2))


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
