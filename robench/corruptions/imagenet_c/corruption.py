"""ImageNet-C: 15 + 4 kinds of corruption at five severities (Hendrycks & Dietterich, ICLR 2019).

The corruptions are those of the package imagecorruptions, at any image size, on colour and grey
images. They work on 8-bit images: pixels are rounded to multiples of 1/255 on the way in, and the
answer's pixels are such multiples.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from robench.corruptions.base import Corruption
from robench.corruptions.imagenet_c.compat import COMMON, KINDS, SMALLEST
from robench.corruptions.imagenet_c.fast import corrupt
from robench.errors import nearest


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind; {nearest(kind, KINDS)}")
    return kind


def _distinct(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(kinds)) != len(kinds):
        raise ValueError("a kind is listed twice")
    return kinds


class ImageNetC(Corruption):
    """Noise, blur, weather and digital corruptions of ImageNet-C, through imagecorruptions."""

    kinds: Annotated[
        tuple[Annotated[str, AfterValidator(_known)], ...], AfterValidator(_distinct)
    ] = Field(default=COMMON, min_length=1)
    """Any of ImageNet-C's 15 kinds (the default) and its 4 for validation: speckle_noise,
    gaussian_blur, spatter, saturate."""
    small: Literal["scale", "pad"] = "pad"
    """How an image under 32 pixels gets the 32 a side that the corruptions need. scale: every pixel
    is repeated by the smallest whole factor that suffices, and the answer averaged back: blurs and
    textures keep their size relative to the picture, noise is averaged down. pad: the picture is
    reflected around its edges, and the answer cropped back: constants keep their size in pixels,
    which suits 28 pixels and blurs 8 beyond recognition."""

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(h, w, c) -> (h, w, c), float32 multiples of 1/255. A grey image is corrupted as three
        equal channels and brought back to one as `fast.corrupt` says."""
        scaled = image * 255
        pixels = np.rint(scaled, out=scaled).astype(np.uint8)
        # The same bits as `rng`, drawn through numpy's legacy distributions, which never change.
        random = np.random.RandomState(rng.bit_generator)
        h, w, c = pixels.shape
        if min(h, w) >= SMALLEST:
            answer = corrupt(pixels, kind, severity, random)
        elif self.small == "scale":
            factor = -(-SMALLEST // min(h, w))
            large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            large = corrupt(large, kind, severity, random)
            answer = large.reshape(h, factor, w, factor, c).mean(axis=(1, 3)).round()
        else:
            top, left = max(0, SMALLEST - h) // 2, max(0, SMALLEST - w) // 2
            bottom, right = max(0, SMALLEST - h) - top, max(0, SMALLEST - w) - left
            large = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="reflect")
            answer = corrupt(large, kind, severity, random)[top : top + h, left : left + w]
        return answer.astype(np.float32) / np.float32(255)
