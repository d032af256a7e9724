"""Weather of imagecorruptions, fast and bit-identical: (h, w, 3) uint8 in and out.

Each draws the same numbers in the same order as the package and rounds in the same places.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from robench.corruptions.imagenet_c.blurs import cut, moved
from robench.corruptions.imagenet_c.compat import texture_files
from robench.errors import RobenchError


def frost(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    keep, add = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][severity - 1]
    h, w = image.shape[:2]
    texture = _frost_texture(random.randint(5), h, w)
    top = random.randint(0, texture.shape[0] - h)
    left = random.randint(0, texture.shape[1] - w)
    crop = texture[top : top + h, left : left + w]
    return np.clip(keep * image + add * crop, 0, 255).astype(np.uint8)


@lru_cache(maxsize=10)
def _frost_texture(index: int, h: int, w: int) -> np.ndarray:
    """The texture 1.1 times as large as it is, or as the image where that is larger."""
    import cv2

    file = texture_files()[index]
    texture = cv2.imread(str(file))
    if texture is None:
        raise RobenchError(f"{file}: not an image; install imagecorruptions anew")
    scale = 1.1 * max(1, h / texture.shape[0], w / texture.shape[1])
    size = math.ceil(texture.shape[1] * scale), math.ceil(texture.shape[0] * scale)
    enlarged = cv2.resize(texture, dsize=size, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(enlarged[..., ::-1])  # OpenCV reads blue first


def snow(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    import cv2
    from scipy.ndimage import zoom as enlarged

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
    # The package's `clipped_zoom`, of two dimensions in place of three, one of which has one place.
    kept = math.ceil(h / zoom), math.ceil(w / zoom)
    top, left = (h - kept[0]) // 2, (w - kept[1]) // 2
    layer = enlarged(drawn[top : top + kept[0], left : left + kept[1]], zoom, order=1)
    layer[layer < threshold] = 0
    layer = moved(np.clip(layer, 0, 1), int(radius), sigma, random.uniform(-135, -45))
    layer = (np.round(layer * 255).astype(np.uint8) / 255.0)[:h, :w, np.newaxis]
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    whitened = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    return cut(whitened + layer + np.rot90(layer, k=2))


def fog(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    thickness, decay = [(1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)][severity - 1]
    h, w = image.shape[:2]
    x = image / 255.0
    brightest = x.max()
    side = 2 ** (max(h, w) - 1).bit_length()
    x += thickness * height_map(side, decay, random)[:h, :w, np.newaxis]
    return cut(x * brightest / (brightest + thickness))


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
    scaled: np.ndarray = heights / heights.max()
    return scaled


def _next(values: np.ndarray, axis: int, by: int = 1) -> np.ndarray:
    """The neighbour of each value along the axis, around the edge."""
    index = np.arange(by, by + values.shape[axis])
    neighbours: np.ndarray = values.take(index, axis=axis, mode="wrap")
    return neighbours
