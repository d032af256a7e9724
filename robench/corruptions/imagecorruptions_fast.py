"""The kinds of imagecorruptions that loop in Python or do needless work, fast and bit-identical.

Every function here draws the same numbers in the same order as the package and rounds in the same
places; `imagecorruptions_compat.corrupt` is the reference that tests compare with. What is saved:

    glass_blur      one draw for all pixels; the pixel-by-pixel shuffle as pointer jumping
    motion_blur     slices of one padded image instead of a rolled copy per step (also in snow)
    zoom_blur       interpolation weights kept per image size; all zooms in one go
    frost           textures kept
    fog             the height map without rolled copies
    elastic_transform   two-dimensional interpolation per channel (the third is not interpolated)
    all these       a grey image is one channel, not three equal ones
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from robench.corruptions.imagecorruptions_compat import corrupt as corrupt_as_packaged
from robench.corruptions.imagecorruptions_compat import mended, texture_files

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
"""Kinds that draw each channel by itself."""


def corrupt(
    image: np.ndarray, kind: str, severity: int, random: np.random.RandomState
) -> np.ndarray:
    """What `imagecorruptions_compat.corrupt` answers, sooner; grey images stay grey.

    A grey image counts as three equal channels. The answer's channels are brought back to one: of
    the noises the first is kept, since a mean would weaken them; the others (where at most frost, mud
    and colour make the channels differ) are weighted by 0.299, 0.587, 0.114.

    Args:
        image: (h, w, 3) or (h, w, 1), uint8, both sides at least 32.
        kind, severity, random: as there.

    Returns an array like `image`.
    """
    grey = image.shape[2] == 1
    if kind in CHANNELWISE:
        return CHANNELWISE[kind](image, severity, random).astype(np.uint8)
    if grey:
        image = np.repeat(image, 3, axis=2)
    if kind in COLOURED:
        answer = COLOURED[kind](image, severity, random).astype(np.uint8)
    else:
        answer = corrupt_as_packaged(image, kind, severity, random)
    if not grey:
        return answer
    return answer[..., :1] if kind in NOISES else luma(answer)


def luma(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) -> (h, w, 1), uint8; three equal channels stay what they are."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536
    return ((image @ weights + 32768) >> 16).astype(np.uint8)[..., None]


# -- kinds whose channels do not know of each other: (h, w, c) in, (h, w, c) in [0, 255] out -----------


def glass_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    sigma, delta, iterations = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][
        severity - 1
    ]
    h, w, c = image.shape
    blurred = (_gaussian(image / 255.0, sigma) * 255).astype(np.uint8).reshape(h * w, c)
    source = shuffle_sources(h, w, delta, iterations, random)
    shuffled = blurred[source].reshape(h, w, c)
    return np.clip(_gaussian(shuffled / 255.0, sigma), 0, 1) * 255


def shuffle_sources(
    h: int, w: int, delta: int, iterations: int, random: np.random.RandomState
) -> np.ndarray:
    """Where each pixel's colour comes from once glass_blur has shuffled, as (h * w,) flat indices.

    The package means to swap each pixel with a near one, from the bottom right corner up. As a
    numpy row is a view, what it does is copy the near one's colour: x[p] <- x[q]. If q came before p
    in the order, that is the colour that q got; so p's colour lies at the end of the chain
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
    return np.clip(_moved(image, radius, sigma, random.uniform(-45, 45)), 0, 255)


def _moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """The mean of `image` and its shifts along a line, edges repeated, weighted by half a Gaussian."""
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
    padded = image[rows][:, columns].astype(np.float64)
    total = np.zeros(image.shape)
    for weight, (dy, dx) in zip(kernel, shifts, strict=False):
        top, left = reach_y - dy, reach_x - dx
        total += weight * padded[top : top + h, left : left + w]
    return total


def zoom_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    steps = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][severity - 1]
    factors = tuple(np.arange(1, *steps).tolist())
    x = (image / 255.0).astype(np.float32)
    h, w = x.shape[:2]
    rows, row_weights = _zoom_weights(h, factors)
    columns, column_weights = _zoom_weights(w, factors)
    out = np.zeros_like(x)
    for zoom in range(len(factors)):
        upper = x[rows[zoom, 0]] * row_weights[zoom, 0][:, None, None]
        lower = x[rows[zoom, 1]] * row_weights[zoom, 1][:, None, None]
        left, right = columns[zoom]
        left_weight, right_weight = column_weights[zoom][..., None]
        layer = upper[:, left] * left_weight
        layer += upper[:, right] * right_weight
        layer += lower[:, left] * left_weight
        layer += lower[:, right] * right_weight
        out += layer.astype(np.float32)
    return np.clip((x + out) / (len(factors) + 1), 0, 1) * 255


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
    return np.clip(np.stack(channels, axis=2), 0, 1) * 255


