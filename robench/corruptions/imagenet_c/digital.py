"""Digital kinds of imagecorruptions, fast and bit-identical: (h, w, c) uint8 in and out.

Each draws the same numbers in the same order as the package and rounds in the same places.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from robench.corruptions.imagenet_c.blurs import cut


def contrast(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    import cv2

    share = [0.4, 0.3, 0.2, 0.1, 0.05][severity - 1]
    # One pixel after the other, as the package's mean over two axes of three adds them.
    sums = [np.add.accumulate(c.ravel() / 255.0)[-1] for c in cv2.split(image)]
    means = np.array(sums) / (image.shape[0] * image.shape[1])
    every = (np.arange(256) / 255.0)[:, None]
    becomes = cut((every - means) * share + means)
    answer: np.ndarray = cv2.LUT(image, becomes[:, None])
    return answer.reshape(image.shape)


def pixelate(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    from PIL import Image

    share = [0.6, 0.5, 0.4, 0.3, 0.25][severity - 1]
    h, w, c = image.shape
    small = _picture(image).resize((int(w * share), int(h * share)), Image.Resampling.BOX)
    return np.asarray(small.resize((w, h), Image.Resampling.NEAREST)).reshape(h, w, c)


def jpeg_compression(image: np.ndarray, severity: int, random: np.random.RandomState) -> np.ndarray:
    from PIL import Image

    quality = [25, 18, 15, 10, 7][severity - 1]
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def _picture(image: np.ndarray) -> Any:
    """Pillow's. Grey stays grey: the colours that JPEG adds to equal channels are none, and resize
    knows each channel by itself."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
