"""The natural noises of GLR (Xiao et al., CASE 2020, arXiv 1902.00358): four mild ImageNet-C kinds.

The constants are those of its published scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import Field

from robench.corruptions.base import Corruption

Kind = Literal["gaussian", "impulse", "glass", "contrast"]


class GLRMnist(Corruption):
    """GLR's Gaussian, impulse, glass and contrast noises, for grey images of any size."""

    kinds: tuple[Kind, ...] = Field(
        default=("gaussian", "impulse", "glass", "contrast"), min_length=1
    )

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(h, w, c) -> (h, w, c). Noise is independent per channel; glass moves whole pixels."""
        answer: np.ndarray = np.clip(
            NOISES[kind](image.astype(np.float64), severity - 1, rng), 0, 1
        )
        return answer


def gaussian(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    sigma = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return x + rng.normal(scale=sigma, size=x.shape)


def impulse(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper in equal parts on `amount` of the pixels."""
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    struck = rng.random(x.shape) < amount
    salt = rng.random(x.shape) < 0.5
    return np.where(struck, salt.astype(x.dtype), x)


def contrast(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[level]
    mean: np.ndarray = x.mean(axis=(0, 1), keepdims=True)
    faint: np.ndarray = (x - mean) * share + mean
    return faint


def glass(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Blur, swap pixels with near ones from the bottom right corner up, blur again.

    The published script blurs along columns only, by calling scikit-image with `multichannel` on a
    grey image; here both axes are blurred. With sigma <= 0.4 a neighbour weighs at most 4%.
    """
    sigma, delta, iterations = (
        (0.05, 1, 1),
        (0.25, 1, 1),
        (0.4, 1, 1),
        (0.25, 1, 2),
        (0.4, 1, 2),
    )[level]
    h, w, c = x.shape
    blurred = (_blur(x, sigma) * 255).astype(np.uint8) / 255.0  # the script goes through bytes
    order = list(range(h * w))
    places = [
        row * w + column
        for row in range(h - delta, delta, -1)
        for column in range(w - delta, delta, -1)
    ]
    draws = rng.integers(-delta, delta, size=(iterations, len(places), 2))
    for steps in (draws[..., 0] * w + draws[..., 1]).tolist():
        for place, step in zip(places, steps, strict=True):
            near = place + step
            order[place], order[near] = order[near], order[place]
    swapped = blurred.reshape(h * w, c)[order].reshape(h, w, c)
    return _blur(swapped, sigma)


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    blurred: np.ndarray = gaussian_filter(x, sigma, axes=(0, 1), mode="nearest")
    return blurred


NOISES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian": gaussian,
    "impulse": impulse,
    "glass": glass,
    "contrast": contrast,
}