@lru_cache(maxsize=5)
def _disk(severity: int) -> np.ndarray:
    radius, alias_blur = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    kernel: np.ndarray = mended().disk(radius=radius, alias_blur=alias_blur)
    return kernel


def gaussian_blur(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    sigma = [1, 2, 3, 4, 6][severity - 1]
    return np.clip(_gaussian(image / 255.0, sigma), 0, 1) * 255


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
    channels = [
        map_coordinates(x[:, :, d], at, order=1, mode="reflect") for d in range(x.shape[2])
    ]
    return np.clip(np.stack(channels, axis=2), 0, 1) * 255


# -- kinds that need three channels -------------------------------------------------------------------


def frost(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    keep, add = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][severity - 1]
    h, w = image.shape[:2]
    texture = _frost_texture(random.randint(5), h, w)
    top = random.randint(0, texture.shape[0] - h)
    left = random.randint(0, texture.shape[1] - w)
    crop = texture[top : top + h, left : left + w, ::-1]  # OpenCV reads blue first
    return np.clip(keep * image + add * crop, 0, 255)


@lru_cache(maxsize=10)
def _frost_texture(index: int, h: int, w: int) -> np.ndarray:
    """The texture 1.1 times as large as it is, or as the image where that is larger."""
    import cv2

    texture = cv2.imread(str(texture_files()[index]))
    scale = 1.1 * max(1, h / texture.shape[0], w / texture.shape[1])
    size = math.ceil(texture.shape[1] * scale), math.ceil(texture.shape[0] * scale)
    enlarged: np.ndarray = cv2.resize(texture, dsize=size, interpolation=cv2.INTER_CUBIC)
    return enlarged


def snow(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    import cv2

    mean, deviation, zoom, threshold, radius, sigma, keep = [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ][severity - 1]
    x = np.array(image, dtype=np.float32) / np.float32(255)
    h, w = x.shape[:2]
    drawn = random.normal(size=(h, w), loc=mean, scale=deviation)
    layer = mended().clipped_zoom(drawn[..., np.newaxis], zoom)[..., 0]
    layer[layer < threshold] = 0
    layer = _moved(np.clip(layer, 0, 1), int(radius), sigma, random.uniform(-135, -45))
    layer = (np.round(layer * 255).astype(np.uint8) / 255.0)[:h, :w, np.newaxis]
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    # Half the weights are written as the package writes them: they are float32 arrays times floats.
    whitened = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    return np.clip(whitened + layer + np.rot90(layer, k=2), 0, 1) * 255


def fog(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    thickness, decay = [(1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)][severity - 1]
    h, w = image.shape[:2]
    x = image / 255.0
    brightest = x.max()
    side = 2 ** (max(h, w) - 1).bit_length()
    x += thickness * height_map(side, decay, random)[:h, :w, np.newaxis]
    return np.clip(x * brightest / (brightest + thickness), 0, 1) * 255


def height_map(side: int, decay: float, random: np.random.RandomState) -> np.ndarray:
    """Plasma fractal by the diamond-square algorithm on a torus: (side, side), in [0, 1]."""
    heights = np.zeros((side, side))
    step, wibble = side, 100.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]

        def displaced(total: np.ndarray, wibble: float = wibble) -> np.ndarray:
            return total / 4 + wibble * random.uniform(-wibble, wibble, total.shape)

        squares = corners + _next(corners, 0)
        squares += _next(squares, 1)
        heights[half::step, half::step] = displaced(squares)
        centres = heights[half::step, half::step]
        below = centres + _next(centres, 0, -1)
        heights[::step, half::step] = displaced(below + (corners + _next(corners, 1)))
        right = centres + _next(centres, 1, -1)
        heights[half::step, ::step] = displaced(right + (corners + _next(corners, 0)))
        step //= 2
        wibble /= decay
    heights -= heights.min()
    return heights / heights.max()


def _next(values: np.ndarray, axis: int, by: int = 1) -> np.ndarray:
    """The neighbour of each value along the axis, around the edge."""
    index = np.arange(by, by + values.shape[axis])
    return values.take(index, axis=axis, mode="wrap")


Kind = Callable[[np.ndarray, int, np.random.RandomState], np.ndarray]
CHANNELWISE: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        glass_blur,
        motion_blur,
        zoom_blur,
        defocus_blur,
        gaussian_blur,
        elastic_transform,
    )
}
COLOURED: dict[str, Kind] = {kind.__name__: kind for kind in (frost, snow, fog)}
